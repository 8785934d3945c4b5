"""Writes the data files of the examples from scikit-learn's bundled digits: `python3 make_data.py [--check]`.

data/holdout.json           the held-out fifth of the digits, for verify.py
custom-python/data/*.csv    the others: the /data folder of that example
*/request.json              the first held-out digit, as a prediction request
"""

import argparse
import json
import sys
from pathlib import Path

from sklearn.datasets import load_digits

from verify import EXAMPLES, HELD_OUT

FOLDER = Path(__file__).resolve().parent
# Also in the train.py or digits.py of each example; test_examples.py holds them together.
HELD_OUT_EVERY = 5


def files():
    """Path and text of each file."""
    digits = load_digits()
    rows = [
        (int(label), [int(value) for value in pixels]) for pixels, label in zip(digits.data, digits.target)
    ]
    held_out = rows[::HELD_OUT_EVERY]
    training = [row for index, row in enumerate(rows) if index % HELD_OUT_EVERY != 0]

    lines = ",\n".join(compact({"label": label, "pixels": pixels}) for label, pixels in held_out)
    yield HELD_OUT, f"[\n{lines}\n]\n"
    lines = "".join(",".join(map(str, [label, *pixels])) + "\n" for label, pixels in training)
    yield FOLDER / "custom-python/data/digits.csv", lines
    for name, example in EXAMPLES.items():
        yield FOLDER / name / "request.json", compact(rounded({"instances": [example(held_out[0][1])]})) + "\n"


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def rounded(value):
    """Four digits after the point are more than the 17 grey levels need, and keep a request readable."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def main():
    parser = argparse.ArgumentParser(description="Writes the data files of the examples.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    check = parser.parse_args().check
    stale = []
    for path, text in files():
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale:
        print(f"{path} differs from what make_data.py writes", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
