"""What a model returned, as named arrays or as JSON."""

import base64
import json

import numpy as np

from . import tensors


def named(result, outputs):
    """`[(name, array)]` in the order of the signature's `outputs`; in the model's own where there are none."""
    if isinstance(result, dict):
        items = [(str(name), value) for name, value in result.items()]
    elif isinstance(result, tuple) or (isinstance(result, list) and len(outputs) > 1):
        names = [spec.name for spec in outputs] or _names(len(result))
        if len(names) != len(result):
            raise ValueError("the model gave %d outputs, its signature has %d" % (len(result), len(names)))
        items = list(zip(names, result))
    else:
        if len(outputs) > 1:
            names = ", ".join(spec.name for spec in outputs)
            raise ValueError("the model gave one output, its signature has %s" % names)
        items = [(outputs[0].name if outputs else "output", result)]
    if not outputs:
        return [(name, as_array(name, value, None)) for name, value in items]
    given = dict(items)
    missing = [spec.name for spec in outputs if spec.name not in given]
    if missing:
        raise ValueError("the model gave no output %r, only %s" % (missing[0], ", ".join(given)))
    return [(spec.name, as_array(spec.name, given[spec.name], spec.datatype)) for spec in outputs]


def _names(count):
    return ["output"] if count == 1 else ["output_%d" % i for i in range(count)]


def as_array(name, value, datatype):
    """An array of the declared type, or of the one that the value has."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu().numpy()
    elif not isinstance(value, np.ndarray) and hasattr(value, "numpy"):
        value = value.numpy()
    if datatype == "BYTES":
        return value if isinstance(value, np.ndarray) and value.dtype.kind in "SUO" else np.asarray(value, dtype=object)
    array = np.asarray(value)
    if array.dtype == np.longdouble and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if datatype is not None:
        wanted = tensors.numpy_type(datatype)
        if array.dtype != wanted:
            try:
                array = array.astype(wanted, casting="same_kind")
            except TypeError:
                raise TypeError("output %r has the type %s, its signature says %s" % (name, array.dtype, datatype))
    return array


def to_json(result, instances):
    """The result of a class without a signature as JSON bytes; one element for each of `instances` where given."""
    if isinstance(result, np.ndarray) or hasattr(result, "tolist"):
        result = result.tolist()
    if isinstance(result, tuple):
        result = list(result)
    if instances is not None:
        if not isinstance(result, list) or len(result) != len(instances):
            found = "a list of %d" % len(result) if isinstance(result, list) else "a %s" % type(result).__name__
            raise ValueError(
                "predict got a list of %d instances and must return a list of as many, it returned %s"
                % (len(instances), found)
            )
    return json.dumps(result, default=_plain, separators=(",", ":")).encode("utf-8")


def _plain(value):
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "numpy"):
        return value.numpy().tolist()
    if isinstance(value, (bytes, bytearray)):
        return {"b64": base64.b64encode(bytes(value)).decode("ascii")}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError("predict returned a %s, which JSON cannot hold" % type(value).__name__)
