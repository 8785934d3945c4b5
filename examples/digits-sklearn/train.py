"""Fits a support vector classifier to scanned digits, and saves it with joblib."""

import argparse
import json
import os
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

# Every fifth digit is held out: ../verify.py sends those to the served model, so training must not see them.
HELD_OUT_EVERY = 5


def training_digits():
    """Pixels (N, 64) of grey values 0 to 16, and labels (N,) 0 to 9, without the held-out digits."""
    digits = load_digits()
    kept = np.arange(len(digits.target)) % HELD_OUT_EVERY != 0
    return digits.data[kept], digits.target[kept]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--penalty", type=float, default=10.0, help="how much a misplaced digit costs (SVC's C)")
    args = parser.parse_args()
    # `slipway train` sets the folder; the default is for running this file by hand.
    model_folder = Path(os.environ.get("SLIPWAY_MODEL_DIR", "model"))
    model_folder.mkdir(parents=True, exist_ok=True)

    pixels, labels = training_digits()
    classifier = make_pipeline(MinMaxScaler(), SVC(C=args.penalty))
    scores = cross_val_score(classifier, pixels, labels, cv=5)
    print(json.dumps({"accuracy": round(float(scores.mean()), 4)}), flush=True)
    classifier.fit(pixels, labels)
    joblib.dump(classifier, model_folder / "model.joblib")


if __name__ == "__main__":
    main()
