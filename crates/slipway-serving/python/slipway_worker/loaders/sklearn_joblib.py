"""A scikit-learn estimator that joblib saved.

Outputs: `predict`, and `predict_proba` where the estimator has it; `transform` for one that only transforms.
"""

import warnings

from ..signature import Model, Spec
from . import find


def load(model_dir, entry, declared):
    import joblib

    path = find.one_file(model_dir, ["*.joblib", "*.pkl"], ["model.joblib", "model.pkl"])
    estimator = joblib.load(path)
    # A model that was fitted with a data frame warns at each prediction from an array, although it is the same.
    warnings.filterwarnings("ignore", message=".*does not have valid feature names.*")
    methods = _methods(estimator, declared)
    text = False
    if declared is not None and declared.inputs is not None:
        inputs = declared.inputs
        text = inputs[0].datatype == "BYTES"
    elif hasattr(estimator, "n_features_in_"):
        inputs = [Spec("input", "FP64", [-1, int(estimator.n_features_in_)])]
    elif _takes_text(estimator):
        inputs, text = [Spec("input", "BYTES", [-1])], True
    else:
        raise ValueError(
            "the estimator does not say how many features it takes: declare its inputs in signature.json beside it"
        )
    if len(inputs) != 1:
        raise ValueError("an estimator takes one input, the signature declares %d" % len(inputs))
    name = inputs[0].name

    def predict(arrays):
        array = arrays[name]
        if text:
            array = [item.decode("utf-8") for item in array.ravel().tolist()]
        return {method: getattr(estimator, method)(array) for method in methods}

    return Model("sklearn", predict, inputs)


def _methods(estimator, declared):
    if declared is not None and declared.outputs is not None:
        wanted = [spec.name for spec in declared.outputs]
        for method in wanted:
            if not callable(getattr(estimator, method, None)):
                raise ValueError("the estimator has no method %r" % method)
        return wanted
    methods = []
    if callable(getattr(estimator, "predict", None)):
        methods.append("predict")
        if callable(getattr(estimator, "predict_proba", None)) and not _several_targets(estimator):
            methods.append("predict_proba")
    elif callable(getattr(estimator, "transform", None)):
        methods.append("transform")
    if not methods:
        raise TypeError("a %s has neither predict nor transform" % type(estimator).__name__)
    return methods


def _several_targets(estimator):
    # With several targets predict_proba gives a list of arrays of different widths.
    return isinstance(getattr(estimator, "classes_", None), list)


def _takes_text(estimator):
    steps = getattr(estimator, "steps", None)
    first = steps[0][1] if steps else estimator
    return "Vectorizer" in type(first).__name__ and type(first).__name__ != "DictVectorizer"
