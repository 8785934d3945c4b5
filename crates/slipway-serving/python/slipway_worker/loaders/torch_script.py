"""A TorchScript archive."""

from . import find, torch_common


def load(model_dir, entry, declared):
    import torch

    path = find.one_file(model_dir, ["*.pt", "*.pth", "*.ts", "*.torchscript"], ["model.pt", "model.ts"])
    network = torch.jit.load(path, map_location="cpu")
    return torch_common.model(network, declared, "pytorch_torchscript")
