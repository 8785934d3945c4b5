"""What a model takes and gives: detected by a loader, or declared beside the model."""

import json
import os

from . import tensors

DEFAULT_NAME = "serving_default"
FILES = ("slipway.json", "signature.json")


class Spec:
    """One input or output: a name, a datatype of the Open Inference Protocol, and a shape with -1 for any size."""

    __slots__ = ("name", "datatype", "shape")

    def __init__(self, name, datatype, shape):
        self.name = name
        self.datatype = datatype
        self.shape = None if shape is None else [int(d) for d in shape]

    def to_json(self):
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}

    def __repr__(self):
        return "%s: %s %s" % (self.name, self.datatype, self.shape)


class Declared:
    """A signature that the user wrote. Each part may be missing."""

    def __init__(self, inputs=None, outputs=None, batch=None, name=None):
        self.inputs = inputs
        self.outputs = outputs
        self.batch = batch
        self.name = name

    @classmethod
    def parse(cls, value, where):
        """Reads `{"inputs": [{"name", "datatype", "shape"}], "outputs": […], "batch": bool, "name": …}`."""
        if not isinstance(value, dict):
            raise ValueError("%s: the signature must be an object with `inputs` and `outputs`" % where)
        unknown = sorted(set(value) - {"inputs", "outputs", "batch", "name"})
        if unknown:
            raise ValueError("%s: unknown key %r; known are inputs, outputs, batch, name" % (where, unknown[0]))
        batch = value.get("batch")
        if batch is not None and not isinstance(batch, bool):
            raise ValueError("%s: `batch` must be true or false" % where)
        name = value.get("name")
        if name is not None and not isinstance(name, str):
            raise ValueError("%s: `name` must be a string" % where)
        return cls(_specs(value, "inputs", where), _specs(value, "outputs", where), batch, name)

    @classmethod
    def beside(cls, model_dir):
        """What `slipway.json` (its key `signature`) or `signature.json` in the model folder declares; None without."""
        for file in FILES:
            path = os.path.join(model_dir, file)
            if not os.path.isfile(path):
                continue
            with open(path, encoding="utf-8") as handle:
                try:
                    value = json.load(handle)
                except ValueError as error:
                    raise ValueError("%s is not JSON: %s" % (path, error))
            if file == "slipway.json":
                value = value.get("signature") if isinstance(value, dict) else value
                if value is None:
                    continue
            return cls.parse(value, path)
        return None


def _specs(value, key, where):
    specs = value.get(key)
    if specs is None:
        return None
    if not isinstance(specs, list) or not specs:
        raise ValueError("%s: `%s` must be a list that is not empty" % (where, key))
    parsed = []
    for spec in specs:
        if not isinstance(spec, dict) or not {"name", "datatype", "shape"} <= set(spec):
            raise ValueError("%s: each of `%s` needs name, datatype and shape" % (where, key))
        if spec["datatype"] not in tensors.NAMES:
            raise ValueError(
                "%s: %r is not a datatype; known are %s" % (where, spec["datatype"], ", ".join(tensors.NAMES))
            )
        shape = spec["shape"]
        whole = isinstance(shape, list) and all(type(d) is int and d >= -1 for d in shape)
        if not whole:
            raise ValueError("%s: the shape of %r must be a list of sizes, -1 for any" % (where, spec["name"]))
        parsed.append(Spec(str(spec["name"]), spec["datatype"], shape))
    return parsed


class Model:
    """What a loader makes: a signature as far as it is known, and a function.

    `predict` takes `{name: array}` in the order of `inputs` and gives `{name: array}`, a sequence in the order of
    `outputs`, or one array. Where `free_form` is set it takes whatever the request held.
    """

    def __init__(self, platform, predict, inputs=None, outputs=None, batch=None, name=DEFAULT_NAME, free_form=False):
        self.platform = platform
        self.predict = predict
        self.inputs = inputs or []
        self.outputs = outputs or []
        self.batch = batch
        self.name = name
        self.free_form = free_form

    def apply(self, declared):
        """Lets what the user declared win over what was detected."""
        if declared is None:
            return
        self.free_form = False
        if declared.inputs is not None:
            self.inputs = declared.inputs
        if declared.outputs is not None:
            self.outputs = declared.outputs
        if declared.batch is not None:
            self.batch = declared.batch
        if declared.name is not None:
            self.name = declared.name

    def to_json(self):
        value = {
            "name": self.name,
            "platform": self.platform,
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "batched": bool(self.batch) and not self.free_form,
            "free_form": self.free_form,
        }
        return json.dumps(value).encode("utf-8")
