"""A TensorFlow SavedModel, by its serving signature; Keras is not needed."""

import os

from ..signature import DEFAULT_NAME, Model, Spec
from .. import tensors
from . import find


def load(model_dir, entry, declared):
    # Only what matters from a library that otherwise fills the log at import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    folder = os.path.dirname(find.one_file(model_dir, ["saved_model.pb"]))
    loaded = tf.saved_model.load(folder)
    signatures = dict(loaded.signatures)
    if not signatures:
        raise ValueError("the SavedModel has no signature: save it with tf.saved_model.save(…, signatures=…)")
    wanted = declared.name if declared is not None and declared.name else DEFAULT_NAME
    if wanted not in signatures and (declared is None or declared.name is None) and len(signatures) == 1:
        wanted = next(iter(signatures))
    if wanted not in signatures:
        raise ValueError("the SavedModel has no signature %r, only %s" % (wanted, ", ".join(sorted(signatures))))
    function = signatures[wanted]
    specs = function.structured_input_signature[1]
    inputs = [_spec(name, specs[name]) for name in sorted(specs)]
    outputs = [_spec(name, spec) for name, spec in sorted(function.structured_outputs.items())]
    types = {name: spec.dtype for name, spec in specs.items()}
    for spec in (declared.inputs or []) if declared is not None else []:
        if spec.name not in types:
            raise ValueError("the SavedModel has no input %r, only %s" % (spec.name, ", ".join(sorted(types))))

    def predict(arrays):
        feeds = {name: tf.constant(array, dtype=types[name]) for name, array in arrays.items()}
        return {name: value.numpy() for name, value in function(**feeds).items()}

    model = Model("tensorflow_savedmodel", predict, inputs, outputs, name=wanted)
    # The restored object owns the variables that the function uses.
    model.keep = loaded
    return model


def _spec(name, spec):
    datatype = "BYTES" if spec.dtype.name == "string" else tensors.name_of(spec.dtype.as_numpy_dtype)
    if datatype is None:
        raise TypeError("%r has the type %s, which cannot be served" % (name, spec.dtype.name))
    shape = None if spec.shape.rank is None else [-1 if dim is None else dim for dim in spec.shape.as_list()]
    return Spec(name, datatype, shape)
