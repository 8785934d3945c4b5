"""The first predictions: they prove that the model works, and show what it gives."""

import base64
import json
import os

import numpy as np

from . import results, tensors
from .signature import Spec

FILE = "warmup.json"


def run(model, model_dir, log):
    """Predicts with `warmup.json` from the model folder, else with zeros, and completes the model's signature.

    `warmup.json` has the form of a TensorFlow Serving request: `{"instances": […]}` or `{"inputs": …}`.
    """
    sample = _user_sample(model_dir)
    if model.free_form:
        if sample is not None:
            key, value = sample
            results.to_json(model.predict(value), value if key == "instances" else None)
        return
    inputs = _zeros(model.inputs) if sample is None else _from_sample(model.inputs, *sample)
    outputs = results.named(model.predict(_read_only(inputs)), model.outputs)
    _complete(model, inputs, outputs, log)


def _complete(model, inputs, outputs, log):
    """Fills in outputs and whether requests can be merged, by a second prediction with each row twice."""
    known = bool(model.outputs) and all(spec.shape is not None for spec in model.outputs)
    open_inputs = all(spec.shape and spec.shape[0] == -1 for spec in model.inputs)
    doubled = None
    if model.batch is not False and open_inputs:
        twice = {name: np.concatenate([array, array]) for name, array in inputs.items()}
        try:
            doubled = results.named(model.predict(_read_only(twice)), model.outputs)
        except Exception as error:  # noqa: BLE001 - any failure means the same: one row at a time
            log("the model takes one row but not two (%s: %s): requests are not batched" % (type(error).__name__, error))
    rows = [array.shape[0] for array in inputs.values() if array.ndim]
    merges = doubled is not None and all(
        a.ndim and b.ndim and a.shape[0] == rows[0] and b.shape[0] == 2 * rows[0]
        for (_, a), (_, b) in zip(outputs, doubled)
    )
    if doubled is not None and not merges:
        log("an output's first dimension does not follow the input's: requests are not batched")
    if model.batch is True and not merges:
        raise ValueError("the signature says `batch`, but the model's outputs have no row for each row of its inputs")
    model.batch = merges
    if known:
        if merges and any(not spec.shape or spec.shape[0] != -1 for spec in model.outputs):
            model.outputs = [Spec(s.name, s.datatype, [-1] + s.shape[1:]) for s in model.outputs]
        return
    completed = []
    for index, (name, array) in enumerate(outputs):
        datatype = tensors.name_of(array.dtype)
        if datatype is None:
            raise TypeError("output %r has the type %s, which no protocol can carry" % (name, array.dtype))
        shape = list(array.shape)
        if merges:
            shape[0] = -1
        elif doubled is not None and doubled[index][1].ndim == array.ndim:
            shape = [a if a == b else -1 for a, b in zip(array.shape, doubled[index][1].shape)]
        completed.append(Spec(name, datatype, shape))
    model.outputs = completed


def _read_only(inputs):
    """As requests are: a model that changes its input in place shall fail now."""
    views = {name: array.view() for name, array in inputs.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def _zeros(specs):
    inputs = {}
    for spec in specs:
        shape = [1 if dim == -1 else dim for dim in spec.shape]
        if spec.datatype == "BYTES":
            array = np.full(shape, b"", dtype=object)
        else:
            array = np.zeros(shape, dtype=tensors.numpy_type(spec.datatype))
        inputs[spec.name] = array
    return inputs


def _user_sample(model_dir):
    path = os.path.join(model_dir, FILE)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as handle:
        try:
            value = json.load(handle)
        except ValueError as error:
            raise ValueError("%s is not JSON: %s" % (path, error))
    keys = [key for key in ("instances", "inputs") if isinstance(value, dict) and key in value]
    if len(keys) != 1:
        raise ValueError("%s must be an object with `instances` or `inputs`" % path)
    return keys[0], value[keys[0]]


def _from_sample(specs, key, value):
    names = [spec.name for spec in specs]
    if key == "instances":
        if not isinstance(value, list) or not value:
            raise ValueError("%s: `instances` must be a list that is not empty" % FILE)
        named = all(isinstance(row, dict) and set(row) == set(names) for row in value)
        if named:
            value = {name: [row[name] for row in value] for name in names}
        elif len(names) == 1:
            value = {names[0]: value}
    elif len(names) == 1 and not (isinstance(value, dict) and set(value) == set(names)):
        value = {names[0]: value}
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError("%s must name the inputs %s" % (FILE, ", ".join(names)))
    inputs = {}
    for spec in specs:
        if spec.datatype == "BYTES":
            rank = len(spec.shape)
            inputs[spec.name] = _strings(value[spec.name], rank)
        else:
            inputs[spec.name] = np.asarray(value[spec.name], dtype=tensors.numpy_type(spec.datatype))
        fits = inputs[spec.name].ndim == len(spec.shape) and all(
            want in (-1, have) for want, have in zip(spec.shape, inputs[spec.name].shape)
        )
        if not fits:
            raise ValueError("%s: input %s has the shape %s" % (FILE, spec, list(inputs[spec.name].shape)))
    return inputs


def _strings(value, rank):
    flat = []

    def walk(item, depth, shape):
        if depth == rank:
            if isinstance(item, dict) and set(item) == {"b64"}:
                flat.append(base64.b64decode(item["b64"]))
            elif isinstance(item, str):
                flat.append(item.encode("utf-8"))
            else:
                raise ValueError("%s: expected a string, found %r" % (FILE, item))
            return
        if not isinstance(item, list):
            raise ValueError("%s: expected a list of strings" % FILE)
        if len(shape) <= depth:
            shape.append(len(item))
        if shape[depth] != len(item):
            raise ValueError("%s: lists of strings have different lengths" % FILE)
        for inner in item:
            walk(inner, depth + 1, shape)

    shape = []
    walk(value, 0, shape)
    shape += [0] * (rank - len(shape))
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)
