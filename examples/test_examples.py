"""Checks of the examples that need no container: `python3 -m unittest` in this folder."""

import ast
import contextlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

import verify  # noqa: E402

PROJECTS = ["digits-tensorflow", "digits-pytorch", "digits-sklearn", "custom-python"]
DIGITS = json.loads(verify.HELD_OUT.read_text())


def importable(*names):
    return all(importlib.util.find_spec(name) for name in names)


def load(path):
    """A file as a module, although its folder's name is none."""
    path = FOLDER / path
    spec = importlib.util.spec_from_file_location(re.sub(r"\W", "_", str(path)), path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


class Files(unittest.TestCase):
    def test_each_project_is_whole(self):
        for project in PROJECTS:
            for file in ["slipway.toml", "Dockerfile", ".dockerignore", "train.py", "README.md", "request.json"]:
                self.assertTrue((FOLDER / project / file).is_file(), f"{project}/{file}")

    def test_python_files_parse(self):
        for path in FOLDER.glob("**/*.py"):
            ast.parse(path.read_text(), str(path))

    def test_requests_hold_the_first_held_out_digit(self):
        for example, make_row in verify.EXAMPLES.items():
            request = json.loads((FOLDER / example / "request.json").read_text())
            self.assertEqual(list(request), ["instances"], example)
            self.assertEqual(len(request["instances"]), 1, example)
            self.assert_close(request["instances"][0], make_row(DIGITS[0]["pixels"]), example)

    def assert_close(self, one, other, example):
        if isinstance(other, dict):
            self.assertEqual(list(one), list(other), example)
            one, other = list(one.values()), list(other.values())
        if isinstance(other, list):
            self.assertEqual(len(one), len(other), example)
            for a, b in zip(one, other):
                self.assert_close(a, b, example)
        else:
            self.assertAlmostEqual(one, other, places=3, msg=example)

    def test_the_cure_changes_two_lines(self):
        faulty = (FOLDER / "beginner-dockerfile/Dockerfile").read_text().splitlines()
        fixed = (FOLDER / "beginner-dockerfile/Dockerfile.fixed").read_text().splitlines()
        self.assertEqual(len(faulty), len(fixed))
        changed = [a.split()[:2] for a, b in zip(faulty, fixed) if a != b]
        self.assertEqual(changed, [["COPY", "train.py"], ["RUN", "pip"]])

    def test_copies_are_one(self):
        copies = [(FOLDER / p / "digits.py").read_text() for p in ("digits-tensorflow", "digits-pytorch")]
        self.assertEqual(copies[0], copies[1])

    @unittest.skipUnless(importable("sklearn"), "needs scikit-learn")
    def test_data_files_are_current(self):
        done = subprocess.run(
            [sys.executable, FOLDER / "make_data.py", "--check"], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Split(unittest.TestCase):
    """No training sees a held-out digit; all 1,797 digits differ, so equal pixels mean the same digit."""

    def setUp(self):
        self.held_out = {tuple(digit["pixels"]) for digit in DIGITS}
        self.assertEqual(len(self.held_out), 360)

    def check(self, images, labels):
        seen = {tuple(int(v) for v in image.reshape(64)) for image in images}
        self.assertEqual((len(images), len(seen), len(labels)), (1437, 1437, 1437))
        self.assertFalse(seen & self.held_out)

    @unittest.skipUnless(importable("sklearn"), "needs scikit-learn")
    def test_networks(self):
        self.check(*load("digits-tensorflow/digits.py").training_digits())

    @unittest.skipUnless(importable("sklearn"), "needs scikit-learn")
    def test_sklearn(self):
        self.check(*load("digits-sklearn/train.py").training_digits())

    @unittest.skipUnless(importable("numpy"), "needs NumPy")
    def test_custom_python(self):
        self.check(*load("custom-python/train.py").training_digits(FOLDER / "custom-python/data"))


class Resize(unittest.TestCase):
    def test_keeps_a_plain_image(self):
        for row in verify.resize([[16] * 8] * 8):
            for value in row:
                self.assertAlmostEqual(value, 1.0, places=12)

    def test_is_the_identity_at_the_same_size(self):
        image = verify.square(DIGITS[3]["pixels"], 8)
        self.assertEqual(verify.resize(image, 8), [[value / 16 for value in row] for row in image])

    def test_halfway_between_pixels_is_their_mean(self):
        # Doubling puts new pixels at a quarter and three quarters between the middles of old ones.
        step = [[0, 16]] * 2
        self.assertEqual(verify.resize(step, 4)[0], [0.0, 0.25, 0.75, 1.0])

    @unittest.skipUnless(importable("sklearn"), "needs scikit-learn")
    def test_equals_that_of_training(self):
        import numpy as np

        digits = load("digits-tensorflow/digits.py")
        images = [verify.square(digit["pixels"], 8) for digit in DIGITS]
        for size in (28, 8, 13):
            ours = np.array([verify.resize(image, size) for image in images]).astype(np.float32)
            np.testing.assert_array_equal(ours, digits.resize(np.array(images), size))

    @unittest.skipUnless(importable("tensorflow"), "needs TensorFlow")
    def test_equals_that_of_tensorflow(self):
        import numpy as np
        import tensorflow as tf

        images = [verify.square(digit["pixels"], 8) for digit in DIGITS[:50]]
        theirs = tf.image.resize(np.array(images, dtype=np.float64)[..., None] / 16, (28, 28)).numpy()
        ours = np.array([verify.resize(image) for image in images])[..., None]
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


class Predictions(unittest.TestCase):
    def test_every_form(self):
        scores = [0.0] * 10
        scores[7] = 0.5
        forms = [
            7,
            7.0,
            [7],
            scores,
            {"digit": 7, "confidence": 0.3},
            {"label": [7], "probabilities": scores},
            {"logits": scores},
        ]
        for form in forms:
            self.assertEqual(verify.digit_of(form), 7, form)

    def test_what_means_no_digit(self):
        for form in ["7", True, None, [], [1, 2], {}, {"a": 1, "b": 2}]:
            with self.assertRaises(ValueError, msg=form):
                verify.digit_of(form)


class Service:
    """A stand-in for the gateway: answers as `answer(pixels)` says, with `status`."""

    def __init__(self, answer, status=200):
        by_pixels = {tuple(digit["pixels"]): digit["label"] for digit in DIGITS}
        self.paths = paths = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                paths.append(self.path)
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = {"predictions": [answer(by_pixels[tuple(row)]) for row in body["instances"]]}
                text = json.dumps(reply if status == 200 else {"error": "no replica is ready"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"


class Verify(unittest.TestCase):
    def run_verify(self, url, *more):
        out, err = io.StringIO(), io.StringIO()
        argv = sys.argv
        sys.argv = ["verify.py", "--url", url, "--example", "digits-sklearn", *more]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = verify.main()
        finally:
            sys.argv = argv
        return code, out.getvalue(), err.getvalue()

    def test_all_right(self):
        with Service(lambda label: label) as service:
            code, out, err = self.run_verify(service.url, "--service", "my digits", "--batch", "100")
        self.assertEqual((code, out, err), (0, "accuracy 1.0000 (360 digits)\n", ""))
        self.assertEqual(service.paths, ["/v1/models/my%20digits:predict"] * 4)

    def test_mostly_wrong(self):
        with Service(lambda label: 0) as service:
            code, out, _ = self.run_verify(service.url)
        zeros = sum(digit["label"] == 0 for digit in DIGITS)
        self.assertEqual((code, out), (1, f"accuracy {zeros / 360:.4f} (360 digits)\n"))

    def test_an_error_status(self):
        with Service(lambda label: label, status=503) as service:
            code, out, err = self.run_verify(service.url)
        self.assertEqual((code, out), (1, ""))
        self.assertIn("503", err)
        self.assertIn("no replica is ready", err)

    def test_nobody_there(self):
        with Service(lambda label: label) as service:
            url = service.url
        code, out, err = self.run_verify(url)
        self.assertEqual((code, out), (1, ""))
        self.assertIn("did not answer", err)


if __name__ == "__main__":
    unittest.main()
