//! Both protocols through a real runner and a real worker.

mod harness;

use std::io::Write;

use harness::{MODEL, Runner};
use serde_json::json;

#[test]
fn predicts_in_both_protocols_and_describes_itself() {
    let runner = Runner::ready(MODEL, |_| {});
    let reply = runner.predict(&[10, 20]);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json(), json!({"predictions": [{"y": 13.0, "rows": 2}, {"y": 23.0, "rows": 2}]}));
    assert!(reply.headers.contains("content-type: application/json"));
    for path in [
        "/v1/models/adder-service:predict",
        "/v1/models/adder/versions/3:predict",
        "/v1/models/adder/labels/stable:predict",
    ] {
        let reply = runner.post(path, r#"{"inputs":{"x":[[1,2,3]]},"signature_name":"serving_default"}"#);
        assert_eq!(reply.json(), json!({"outputs": {"y": [6.0], "rows": [1]}}), "{path}");
    }
    let infer = r#"{"id":"7","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}],"outputs":[{"name":"y"}]}"#;
    let reply = runner.post("/v2/models/adder/infer", infer);
    assert_eq!(
        reply.json(),
        json!({"model_name": "adder", "model_version": "3", "id": "7",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [6.0]}]})
    );
    let reply = runner.send(
        "POST",
        "/v2/models/adder/versions/3/infer",
        &[("content-type", "application/octet-stream"), ("inference-header-content-length", "0")],
        &[1.0_f32, 2.0, 3.5].iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<_>>(),
    );
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let head =
        reply.headers.lines().find_map(|l| l.strip_prefix("inference-header-content-length: ")).unwrap();
    let raw = &reply.body[head.parse::<usize>().unwrap()..];
    assert_eq!(raw, [6.5_f32.to_le_bytes().as_slice(), &1_i64.to_le_bytes()].concat());

    assert_eq!(runner.get("/v2/health/live").json(), json!({"live": true}));
    assert_eq!(runner.get("/v2/health/ready").json(), json!({"ready": true}));
    assert_eq!(runner.get("/v2/models/adder/ready").json(), json!({"name": "adder", "ready": true}));
    assert_eq!(runner.get("/v2").json()["extensions"], json!(["binary_tensor_data"]));
    let metadata = runner.get("/v2/models/adder").json();
    assert_eq!(metadata["inputs"], json!([{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]));
    assert_eq!(metadata["platform"], "python");
    assert_eq!(runner.get("/v1/models/adder").json()["model_version_status"][0]["state"], "AVAILABLE");
    let signature =
        &runner.get("/v1/models/adder/metadata").json()["metadata"]["signature_def"]["signature_def"];
    assert_eq!(signature["serving_default"]["outputs"]["rows"]["dtype"], "DT_INT64");
    assert!(runner.log().contains("[worker] loading from model\n"), "{}", runner.log());
}

