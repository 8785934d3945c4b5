"""The network. It travels with the weights: the class is needed to load them."""

from torch import nn


class Net(nn.Module):
    """Images (N, 1, 28, 28) from 0 to 1 in, ten logits each out."""

    # What the served model takes and gives: a convolution does not tell the size of its images.
    signature = {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
    }

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 13 * 13, 10),
        )

    def forward(self, image):
        return self.layers(image)
