"""An ONNX graph, by onnxruntime."""

from ..signature import Model, Spec
from . import find

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}


def load(model_dir, entry, declared):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Requests are the parallelism; a pool of spinning threads in each worker only takes their cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    path = find.one_file(model_dir, ["*.onnx"], ["model.onnx"])
    session = onnxruntime.InferenceSession(path, options, providers=_providers(onnxruntime))
    inputs = [_spec(node) for node in session.get_inputs()]
    outputs = [_spec(node) for node in session.get_outputs()]
    if declared is not None:
        _check(declared.inputs, inputs, "input")
        _check(declared.outputs, outputs, "output")
    texts = {spec.name for spec in inputs if spec.datatype == "BYTES"}
    wanted = [spec.name for spec in (declared.outputs if declared and declared.outputs else outputs)]
    run = session.run

    def predict(arrays):
        for name in texts:
            arrays[name] = _texts(arrays[name])
        return dict(zip(wanted, run(wanted, arrays)))

    return Model("onnx_onnxruntime", predict, inputs, outputs)


def _providers(onnxruntime):
    have = onnxruntime.get_available_providers()
    return [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in have]


def _spec(node):
    if node.type not in _TYPES:
        raise TypeError("%r has the type %s, which cannot be served" % (node.name, node.type))
    shape = None if node.shape is None else [dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape]
    return Spec(node.name, _TYPES[node.type], shape)


def _check(declared, found, what):
    names = [spec.name for spec in found]
    for spec in declared or []:
        if spec.name not in names:
            raise ValueError("the graph has no %s %r, only %s" % (what, spec.name, ", ".join(names)))


def _texts(array):
    import numpy as np

    flat = [item.decode("utf-8") for item in array.ravel().tolist()]
    texts = np.empty(len(flat), dtype=object)
    texts[:] = flat
    return texts.reshape(array.shape)
