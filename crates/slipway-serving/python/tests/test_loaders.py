"""Each format with its real framework. What is not installed is skipped, and says so; `python -m tests` allows no skip."""

import importlib.util
import os
import sys
import tempfile
import unittest

import numpy as np

from slipway_worker import results, warmup
from slipway_worker.loaders import load
from slipway_worker.signature import Declared


def needs(*modules):
    missing = [m for m in modules if importlib.util.find_spec(m) is None]

    def mark(case):
        case.needs = modules
        return unittest.skipIf(missing, "not installed: " + ", ".join(missing))(case)

    return mark


class Loading(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = folder.name
        sys.path.insert(0, self.path)
        self.addCleanup(sys.path.remove, self.path)

    def file(self, name, text=None):
        path = os.path.join(self.path, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as handle:
                handle.write(text)
        return path

    def load(self, format, entry=None):
        """As the worker does; the log of the warm-up must be empty."""
        declared = Declared.beside(self.path)
        model = load(format, self.path, entry, declared)
        model.apply(declared)
        lines = []
        warmup.run(model, self.path, lines.append)
        self.assertEqual(lines, [])
        return model

    def predict(self, model, **inputs):
        for array in inputs.values():
            array.flags.writeable = False
        return dict(results.named(model.predict(inputs), model.outputs))

    def shapes(self, specs):
        return [(s.name, s.datatype, s.shape) for s in specs]


@needs("onnx", "onnxruntime")
class Onnx(Loading):
    def save(self, rows, kind="FLOAT"):
        from onnx import TensorProto, helper, save

        element = getattr(TensorProto, kind)
        x = helper.make_tensor_value_info("x", element, [rows, 2])
        y = helper.make_tensor_value_info("y", element, [rows, 2])
        operator = "Identity" if kind == "STRING" else "Neg"
        graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        save(model, self.file("net.onnx"))

    def test_a_graph_with_a_batch_dimension(self):
        self.save("n")
        model = self.load("onnx")
        self.assertEqual(self.shapes(model.inputs), [("x", "FP32", [-1, 2])])
        self.assertEqual((self.shapes(model.outputs), model.batch), ([("y", "FP32", [-1, 2])], True))
        self.assertEqual(self.predict(model, x=np.ones((3, 2), np.float32))["y"].tolist(), [[-1, -1]] * 3)

    def test_a_graph_of_one_row(self):
        self.save(1)
        model = self.load("onnx")
        self.assertEqual((self.shapes(model.inputs), model.batch), ([("x", "FP32", [1, 2])], False))

    def test_strings(self):
        self.save("n", "STRING")
        model = self.load("onnx")
        array = np.array([[b"a", "é".encode()]], dtype=object)
        self.assertEqual(self.predict(model, x=array)["y"].tolist(), [["a", "é"]])

    def test_a_declared_name_that_the_graph_lacks(self):
        self.save("n")
        self.file("signature.json", '{"inputs": [{"name": "z", "datatype": "FP32", "shape": [-1, 2]}]}')
        with self.assertRaisesRegex(ValueError, "the graph has no input 'z', only x"):
            self.load("onnx")

    def test_no_file_and_several(self):
        with self.assertRaisesRegex(FileNotFoundError, r"no \*\.onnx in"):
            self.load("onnx")
        self.file("a.onnx", "")
        self.file("b.onnx", "")
        with self.assertRaisesRegex(ValueError, "several files could be the model: a.onnx, b.onnx"):
            self.load("onnx")


@needs("sklearn", "joblib")
class Sklearn(Loading):
    def save(self, estimator):
        import joblib

        joblib.dump(estimator, self.file("model.joblib"))

    def test_a_classifier(self):
        from sklearn.linear_model import LogisticRegression

        self.save(LogisticRegression().fit([[0, 0], [1, 1]], ["no", "yes"]))
        model = self.load("sklearn")
        self.assertEqual(self.shapes(model.inputs), [("input", "FP64", [-1, 2])])
        self.assertEqual(
            self.shapes(model.outputs), [("predict", "BYTES", [-1]), ("predict_proba", "FP64", [-1, 2])]
        )
        outputs = self.predict(model, input=np.array([[5.0, 5.0], [-5.0, -5.0]]))
        self.assertEqual(outputs["predict"].tolist(), ["yes", "no"])
        self.assertAlmostEqual(outputs["predict_proba"].sum(), 2.0)

    def test_a_regressor_and_a_chosen_output(self):
        from sklearn.linear_model import LinearRegression, LogisticRegression

        self.save(LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]))
        model = self.load("sklearn")
        self.assertEqual(self.shapes(model.outputs), [("predict", "FP64", [-1])])
        self.assertAlmostEqual(self.predict(model, input=np.array([[3.0]]))["predict"][0], 6.0)
        self.save(LogisticRegression().fit([[0, 0], [1, 1]], [0, 1]))
        self.file("signature.json", '{"outputs": [{"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]}]}')
        self.assertEqual(self.shapes(self.load("sklearn").outputs), [("predict_proba", "FP64", [-1, 2])])

    def test_a_pipeline_over_text(self):
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.naive_bayes import MultinomialNB
        from sklearn.pipeline import make_pipeline

        self.save(make_pipeline(CountVectorizer(), MultinomialNB()).fit(["good fine", "bad awful"], [1, 0]))
        model = self.load("sklearn")
        self.assertEqual(self.shapes(model.inputs), [("input", "BYTES", [-1])])
        outputs = self.predict(model, input=np.array([b"so good", b"so bad"], dtype=object))
        self.assertEqual(outputs["predict"].tolist(), [1, 0])


