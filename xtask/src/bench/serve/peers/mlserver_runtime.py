"""The model as a custom runtime of MLServer."""

import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Mlp(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        result = self.session.run(None, {"x": rows})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", result)])
