"""A PyTorch `state_dict` and the user's class, which is made without arguments."""

import inspect

from . import find, torch_common


def load(model_dir, entry, declared):
    import torch

    if not entry:
        raise ValueError(
            "a state_dict needs the class that it belongs to: name it as `entry`, in the form module:Class, and keep "
            "its file in the model folder or in the project folder"
        )
    target = find.entry_object(entry)
    network = target()
    if not isinstance(network, torch.nn.Module):
        raise TypeError("%s is no torch.nn.Module" % entry)
    path = find.one_file(model_dir, ["*.pt", "*.pth", "*.bin"], ["model.pt", "model.pth", "state_dict.pt"])
    state = torch.load(path, map_location="cpu", **_weights_only(torch))
    for key in ("state_dict", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise TypeError("%s holds a %s, not a state_dict" % (path, type(state).__name__))
    network.load_state_dict(state)
    return torch_common.model(network, declared, "pytorch")


def _weights_only(torch):
    # Without it, a file could run code when it is read; versions before 1.13 cannot do it.
    return {"weights_only": True} if "weights_only" in inspect.signature(torch.load).parameters else {}
