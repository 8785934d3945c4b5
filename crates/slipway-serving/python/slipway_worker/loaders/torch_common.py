"""What the two torch loaders share."""

from ..signature import Declared, Model, Spec
from .. import results

HINT = (
    "cannot tell the shape of the network's input: declare it in signature.json beside the model, for example "
    '{"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]}, '
    "or as an attribute `signature` of the class"
)


def model(network, declared, platform):
    """A model that calls `network` with its inputs in the signature's order."""
    import torch

    if declared is None or declared.inputs is None:
        own = getattr(network, "signature", None)
        if isinstance(own, dict):
            declared = Declared.parse(own, "the attribute `signature` of the class")
        else:
            declared = Declared(inputs=[_first_layer(network)])
    inputs = declared.inputs
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(device)
    network.eval()
    names = [spec.name for spec in inputs]

    def predict(arrays):
        with torch.inference_mode():
            # Copied, because a network may change its input in place, which the shared memory does not allow.
            values = [torch.from_numpy(arrays[name].copy()).to(device) for name in names]
            return _plain(network(*values))

    made = Model(platform, predict, inputs)
    made.apply(declared)
    return made


def _plain(result):
    if isinstance(result, dict):
        return {name: results.as_array(name, value, None) for name, value in result.items()}
    if isinstance(result, (list, tuple)):
        return tuple(results.as_array("output", value, None) for value in result)
    return results.as_array("output", result, None)


def _first_layer(network):
    """The input that the first layer takes, where its kind tells."""
    for module in network.modules():
        if any(True for _ in module.children()):
            continue
        kind = getattr(module, "original_name", type(module).__name__)
        weight = getattr(module, "weight", None)
        if kind == "Linear" and weight is not None:
            return Spec("input", "FP32", [-1, weight.shape[1]])
        if kind == "Flatten":
            continue
        break
    raise ValueError(HINT)
