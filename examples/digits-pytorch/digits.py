"""Scanned digits for training: scikit-learn's 8x8 images, resized to the 28x28 that the network takes."""

import numpy as np
from sklearn.datasets import load_digits

# Every fifth digit is held out: ../verify.py sends those to the served model, so training must not see them.
HELD_OUT_EVERY = 5


def training_digits():
    """Images (N, 8, 8) of grey values 0 to 16, and labels (N,) 0 to 9, without the held-out digits."""
    digits = load_digits()
    kept = np.arange(len(digits.target)) % HELD_OUT_EVERY != 0
    return digits.images[kept], digits.target[kept]


def resize(images, size=28):
    """Grey values 0 to 16, (N, 8, 8), as float32 from 0 to 1, (N, size, size).

    Bilinear with half-pixel centres, as image libraries do it: a pixel's value stands at its middle.
    """
    images = np.asarray(images, dtype=np.float64) / 16
    low, share = _neighbours(images.shape[1], size)
    rows = images[:, low, :] * (1 - share)[:, None] + images[:, low + 1, :] * share[:, None]
    low, share = _neighbours(images.shape[2], size)
    return (rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share).astype(np.float32)


def _neighbours(old, new):
    """For each of `new` pixels, the lower of the two old ones it lies between, and the share of the upper."""
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.minimum(position.astype(int), old - 2)
    return low, position - low
