"""Measures a served example: sends the held-out digits through its REST API and counts the right answers.

Needs nothing but Python:

    python3 verify.py --url http://127.0.0.1:8080 --service digits-sklearn --example digits-sklearn

Prints `accuracy 0.9833 (360 digits)`. Exits with 1 when accuracy is 0.95 or less, or a request fails.
"""

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HELD_OUT = Path(__file__).resolve().parent / "data" / "holdout.json"
GOAL = 0.95


def square(values, side):
    return [list(values[start : start + side]) for start in range(0, side * side, side)]


def neighbours(old, new):
    """For each of `new` pixels, the lower of the two old ones it lies between, and the share of the upper."""
    for index in range(new):
        position = min(max((index + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        low = min(int(position), old - 2)
        yield low, position - low


def resize(image, size=28):
    """Grey values 0 to 16, 8 rows of 8, to `size` rows of `size` values from 0 to 1.

    The arithmetic of the examples' digits.py, step by step, so that a model is asked about the same
    kind of image as it was trained on.
    """
    image = [[value / 16 for value in row] for row in image]
    rows = [
        [a * (1 - share) + b * share for a, b in zip(image[low], image[low + 1])]
        for low, share in neighbours(len(image), size)
    ]
    columns = list(neighbours(len(image[0]), size))
    return [[row[low] * (1 - share) + row[low + 1] * share for low, share in columns] for row in rows]


def channels_last(pixels):
    return [[[value] for value in row] for row in resize(square(pixels, 8))]


def channels_first(pixels):
    return [resize(square(pixels, 8))]


# What one row of a request looks like, from the 64 grey values of a digit.
EXAMPLES = {
    "digits-tensorflow": channels_last,
    "digits-pytorch": channels_first,
    "digits-sklearn": lambda pixels: list(pixels),
    "custom-python": lambda pixels: {"pixels": square(pixels, 8)},
    "beginner-dockerfile": channels_last,
}


def digit_of(prediction):
    """The digit that a row of a reply means: itself, the best of ten scores, or the one of several outputs."""
    if isinstance(prediction, dict):
        for name in ("digit", "label"):
            if name in prediction:
                return digit_of(prediction[name])
        if len(prediction) == 1:
            return digit_of(next(iter(prediction.values())))
    elif isinstance(prediction, list) and len(prediction) == 10:
        return max(range(10), key=prediction.__getitem__)
    elif isinstance(prediction, list) and len(prediction) == 1:
        return digit_of(prediction[0])
    elif isinstance(prediction, (int, float)) and not isinstance(prediction, bool):
        return int(prediction)
    raise ValueError(f"a prediction means no digit: {json.dumps(prediction)[:200]}")


def predict(url, service, instances, timeout):
    """Sends one request of several rows and gives the predictions, one a row."""
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/models/{urllib.parse.quote(service, safe='')}:predict",
        data=json.dumps({"instances": instances}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        text = error.read(2000).decode(errors="replace")
        raise ValueError(f"{request.full_url} answered {error.code}: {text}") from error
    except OSError as error:
        raise ValueError(f"{request.full_url} did not answer: {error}") from error
    reply = json.loads(body)
    predictions = reply.get("predictions") if isinstance(reply, dict) else None
    if not isinstance(predictions, list) or len(predictions) != len(instances):
        raise ValueError(f"{len(instances)} rows were sent, and not as many predictions came back")
    return predictions


def main():
    parser = argparse.ArgumentParser(description="Measures a served example on held-out digits.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the gateway listens")
    parser.add_argument("--example", required=True, choices=EXAMPLES)
    parser.add_argument("--service", help="name of the service; that of the example by default")
    parser.add_argument("--batch", type=int, default=24, help="rows in one request")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a request may take")
    args = parser.parse_args()
    if args.batch < 1:
        parser.error("--batch is at least 1")

    digits = json.loads(HELD_OUT.read_text())
    make_row = EXAMPLES[args.example]
    right = 0
    try:
        for start in range(0, len(digits), args.batch):
            some = digits[start : start + args.batch]
            rows = [make_row(digit["pixels"]) for digit in some]
            predictions = predict(args.url, args.service or args.example, rows, args.timeout)
            right += sum(digit_of(p) == digit["label"] for p, digit in zip(predictions, some))
    except ValueError as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 1
    accuracy = right / len(digits)
    print(f"accuracy {accuracy:.4f} ({len(digits)} digits)")
    if accuracy <= GOAL:
        print(f"verify.py: the goal is more than {GOAL}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
