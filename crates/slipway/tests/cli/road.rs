//! The whole road on real frameworks: `up` of the examples, accuracy measured through the served REST API.

use std::process::Command;

use crate::support::{Slipway, workspace};

/// Builds the base image, brings an example up, and sends it the held-out digits.
fn example(name: &str) -> Slipway {
    let s = Slipway::new();
    let packages = ["-p", "python3", "-p", "python3-pip", "-p", "python-is-python3"];
    s.run(&[&["base", "debian"][..], &packages, &["-t", "slipway/python:bookworm"]].concat()).ok();
    let folder = workspace().join("examples").join(name);
    let up = s.run(&["up", folder.to_str().unwrap()]);
    assert_eq!(up.code, 0, "{}\n{}", up.stdout, up.stderr);
    let request = folder.join("request.json");
    s.run(&["predict", name, "--file", request.to_str().unwrap()]).ok();
    let verified = Command::new("/usr/bin/python3")
        .arg(workspace().join("examples/verify.py"))
        .args(["--url", &format!("http://127.0.0.1:{}", s.port), "--service", name, "--example", name])
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&verified.stdout).into_owned() + &String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{text}");
    assert!(s.run(&["up", folder.to_str().unwrap()]).ok().contains("nothing to do"));
    s
}

/// Runs `script`, which writes a model to /out, in `image`; records it as `name`, deploys it in that image, and checks
/// that each of both protocols triples a row through the gateway.
fn triples(s: &Slipway, image: &str, name: &str, format: &str, script: &str) {
    let out = s.path(&format!("{name}-model"));
    std::fs::create_dir(&out).unwrap();
    let mount = format!("{}:/out", out.display());
    s.run(&["run", "--rm", "-v", &mount, "-w", "/tmp", image, "python3", "-c", script]).ok();
    s.run(&["model", "import", out.to_str().unwrap(), name]).ok();
    let shown: serde_json::Value = serde_json::from_str(&s.run(&["model", "show", name]).ok()).unwrap();
    assert_eq!(shown["format"], format, "{shown}");
    let deployed = s.run(&["deploy", "--image", image, name]);
    assert_eq!(deployed.code, 0, "{}", deployed.stderr);

    let json = |(status, body): (u16, String)| {
        assert_eq!(status, 200, "{name}: {body}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap()
    };
    let metadata = json(s.http("GET", &format!("/v2/models/{name}"), ""));
    let input = &metadata["inputs"][0];
    assert_eq!((&input["datatype"], &input["shape"]), (&"FP32".into(), &serde_json::json!([-1, 2])));
    let row = |answer: &serde_json::Value| {
        answer.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let asked = "{\"instances\": [[1, 2], [3, 4]]}";
    let answer = json(s.http("POST", &format!("/v1/models/{name}:predict"), asked));
    assert_eq!(row(&answer["predictions"][1]), [9.0, 12.0], "{answer}");
    let asked = format!(
        "{{\"inputs\": [{{\"name\": {}, \"datatype\": \"FP32\", \"shape\": [1, 2], \"data\": [5, 6]}}]}}",
        input["name"]
    );
    let answer = json(s.http("POST", &format!("/v2/models/{name}/infer"), &asked));
    assert_eq!(row(&answer["outputs"][0]["data"]), [15.0, 18.0], "{answer}");
    s.run(&["delete", name]).ok();
}

const KERAS: &str = "import keras
x = keras.Input((2,), name='x')
keras.Model(x, keras.layers.Rescaling(3.0)(x)).save('/out/model.keras')";

const TORCHSCRIPT: &str = "import torch
net = torch.nn.Linear(2, 2, bias=False).eval()
net.weight = torch.nn.Parameter(3 * torch.eye(2))
torch.jit.script(torch.nn.Sequential(net)).save('/out/model.pt')";

const ONNX: &str = "from onnx import TensorProto, helper, save
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ['n', 2]) for n in 'xy')
three = helper.make_tensor('three', TensorProto.FLOAT, [], [3.0])
graph = helper.make_graph([helper.make_node('Mul', ['x', 'three'], ['y'])], 'g', [x], [y], [three])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8), '/out/net.onnx')";

// The formats that no example has are served by the images and base images that are there anyway.

#[test]
fn digits_sklearn_and_onnx() {
    let s = example("digits-sklearn");
    s.write(
        "onnx/Dockerfile",
        "FROM slipway/python:bookworm\nENV PIP_BREAK_SYSTEM_PACKAGES=1\n\
         RUN pip install --no-cache-dir --quiet onnx==1.23.2 onnxruntime==1.32.0\n",
    );
    let built = s.run(&["build", "-t", "onnx", "onnx"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    triples(&s, "onnx", "graph", "onnx", ONNX);
    s.finish();
}

#[test]
fn custom_python() {
    example("custom-python").finish();
}

#[test]
fn digits_tensorflow_and_keras() {
    let s = example("digits-tensorflow");
    triples(&s, "slipway/digits-tensorflow:latest", "dense", "keras", KERAS);
    s.finish();
}

#[test]
fn digits_pytorch_and_torchscript() {
    let s = example("digits-pytorch");
    triples(&s, "slipway/digits-pytorch:latest", "script", "torchscript", TORCHSCRIPT);
    // The worker's own tests of its PyTorch loaders, which `scripts/test` leaves to this image.
    let mount = format!("{}:/python:ro", workspace().join("crates/slipway-serving/python").display());
    let tests = ["python3", "-m", "tests", "--only", "torch"];
    let run = ["run", "--rm", "-v", &mount, "-w", "/python", "slipway/digits-pytorch:latest"];
    let tested = s.run(&[&run[..], &tests].concat());
    assert_eq!(tested.code, 0, "{}", tested.stderr);
    s.finish();
}
