"""The model behind LitServe."""

import os

import litserve
import numpy as np
import onnxruntime


class Mlp(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)

    def decode_request(self, request):
        return np.asarray(request["instances"][0], np.float32)

    def batch(self, rows):
        return np.stack(rows)

    def predict(self, rows):
        return self.session.run(None, {"x": rows})[0]

    def unbatch(self, rows):
        return list(rows)

    def encode_response(self, row):
        return {"predictions": [row.tolist()]}


if __name__ == "__main__":
    server = litserve.LitServer(
        Mlp(max_batch_size=32, batch_timeout=0.001), accelerator="cpu", workers_per_device=1
    )
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="warning"
    )
