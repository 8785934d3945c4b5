"""Signatures, warm-up, results, and classes of the user's."""

import json
import os
import sys
import tempfile
import unittest

import numpy as np

from slipway_worker import results, warmup
from slipway_worker.loaders import load, python_class
from slipway_worker.signature import Declared, Model, Spec


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = self.folder.name
        sys.path.insert(0, self.path)
        self.addCleanup(sys.path.remove, self.path)
        self.modules = set(sys.modules)
        self.addCleanup(self.forget)
        self.lines = []

    def forget(self):
        for name in set(sys.modules) - self.modules:
            if not name.startswith(("slipway_worker", "numpy")):
                del sys.modules[name]

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="utf-8") as handle:
            handle.write(text if isinstance(text, str) else json.dumps(text))

    def load(self, source, entry=None, file="model.py"):
        self.write(file, source)
        model = load("python", self.path, entry, None)
        warmup.run(model, self.path, self.lines.append)
        return model


SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}


class Declaring(Folder):
    def test_reads_both_files(self):
        self.assertIsNone(Declared.beside(self.path))
        self.write("signature.json", {"inputs": [{"name": "a", "datatype": "INT8", "shape": []}], "batch": False})
        declared = Declared.beside(self.path)
        self.assertEqual((declared.inputs[0].name, declared.batch, declared.outputs), ("a", False, None))
        self.write("slipway.json", {"signature": SIGNATURE})
        self.assertEqual(Declared.beside(self.path).inputs[0].shape, [-1, 2])
        self.write("slipway.json", {"other": 1})
        self.assertEqual(Declared.beside(self.path).inputs[0].name, "a")

    def test_says_what_is_wrong(self):
        good = SIGNATURE["inputs"][0]
        for value, message in [
            ("{", "signature.json is not JSON"),
            ([], "must be an object"),
            ({"input": []}, "unknown key 'input'"),
            ({"inputs": []}, "`inputs` must be a list that is not empty"),
            ({"inputs": [{"name": "x"}]}, "needs name, datatype and shape"),
            ({"inputs": [dict(good, datatype="float32")]}, "'float32' is not a datatype; known are BOOL"),
            ({"inputs": [dict(good, shape=[-2])]}, "the shape of 'x' must be a list of sizes"),
            ({"inputs": [dict(good, shape=[True])]}, "the shape of 'x' must be a list of sizes"),
            ({"batch": 1}, "`batch` must be true or false"),
        ]:
            self.write("signature.json", value)
            with self.assertRaisesRegex(ValueError, message):
                Declared.beside(self.path)


class Warming(Folder):
    def model(self, predict, inputs=None, **more):
        return Model("test", predict, inputs or [Spec("x", "FP32", [-1, 2])], **more)

    def warm(self, model):
        warmup.run(model, self.path, self.lines.append)
        return json.loads(model.to_json())

    def test_outputs_and_batching_are_found_out(self):
        value = self.warm(self.model(lambda i: {"y": i["x"].sum(axis=1), "z": np.ones((len(i["x"]), 3), np.int64)}))
        self.assertEqual(
            value["outputs"],
            [{"name": "y", "datatype": "FP32", "shape": [-1]}, {"name": "z", "datatype": "INT64", "shape": [-1, 3]}],
        )
        self.assertTrue(value["batched"])

    def test_an_output_without_rows_is_not_batched(self):
        value = self.warm(self.model(lambda i: i["x"].mean()))
        self.assertEqual((value["batched"], value["outputs"][0]["shape"]), (False, []))
        self.assertIn("an output's first dimension does not follow", self.lines[0])

    def test_a_model_of_one_row_is_not_batched(self):
        def predict(inputs):
            if len(inputs["x"]) > 1:
                raise ValueError("one only")
            return inputs["x"]

        self.assertFalse(self.warm(self.model(predict))["batched"])
        self.assertIn("ValueError: one only", self.lines[0])
        with self.assertRaisesRegex(ValueError, "the signature says `batch`"):
            self.warm(self.model(predict, batch=True))

    def test_batch_false_is_not_questioned(self):
        calls = []
        value = self.warm(self.model(lambda i: calls.append(1) or i["x"], batch=False))
        self.assertEqual((value["batched"], len(calls)), (False, 1))

    def test_fixed_shapes(self):
        value = self.warm(self.model(lambda i: i["x"], [Spec("x", "INT32", [1, 2])]))
        self.assertEqual((value["batched"], value["outputs"][0]["shape"]), (False, [1, 2]))

    def test_inputs_are_read_only_as_in_requests(self):
        def predict(inputs):
            inputs["x"][0] = 1

        with self.assertRaisesRegex(ValueError, "read-only"):
            self.warm(self.model(predict))

    def test_zeros_of_every_type(self):
        specs = [Spec("t", "BYTES", [-1, 2]), Spec("b", "BOOL", [-1]), Spec("h", "FP16", [-1, 1])]
        seen = {}
        self.warm(self.model(lambda i: seen.update(i) or {"y": i["h"]}, specs))
        self.assertEqual(seen["t"].tolist(), [[b"", b""]] * 2)
        self.assertEqual((seen["b"].dtype, seen["h"].dtype), (np.bool_, np.float16))

    def test_the_users_sample(self):
        seen = []
        specs = [Spec("x", "FP32", [-1, 2]), Spec("t", "BYTES", [-1])]
        for sample in [
            {"instances": [{"x": [1, 2], "t": "a"}, {"x": [3, 4], "t": {"b64": "/w=="}}]},
            {"inputs": {"x": [[1, 2], [3, 4]], "t": ["a", {"b64": "/w=="}]}},
        ]:
            self.write("warmup.json", sample)
            self.warm(self.model(lambda i: seen.append(i) or {"y": i["x"]}, specs))
            self.assertEqual(seen[-2]["x"].tolist(), [[1, 2], [3, 4]])
            self.assertEqual(seen[-2]["t"].tolist(), [b"a", b"\xff"])
            self.assertEqual(len(seen[-1]["x"]), 4)
        for sample, message in [
            ({}, "`instances` or `inputs`"),
            ({"instances": []}, "not empty"),
            ({"instances": [[1, 2]]}, "must name the inputs x, t"),
            ({"inputs": {"x": [[1, 2, 3]], "t": ["a"]}}, "has the shape"),
            ({"inputs": {"x": [[1, 2]], "t": [3]}}, "expected a string"),
        ]:
            self.write("warmup.json", sample)
            with self.assertRaisesRegex(ValueError, message):
                self.warm(self.model(lambda i: {"y": i["x"]}, specs))

    def test_a_single_input_needs_no_name(self):
        for sample in [{"instances": [[1, 2]]}, {"inputs": [[1, 2]]}, {"inputs": {"x": [[1, 2]]}}]:
            self.write("warmup.json", sample)
            seen = []
            self.warm(self.model(lambda i: seen.append(i["x"].tolist()) or i["x"]))
            self.assertEqual(seen[0], [[1, 2]], sample)