@needs("tensorflow")
class TensorFlow(Loading):
    def test_a_module_with_a_signature(self):
        import tensorflow as tf

        class Net(tf.Module):
            def __init__(self):
                super().__init__()
                self.w = tf.Variable([[1.0], [2.0]])

            @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
            def __call__(self, x):
                return {"y": x @ self.w, "size": tf.strings.as_string(x[:, 0])}

        net = Net()
        tf.saved_model.save(net, self.file("saved"), signatures={"serving_default": net.__call__})
        model = self.load("tensorflow")
        self.assertEqual(self.shapes(model.inputs), [("x", "FP32", [-1, 2])])
        self.assertEqual(self.shapes(model.outputs), [("size", "BYTES", [-1]), ("y", "FP32", [-1, 1])])
        self.assertTrue(model.batch)
        outputs = self.predict(model, x=np.array([[1, 1], [2, 0]], np.float32))
        self.assertEqual(outputs["y"].tolist(), [[3], [2]])
        self.assertEqual(outputs["size"].tolist(), [b"1.000000", b"2.000000"])

    def test_strings_in_and_an_own_signature_name(self):
        import tensorflow as tf

        class Net(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="t")])
            def lower(self, t):
                return {"l": tf.strings.lower(t)}

        net = Net()
        tf.saved_model.save(net, self.path, signatures={"lower": net.lower})
        model = self.load("tensorflow")
        self.assertEqual((model.name, self.shapes(model.inputs)), ("lower", [("t", "BYTES", [-1])]))
        self.assertEqual(self.predict(model, t=np.array([b"ABC"], dtype=object))["l"].tolist(), [b"abc"])

    def test_no_signature(self):
        import tensorflow as tf

        tf.saved_model.save(tf.Module(), self.path)
        with self.assertRaisesRegex(ValueError, "the SavedModel has no signature: save it with"):
            self.load("tensorflow")


