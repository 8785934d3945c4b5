"""A class, or a function, of the user's.

`entry` names it as `module:Class`. Without one, `model.py` in the model folder is searched: a class `Model`, else the
one class that has a method `predict`, else a function `predict`.

    class Model:
        signature = {                      # optional; also `signature.json` beside the model
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
        }
        def load(self, model_dir): ...     # optional
        def predict(self, inputs): ...

With a signature, `predict` takes `{name: NumPy array}` (read-only, valid during the call) and returns a dictionary of
arrays, or one array where there is one output; requests are merged along the first dimension. Without one it takes
what the request held: the list of `instances`, or the value of `inputs`, and returns a list of as many, or any
value. An exception that has an attribute `status` from 400 to 499 becomes that HTTP status; any other becomes 500.
"""

import inspect

from .. import signature
from . import find


def load(model_dir, entry, declared):
    target = find.entry_object(entry) if entry else _search()
    model = target() if inspect.isclass(target) else target
    load_method = getattr(model, "load", None)
    if callable(load_method):
        load_method(model_dir)
    predict = getattr(model, "predict", None)
    if not callable(predict):
        if not inspect.isfunction(model):
            raise TypeError("%r has no method predict(self, inputs)" % (entry or target.__name__))
        predict = model
    own = getattr(model, "signature", None)
    if declared is None and own is not None:
        declared = signature.Declared.parse(own, "the attribute `signature` of the class")
    if declared is None or declared.inputs is None:
        return signature.Model("python", predict, free_form=True)
    made = signature.Model("python", predict)
    made.apply(declared)
    return made


def _search():
    module = find.entry_module("model")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and callable(getattr(value, "predict", None))
    ]
    named = [value for value in classes if value.__name__ == "Model"]
    if named:
        return named[0]
    if len(classes) > 1:
        names = ", ".join(value.__name__ for value in classes)
        raise ValueError("model.py has several classes with a method predict (%s): name one as the entry" % names)
    if classes:
        return classes[0]
    function = getattr(module, "predict", None)
    if callable(function):
        return function
    raise ValueError("model.py has neither a class with a method predict nor a function predict")