#[test]
fn refuses_what_it_cannot_serve_and_says_what_it_expects() {
    let runner = Runner::ready(MODEL, |config| config["max_body"] = 2000.into());
    let predict = "/v1/models/adder:predict";
    let x = r#"expected input "x": FP32 [-1,3]"#;
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(runner.send("POST", predict, &[form], br#"{"instances":[[1,2,3]]}"#).status, 200);
    let large = "x".repeat(3000);
    for (method, path, headers, body, status, message) in [
        (
            "POST",
            predict,
            &[][..],
            "{\"instances\":[[1,2,]]}",
            400,
            "JSON Parse error: Invalid value at line 1, column 20",
        ),
        ("POST", predict, &[], "{\"instances\":[[1,2]]}", 400, x),
        ("POST", predict, &[], "{\"instances\":[[1,2,\"3\"]]}", 400, x),
        ("POST", predict, &[], "", 400, "JSON Parse error: The document is empty"),
        ("POST", predict, &[], &large, 413, "the request body is larger than the limit of 2000 bytes"),
        (
            "POST",
            predict,
            &[("transfer-encoding", "chunked")],
            &format!("bb8\r\n{large}\r\n0\r\n\r\n"),
            413,
            "the request body is larger than the limit of 2000 bytes",
        ),
        (
            "POST",
            predict,
            &[("content-type", "text/xml")],
            "{}",
            415,
            "the content type \"text/xml\" is not supported",
        ),
        (
            "POST",
            predict,
            &[("content-encoding", "gzip")],
            "{}",
            415,
            "compressed request bodies are not supported",
        ),
        ("GET", predict, &[], "", 405, "the method GET is not allowed here: use POST"),
        ("POST", "/v2/health/ready", &[], "", 405, "the method POST is not allowed here: use GET"),
        (
            "POST",
            "/v1/models/other:predict",
            &[],
            "{}",
            404,
            "there is no model \"other\"; there is \"adder\"",
        ),
        ("POST", "/v2/models/other/infer", &[], "{}", 404, "there is no model \"other\"; there is \"adder\""),
        (
            "POST",
            "/v1/models/adder/versions/4:predict",
            &[],
            "{}",
            404,
            "model \"adder\" has no version 4; version 3 is",
        ),
        (
            "POST",
            "/v1/models/adder/labels/gold:predict",
            &[],
            "{}",
            400,
            "Unrecognized servable version label: gold",
        ),
        (
            "POST",
            "/v1/models/adder:classify",
            &[],
            "{}",
            501,
            "classify and regress over tf.Example are not supported",
        ),
        ("POST", "/v1/models/adder:foo", &[], "{}", 400, "Malformed request: POST /v1/models/adder:foo"),
        ("GET", "/nothing", &[], "", 404, "there is no path /nothing"),
        (
            "POST",
            "/v2/models/adder/infer",
            &[],
            r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#,
            400,
            r#"input "x" has the shape [1, 4]: expected input "x": FP32 [-1,3]"#,
        ),
    ] {
        let reply = runner.send(method, path, headers, body.as_bytes());
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(reply.status, status, "{method} {path} {body}: {error}");
        assert!(error.contains(message), "{method} {path} {body}: {error}");
    }
    assert!(runner.get(predict).headers.contains("allow: POST"));

    // A client that sends all of a large body before it reads sees the reply as well.
    let mut stream = runner.connect();
    let body = vec![b' '; 8 << 20];
    let head = format!(
        "POST {predict} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    assert_eq!(harness::read_reply(stream).status, 413);
}

#[test]
fn a_class_without_a_signature_takes_and_gives_json() {
    let model = r#"
class Words:
    def predict(self, inputs):
        if isinstance(inputs, dict) and "wrong" in inputs:
            return object()
        if isinstance(inputs, list):
            return [{"text": str(i["text"]).upper(), "score": float("nan")} for i in inputs]
        return {name: value for name, value in inputs.items()}
"#;
    let runner = Runner::ready(model, |_| {});
    let reply = runner.post("/v1/models/adder:predict", r#"{"instances":[{"text":"é"},{"text":"b"}]}"#);
    assert_eq!(reply.text(), r#"{"predictions":[{"text":"\u00c9","score":NaN},{"text":"B","score":NaN}]}"#);
    let reply = runner.post("/v1/models/adder:predict", r#"{"inputs":{"a":[1,{"b":null}]}}"#);
    assert_eq!(reply.json(), json!({"outputs": {"a": [1, {"b": null}]}}));
    let infer = r#"{"inputs":[{"name":"q","shape":[2],"datatype":"INT32","data":[4,5]}]}"#;
    let reply = runner.post("/v2/models/adder/infer", infer);
    assert_eq!(
        reply.json()["outputs"],
        json!([{"name": "q", "datatype": "INT32", "shape": [2], "data": [4, 5]}])
    );
    let reply = runner.post("/v1/models/adder:predict", r#"{"inputs":{"wrong":1}}"#);
    assert_eq!(
        (reply.status, reply.json()["error"].as_str().unwrap().contains("which JSON cannot hold")),
        (500, true)
    );
}

#[test]
fn batches_form_while_the_worker_is_busy() {
    let runner = Runner::ready(MODEL, |_| {});
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(runner.predict(&[444]).status, 200));
        std::thread::sleep(std::time::Duration::from_millis(100));
        let waiting: Vec<_> = (0..8)
            .map(|i| {
                (
                    i,
                    scope.spawn({
                        let runner = &runner;
                        move || runner.predict(&[i])
                    }),
                )
            })
            .collect();
        for (i, reply) in waiting {
            let reply = reply.join().unwrap();
            assert_eq!(reply.json(), json!({"predictions": [{"y": (i + 3) as f64, "rows": 8}]}));
        }
    });
    let labels = r#"{model="adder",version="3"}"#;
    assert_eq!(runner.metric(&format!("slipway_batch_size_sum{labels}")), 9.0);
    assert_eq!(runner.metric(&format!("slipway_batch_size_count{labels}")), 2.0);
    assert_eq!(runner.metric(&format!("slipway_queue_duration_seconds_count{labels}")), 9.0);
    assert_eq!(runner.metric(&format!("slipway_inference_duration_seconds_count{labels}")), 2.0);
    assert_eq!(runner.metric(&format!("slipway_queue_rows{labels}")), 0.0);
    assert_eq!(runner.metric(&format!("slipway_worker_ready{labels}")), 1.0);
    let requests = r#"slipway_requests_total{model="adder",version="3",protocol="tfs",code="200"}"#;
    assert_eq!(runner.metric(requests), 9.0);
}

#[test]
fn a_delay_that_was_asked_for_merges_requests_of_an_idle_worker() {
    let runner =
        Runner::ready(MODEL, |config| config["batch"] = json!({"max_size": 4, "max_delay_us": 1_500_000}));
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| runner.predict(&[1]));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(runner.predict(&[2]).json()["predictions"][0]["rows"], 2);
        assert_eq!(first.join().unwrap().json()["predictions"][0]["rows"], 2);
    });
    assert!(started.elapsed().as_millis() >= 1500);
    let started = std::time::Instant::now();
    assert_eq!(runner.predict(&[1, 2, 3, 4]).json()["predictions"][0]["rows"], 4);
    assert!(started.elapsed().as_millis() < 1500, "a full batch does not wait");
}

#[test]
fn a_request_larger_than_a_batch_and_one_of_many_megabytes() {
    let runner = Runner::ready(MODEL, |config| {
        config["max_body"] = 20_000_000.into();
        // Half a million rows take a debug build on a busy machine a while.
        config["timeout_ms"] = 120_000.into();
    });
    let reply = runner.predict(&[1; 100]);
    assert_eq!(reply.json()["predictions"][99], json!({"y": 4.0, "rows": 100}));
    let rows = 500_000;
    let body = format!("{{\"instances\":[{}]}}", vec!["[1,2,3]"; rows].join(","));
    let reply = runner.post("/v1/models/adder:predict", body);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["predictions"][rows - 1], json!({"y": 6.0, "rows": rows}));
}