@needs("keras", "tensorflow")
class Keras(Loading):
    def test_a_convolutional_network(self):
        import keras

        network = keras.Sequential(
            [
                keras.Input((28, 28, 1), name="image"),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Flatten(),
                keras.layers.Dense(10, name="scores"),
            ]
        )
        network.save(self.file("model.keras"))
        model = self.load("keras")
        self.assertEqual(self.shapes(model.inputs), [("image", "FP32", [-1, 28, 28, 1])])
        self.assertEqual(self.shapes(model.outputs), [("scores", "FP32", [-1, 10])])
        self.assertTrue(model.batch)
        image = np.random.default_rng(1).random((3, 28, 28, 1), np.float32)
        expected = network.predict(image, verbose=0)
        np.testing.assert_allclose(self.predict(model, image=image)["scores"], expected, rtol=1e-4, atol=1e-5)
        network.export(self.file("exported"), verbose=False)
        saved = self.load("tensorflow")
        name = saved.inputs[0].name
        np.testing.assert_allclose(
            next(iter(self.predict(saved, **{name: image}).values())), expected, rtol=1e-4, atol=1e-5
        )

    def test_two_inputs(self):
        import keras

        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", dtype="float32")
        network = keras.Model([a, b], keras.layers.Add(name="sum")([a, b]))
        network.save(self.file("model.keras"))
        model = self.load("keras")
        self.assertEqual([s.name for s in model.inputs], ["a", "b"])
        one = np.ones((1, 2), np.float32)
        self.assertEqual(self.predict(model, a=one, b=one.copy())[model.outputs[0].name].tolist(), [[2, 2]])


    def test_dictionaries_of_inputs_and_outputs(self):
        import keras

        a, b = keras.Input((1,), name="first"), keras.Input((1,), name="second")
        outputs = {"total": keras.layers.Add()([a, b]), "a": keras.layers.Flatten()(a)}
        keras.Model({"z": a, "y": b}, outputs).save(self.file("model.keras"))
        model = self.load("keras")
        self.assertEqual([s.name for s in model.inputs], ["y", "z"])
        self.assertEqual([s.name for s in model.outputs], ["a", "total"])
        outputs = self.predict(model, y=np.full((1, 1), 2.0, np.float32), z=np.full((1, 1), 1.0, np.float32))
        self.assertEqual((outputs["a"].item(), outputs["total"].item()), (1.0, 3.0))


NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)
        self.line = torch.nn.Linear(3, 2)

    def forward(self, x):
        x.mul_(2)
        return self.line(self.drop(x))

class Seq(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(3, 2))

class Conv(torch.nn.Module):
    signature = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]}

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)
        self.line = torch.nn.Linear(72, 4)

    def forward(self, image):
        return {"scores": self.line(self.conv(image).flatten(1))}

class Bare(Conv):
    signature = None
"""


@needs("torch")
class Torch(Loading):
    def setUp(self):
        super().setUp()
        self.file("net_module.py", NET)
        sys.modules.pop("net_module", None)

    def save(self, name):
        import net_module
        import torch

        torch.manual_seed(1)
        network = getattr(net_module, name)()
        torch.save(network.state_dict(), self.file("model.pt"))
        return network.eval()

    def test_a_state_dict_whose_signature_is_declared_beside_it(self):
        import torch

        network = self.save("Net")
        self.file("signature.json", '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]}')
        model = self.load("torch", "net_module:Net")
        self.assertEqual((self.shapes(model.outputs), model.batch), ([("output", "FP32", [-1, 2])], True))
        x = np.ones((2, 3), np.float32)
        expected = network(torch.ones(2, 3)).detach().numpy()
        np.testing.assert_allclose(self.predict(model, x=x)["output"], expected, rtol=1e-5)
        self.assertEqual(x.tolist(), [[1, 1, 1]] * 2)

    def test_a_signature_of_the_class_and_named_outputs(self):
        self.save("Conv")
        model = self.load("torch", "net_module:Conv")
        self.assertEqual(self.shapes(model.inputs), [("image", "FP32", [-1, 1, 8, 8])])
        self.assertEqual(self.shapes(model.outputs), [("scores", "FP32", [-1, 4])])

    def test_a_first_layer_that_tells(self):
        self.save("Seq")
        self.assertEqual(self.shapes(self.load("torch", "net_module:Seq").inputs), [("input", "FP32", [-1, 3])])

    def test_what_is_missing(self):
        self.save("Bare")
        with self.assertRaisesRegex(ValueError, "declare it in signature.json beside the model"):
            self.load("torch", "net_module:Bare")
        with self.assertRaisesRegex(ValueError, "a state_dict needs the class"):
            self.load("torch")
        with self.assertRaisesRegex(RuntimeError, "Missing key|size mismatch"):
            self.load("torch", "net_module:Seq")

    def test_torchscript(self):
        import torch

        network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()).eval()
        torch.jit.script(network).save(self.file("model.pt"))
        model = self.load("torchscript")
        self.assertEqual(self.shapes(model.inputs), [("input", "FP32", [-1, 3])])
        x = np.ones((2, 3), np.float32)
        expected = network(torch.ones(2, 3)).detach().numpy()
        np.testing.assert_allclose(self.predict(model, input=x)["output"], expected, rtol=1e-5)


if __name__ == "__main__":
    unittest.main()
