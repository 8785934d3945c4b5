"""A Keras 3 archive."""

import os

from ..signature import Model, Spec
from .. import tensors
from . import find


def load(model_dir, entry, declared):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if entry:
        # Importing the module registers the user's own layers.
        find.entry_object(entry)
    try:
        import keras
    except ImportError:
        from tensorflow import keras
    path = find.one_file(model_dir, ["*.keras"], ["model.keras"])
    network = keras.models.load_model(path, compile=False)
    inputs = _specs(network.inputs, getattr(network, "_inputs_struct", None))
    outputs = _specs(network.outputs, getattr(network, "_outputs_struct", None))
    if declared is not None and declared.inputs is not None:
        if len(declared.inputs) != len(inputs):
            raise ValueError("the network has %d inputs, the signature declares %d" % (len(inputs), len(declared.inputs)))
        inputs = declared.inputs
    names = [spec.name for spec in inputs]
    run = _compiled(keras, network, inputs)

    def predict(arrays):
        return tuple(run(*[arrays[name] for name in names]))

    return Model("keras", predict, inputs, outputs)


def _compiled(keras, network, inputs):
    """The network as a function of arrays; a TensorFlow graph where that is the backend, which is far faster."""

    structure = getattr(network, "_inputs_struct", None)

    def call(*values):
        values = list(values)
        if isinstance(structure, dict):
            arguments = keras.tree.pack_sequence_as(structure, values)
        else:
            arguments = values[0] if len(values) == 1 else values
        return keras.tree.flatten(network(arguments, training=False))

    backend = keras.backend.backend() if hasattr(keras, "backend") else "tensorflow"
    if backend == "tensorflow":
        import tensorflow as tf

        specs = [
            tf.TensorSpec([None if dim == -1 else dim for dim in spec.shape], tensors.numpy_type(spec.datatype))
            for spec in inputs
        ]
        graph = tf.function(call, input_signature=specs)
        return lambda *values: graph(*[tf.constant(value) for value in values])
    if backend == "torch":
        import torch

        def without_gradients(*values):
            with torch.inference_mode():
                return call(*[value.copy() for value in values])

        return without_gradients
    return call


def _specs(tensors_of, structure):
    """Named by the keys of a dictionary where the network has one, else by the layers, whose names an archive keeps."""
    tensors_of = list(tensors_of)
    if isinstance(structure, dict) and len(structure) == len(tensors_of):
        names = sorted(structure)
    else:
        names = [_layer_name(tensor) for tensor in tensors_of]
        if len(set(names)) < len(names):
            names = [str(tensor.name) for tensor in tensors_of]
    return [_spec(name, tensor) for name, tensor in zip(names, tensors_of)]


def _layer_name(tensor):
    history = getattr(tensor, "_keras_history", None)
    return str(getattr(getattr(history, "operation", None), "name", None) or tensor.name)


def _spec(name, tensor):
    dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
    datatype = "BYTES" if dtype == "string" else tensors.name_of(dtype)
    return Spec(name, datatype, [-1 if dim is None else dim for dim in tensor.shape])