class Results(unittest.TestCase):
    def test_every_form_of_outputs(self):
        two = [Spec("a", "FP32", [-1]), Spec("b", "INT64", [-1])]
        for result in [{"b": [2], "a": [1.0]}, ([1.0], [2]), [[1.0], [2]]]:
            named = results.named(result, two)
            self.assertEqual([(n, v.dtype, v.tolist()) for n, v in named], [("a", np.float32, [1]), ("b", np.int64, [2])])
        self.assertEqual(results.named([1, 2], [])[0][0], "output")
        self.assertEqual([n for n, _ in results.named((1, 2), [])], ["output_0", "output_1"])
        self.assertEqual(results.named(["a", b"b"], [Spec("s", "BYTES", [-1])])[0][1].dtype, object)

    def test_what_does_not_match_the_signature(self):
        two = [Spec("a", "FP32", [-1]), Spec("b", "INT64", [-1])]
        for result, message in [
            ({"a": 1}, "no output 'b', only a"),
            ((1, 2, 3), "3 outputs, its signature has 2"),
            (np.zeros(2), "one output, its signature has a, b"),
            ({"a": [1.0], "b": [1.5]}, "output 'b' has the type float64, its signature says INT64"),
        ]:
            with self.assertRaisesRegex((ValueError, TypeError), message):
                results.named(result, two)

    def test_json(self):
        value = [{"n": np.float32(0.5), "a": np.arange(2), "b": b"\xff", "s": {"x"}}, None]
        text = results.to_json(value, [1, 2])
        self.assertEqual(json.loads(text), [{"n": 0.5, "a": [0, 1], "b": {"b64": "/w=="}, "s": ["x"]}, None])
        self.assertEqual(results.to_json(np.array([1, 2]), [0, 0]), b"[1,2]")
        self.assertEqual(results.to_json((1,), [0]), b"[1]")
        for value, message in [([1], "returned a list of 1"), ({"a": 1}, "returned a dict")]:
            with self.assertRaisesRegex(ValueError, message):
                results.to_json(value, [1, 2])
        with self.assertRaisesRegex(TypeError, "returned a object, which JSON cannot hold"):
            results.to_json(object(), None)


class Classes(Folder):
    def test_a_class_with_a_signature(self):
        model = self.load(
            """
class Net:
    signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}]}
    def load(self, model_dir):
        self.scale = 2
    def predict(self, inputs):
        return inputs["x"] * self.scale
"""
        )
        self.assertFalse(model.free_form)
        self.assertTrue(model.batch)
        self.assertEqual(model.predict({"x": np.ones((1, 2))}).tolist(), [[2, 2]])

    def test_a_signature_that_load_sets(self):
        model = self.load(
            """
class Model:
    def load(self, model_dir):
        self.signature = {"inputs": [{"name": "q", "datatype": "INT8", "shape": [-1]}]}
    def predict(self, inputs):
        return inputs["q"]
"""
        )
        self.assertEqual(model.inputs[0].name, "q")

    def test_without_a_signature_it_is_free_form(self):
        model = self.load("def predict(inputs):\n    return [len(i) for i in inputs]\n")
        self.assertTrue(model.free_form)
        self.assertEqual(model.predict(["ab", ""]), [2, 0])

    def test_a_free_form_sample_warms_up(self):
        self.write("warmup.json", {"instances": ["a"]})
        with self.assertRaisesRegex(ValueError, "must return a list of as many"):
            self.load("def predict(inputs):\n    return 3\n")

    def test_an_entry_in_another_module(self):
        model = self.load("class A:\n    def predict(self, inputs):\n        return 'a'\n", "deep:A", "deep.py")
        self.assertEqual(model.predict(None), "a")

    def test_says_what_is_missing(self):
        for source, entry, message in [
            ("x = 1\n", None, "neither a class with a method predict nor a function predict"),
            ("class A:\n    def predict(self): pass\nclass B:\n    def predict(self): pass\n", None, "several classes"),
            ("x = 1\n", "model", "must have the form module:Class"),
            ("x = 1\n", "model:Nope", "the module 'model' has no 'Nope'"),
            ("x = 1\n", "nowhere:A", "no module 'nowhere' in "),
            ("class A: pass\n", "model:A", "has no method predict"),
        ]:
            self.forget()
            with self.assertRaisesRegex(Exception, message):
                self.load(source, entry)


if __name__ == "__main__":
    unittest.main()
