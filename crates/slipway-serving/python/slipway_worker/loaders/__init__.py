"""One module for each format; each has `load(model_dir, entry, declared)` and gives a `signature.Model`."""

import importlib

MODULES = {
    "tensorflow": "tf_saved_model",
    "keras": "keras_archive",
    "torch": "torch_state",
    "torchscript": "torch_script",
    "onnx": "onnx_graph",
    "sklearn": "sklearn_joblib",
    "python": "python_class",
}


def load(format, model_dir, entry, declared):
    """Loads a model of `format` from `model_dir`."""
    module = MODULES.get(format)
    if module is None:
        raise ValueError("%r is not a model format; known are %s" % (format, ", ".join(MODULES)))
    return importlib.import_module("." + module, __name__).load(model_dir, entry, declared)
