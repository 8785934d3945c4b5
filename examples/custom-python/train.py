"""Chooses how many neighbours vote, and saves the training digits beside the class that compares with them."""

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np

from classifier import prepared, squared_distances, vote


def training_digits(folder):
    """Images (N, 8, 8) of grey values 0 to 16, and labels (N,) 0 to 9."""
    rows = np.loadtxt(Path(folder) / "digits.csv", delimiter=",", dtype=np.int64)
    return rows[:, 1:].reshape(-1, 8, 8), rows[:, 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="/data", help="folder with digits.csv: label, then 64 grey values")
    args = parser.parse_args()
    # `slipway train` sets the folder; the default is for running this file by hand.
    model_folder = Path(os.environ.get("SLIPWAY_MODEL_DIR", "model"))
    model_folder.mkdir(parents=True, exist_ok=True)

    images, labels = training_digits(args.data)
    points = prepared(images)
    # Leave one out: a digit is compared with all others, but not with itself.
    distances = squared_distances(points, points)
    np.fill_diagonal(distances, np.inf)
    # One neighbour is not among the choices: it is always sure of itself.
    tried = {k: float((vote(distances, labels, k)[0] == labels).mean()) for k in (3, 5, 7, 9)}
    best = max(tried, key=tried.get)
    print(json.dumps({"k": best, "accuracy": round(tried[best], 4)}), flush=True)

    np.savez_compressed(model_folder / "neighbours.npz", points=points, labels=labels, k=best)
    # The folder of the running file, wherever training runs: the class must be the one just tried.
    shutil.copyfile(Path(__file__).with_name("classifier.py"), model_folder / "classifier.py")


if __name__ == "__main__":
    main()
