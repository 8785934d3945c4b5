"""The model behind mosec; the row's JSON is parsed and written by orjson."""

import os

import numpy as np
import onnxruntime
import orjson
from mosec import Server, Worker


class Mlp(Worker):
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)

    def deserialize(self, data):
        return orjson.loads(data)

    def serialize(self, data):
        return orjson.dumps(data)

    def forward(self, requests):
        rows = np.asarray([request["instances"][0] for request in requests], np.float32)
        return [{"predictions": [row]} for row in self.session.run(None, {"x": rows})[0].tolist()]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Mlp, num=1, max_batch_size=32, max_wait_time=1)
    server.run()
