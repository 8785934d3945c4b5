"""Writes the benchmark's model and one request with its answer into a folder.

The model is a perceptron of 64, 128 and 10 units with fixed weights and a batch of any size.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

folder = Path(sys.argv[1])
random = np.random.RandomState(7)


def weights(name, *shape):
    return numpy_helper.from_array((random.randn(*shape) / 8).astype(np.float32), name)


graph = helper.make_graph(
    [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ],
    "mlp",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
    [weights("w1", 64, 128), weights("b1", 128), weights("w2", 128, 10), weights("b2", 10)],
)
# Old versions of both, so that every onnxruntime can read the file.
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
onnx.checker.check_model(model)
(folder / "model").mkdir(parents=True, exist_ok=True)
onnx.save(model, folder / "model" / "model.onnx")

row = [round(float(value), 4) for value in random.uniform(0, 1, 64)]
session = onnxruntime.InferenceSession(folder / "model" / "model.onnx", providers=["CPUExecutionProvider"])
answer = session.run(None, {"x": np.asarray([row], np.float32)})[0][0].tolist()
(folder / "request.json").write_text(json.dumps({"row": row, "answer": answer}))
