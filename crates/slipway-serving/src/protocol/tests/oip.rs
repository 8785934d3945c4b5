use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use slipway_types::model::DataType;

use super::*;
use crate::protocol::oip::{InferRequest, Wanted, model_metadata, parse, write};
use crate::transport::Inputs;

fn infer(text: &str, signature: &ModelSignature) -> InferRequest {
    parse(&body(text), None, signature).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn requests() {
    let two = Inputs::Tensors(vec![floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0])]);
    for text in [
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}]}"#,
        r#"{"inputs":[{"data":[[1,2],[3,4]],"name":"x","shape":[2,2],"datatype":"FP32"}]}"#,
        r#"{"inputs":[{"name":"x","data":[1,2,3,4],"datatype":"FP32","parameters":{"a":"b"},"shape":[2,2]}],"q":1}"#,
    ] {
        let request = infer(text, &single());
        assert_eq!((&request.inputs, request.id), (&two, None), "{text}");
    }
    let request = infer(
        r#"{"id":"a\"b","parameters":{"timeout":1500,"binary_data_output":true,"priority":1},
            "outputs":[{"name":"y","parameters":{"binary_data":false}}],
            "inputs":[{"name":"b","shape":[1],"datatype":"INT64","data":[5]},
                      {"name":"a","shape":[1,2],"datatype":"FP32","data":[[1,2]]}]}"#,
        &double(),
    );
    assert_eq!(
        request,
        InferRequest {
            id: Some("a\"b".into()),
            inputs: Inputs::Tensors(vec![floats(&[1, 2], &[1.0, 2.0]), longs(&[1], &[5])]),
            wanted: Wanted { outputs: vec![("y".into(), Some(false))], binary: true },
            timeout: Some(Duration::from_micros(1500)),
        }
    );
    let words =
        infer(r#"{"inputs":[{"name":"t","shape":[2],"datatype":"BYTES","data":["a","é"]}]}"#, &words());
    assert_eq!(words.inputs, Inputs::Tensors(vec![strings(&[2], &[b"a", "é".as_bytes()])]));
    let free = infer(r#"{"inputs":[{"name":"q","shape":[1],"datatype":"INT64","data":[3]}]}"#, &free());
    let named = NamedTensor { name: "q".into(), tensor: longs(&[1], &[3]) };
    assert_eq!(free.inputs, Inputs::Named(vec![named]));
}

#[test]
fn raw_tensors() {
    let json = r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}},
        {"name":"b","shape":[1],"datatype":"INT64","data":[5]}]}"#;
    let mut whole = json.as_bytes().to_vec();
    whole.extend_from_slice(&[0, 0, 128, 63, 0, 0, 0, 64]);
    let request = parse(&whole.clone().into(), Some(json.len()), &double()).unwrap();
    assert_eq!(request.inputs, Inputs::Tensors(vec![floats(&[1, 2], &[1.0, 2.0]), longs(&[1], &[5])]));
    whole.push(0);
    let error = parse(&whole.into(), Some(json.len()), &double()).unwrap_err();
    assert_eq!(error.message, "9 bytes follow the JSON, but the inputs' binary_data_size add up to 8");

    let json =
        r#"{"inputs":[{"name":"t","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}}]}"#;
    let with = |raw: &[u8]| [json.as_bytes(), raw].concat().into();
    let request = parse(&with(b"\x01\0\0\0a\x02\0\0\0\xff\0"), Some(json.len()), &words()).unwrap();
    assert_eq!(request.inputs, Inputs::Tensors(vec![strings(&[2], &[b"a", b"\xff\0"])]));
    for raw in [b"\x01\0\0\0a\x03\0\0\0ab", b"\xff\xff\xff\xffa\x02\0\0\0ab", b"\x01\0\0\0a\x01\0\0\0ab"] {
        let error = parse(&with(raw), Some(json.len()), &words()).unwrap_err();
        assert!(error.message.starts_with("the data is not one length of 4 bytes"), "{error}");
    }

    let request = parse(&Bytes::from_static(&[0; 16]), Some(0), &single()).unwrap();
    assert_eq!(request.inputs, Inputs::Tensors(vec![floats(&[2, 2], &[0.0; 4])]));
    assert!(request.wanted.binary);
    for (signature, len, message) in [
        (
            single(),
            12,
            "a raw request needs a multiple of 8 bytes, not 12: expected input \"x\": FP32 [-1,2]",
        ),
        (double(), 8, "a raw request needs a model with one input"),
        (words(), 8, "a raw request needs elements of a fixed size"),
    ] {
        let error = parse(&vec![0; len].into(), Some(0), &signature).unwrap_err();
        assert!(error.message.starts_with(message), "{error}");
    }
    let error = parse(&body("{}"), Some(9), &single()).unwrap_err();
    assert_eq!(error.message, "Inference-Header-Content-Length is 9, but the body has only 2 bytes");
}

#[test]
fn errors() {
    let x = r#"expected input "x": FP32 [-1,2]"#;
    let input = |fields: &str| format!("{{\"inputs\":[{{{fields}}}]}}");
    let good = r#""name":"x","shape":[1,2],"datatype":"FP32""#;
    for (text, message) in [
        ("".to_owned(), "JSON Parse error: The document is empty at line 1, column 1".to_owned()),
        ("[]".into(), format!("the request must be an object with `inputs` (line 1, column 1): {x}")),
        ("{}".into(), format!("the request has no `inputs` (line 1, column 3): {x}")),
        (r#"{"inputs":[]}"#.into(), format!("`inputs` has no input \"x\" (line 1, column 13): {x}")),
        (r#"{"id":3}"#.into(), "`id` must be a string".into()),
        (r#"{"inputs":3}"#.into(), format!("`inputs` must be a list (line 1, column 11): {x}")),
        (r#"{"inputs":[3]}"#.into(), format!("each of `inputs` must be an object (line 1, column 12): {x}")),
        (
            input(r#""name":"x""#),
            format!("each of `inputs` needs `name`, `datatype` and `shape` (line 1, column 24): {x}"),
        ),
        (
            input(r#""name":"x","datatype":"FLOAT""#),
            format!("\"FLOAT\" is not a datatype (line 1, column 42): {x}"),
        ),
        (
            input(r#""name":"x","shape":[1,-2],"datatype":"FP32""#),
            format!("`shape` must be a list of sizes that are not negative (line 1, column 37): {x}"),
        ),
        (
            input(r#""name":"x","shape":[1,2],"datatype":"FP64","data":[1,2]"#),
            format!("input \"x\" has the datatype FP64: {x}"),
        ),
        (
            input(r#""name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]"#),
            format!("input \"x\" has the shape [1, 3]: {x}"),
        ),
        (
            input(r#""name":"x","shape":[2],"datatype":"FP32","data":[1,2]"#),
            format!("input \"x\" has the shape [2]: {x}"),
        ),
        (
            input(r#""name":"z","shape":[1,2],"datatype":"FP32","data":[1,2]"#),
            format!("the model has no input \"z\" (line 1, column 63): {x}"),
        ),
        (input(good), format!("input \"x\" has no `data` (line 1, column 56): {x}")),
        (
            input(&format!("{good},\"data\":[1,2,3]")),
            "`data` has 3 elements, its shape needs 2 (line 1, column 63): expected input \"x\": FP32 [1,2]"
                .into(),
        ),
        (
            input(&format!("{good},\"data\":[[1,2],[3,4]]")),
            "wrong shape: 2 elements in dimension 0, 1 are needed (line 1, column 63): \
             expected input \"x\": FP32 [1,2]"
                .into(),
        ),
        (
            input(&format!("{good},\"data\":[1,\"a\"]")),
            "JSON Value: \"a\" Type: String is not of expected type: float (line 1, column 66): \
             expected input \"x\": FP32 [1,2]"
                .into(),
        ),
        (
            input(&format!("{good},\"data\":7")),
            format!("`data` of input \"x\" must be a list (line 1, column 63): {x}"),
        ),
        (
            input(&format!("{good},\"parameters\":{{\"binary_data_size\":8}}")),
            "binary_data_size is 8, but only 0 bytes follow the JSON: input \"x\": FP32 [1,2]".into(),
        ),
        (
            input(&format!("{good},\"parameters\":{{\"binary_data_size\":-8}}")),
            "the parameter `binary_data_size` must be a number that is not negative".into(),
        ),
        (r#"{"outputs":[{"name":"q"}]}"#.into(), "the model has no output \"q\", it has \"y\"".into()),
        (r#"{"outputs":[{}]}"#.into(), "each of `outputs` needs a `name`".into()),
        (r#"{"outputs":[{"name":"y"},{"name":"y"}]}"#.into(), "output \"y\" is asked for twice".into()),
    ] {
        let error = parse(&body(&text), None, &single()).unwrap_err();
        assert_eq!((error.message, error.status.as_u16()), (message, 400), "{text}");
    }
    let shared = input(&format!("{good},\"parameters\":{{\"shared_memory_region\":\"r\"}}"));
    assert_eq!(parse(&body(&shared), None, &single()).unwrap_err().status.as_u16(), 501);
}

#[test]
fn replies() {
    let outputs = || {
        let outputs =
            vec![("y", floats(&[2, 2], &[1.0, 2.0, 3.5, f32::NAN])), ("s", strings(&[2], &[b"a", b"bc"]))];
        prediction(outputs, Some((1, 1)))
    };
    let reply = write(&outputs(), "m", 3, Some("7"), &Wanted::default()).unwrap();
    assert_eq!(
        std::str::from_utf8(&reply.body).unwrap(),
        r#"{"model_name":"m","model_version":"3","id":"7","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[3.5,NaN]},{"name":"s","datatype":"BYTES","shape":[1],"data":["bc"]}]}"#
    );
    assert_eq!(reply.json_len, None);
    let wanted = Wanted { outputs: vec![("s".into(), None), ("y".into(), Some(false))], binary: true };
    let reply = write(&outputs(), "m", 3, None, &wanted).unwrap();
    let json = r#"{"model_name":"m","model_version":"3","outputs":[{"name":"s","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}},{"name":"y","datatype":"FP32","shape":[1,2],"data":[3.5,NaN]}]}"#;
    assert_eq!(reply.json_len, Some(json.len()));
    assert_eq!(reply.body, [json.as_bytes(), b"\x02\0\0\0bc"].concat());

    let wanted = Wanted { outputs: vec![("q".into(), None)], binary: false };
    let error = write(&outputs(), "m", 3, None, &wanted).unwrap_err();
    assert_eq!(error.message, "the model has no output \"q\", it has \"y\", \"s\"");
    let bad = prediction(vec![("s", strings(&[1], &[b"\xff"]))], None);
    let error = write(&bad, "m", 3, None, &Wanted::default()).unwrap_err();
    assert!(error.message.starts_with("element 0 of output \"s\" is not UTF-8"), "{error}");
}

#[test]
fn metadata() {
    let metadata: serde_json::Value = serde_json::from_slice(&model_metadata("m", 3, &single())).unwrap();
    assert_eq!(
        metadata,
        serde_json::json!({"name": "m", "versions": ["3"], "platform": "test",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]})
    );
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), json_len in proptest::option::of(0..90_usize)) {
        for signature in [single(), double(), words(), free()] {
            let _ = parse(&Bytes::from(bytes.clone()), json_len, &signature);
        }
    }

    #[test]
    fn shapes_and_data_of_any_size(
        dims in proptest::collection::vec(0..5_i64, 0..4),
        huge in any::<bool>(),
        values in proptest::collection::vec(any::<i16>(), 0..30),
    ) {
        let mut dims = dims;
        if huge {
            dims.extend([i64::from(i32::MAX); 3]);
        }
        let open = vec![-1; dims.len()];
        let signature = signature(vec![spec("x", DataType::Int16, &open)], vec![], false);
        let text = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"INT16","shape":{dims:?},"data":{values:?}}}]}}"#
        );
        let needed = dims.iter().try_fold(1_i64, |n, d| n.checked_mul(*d));
        let fits = needed == Some(values.len() as i64);
        prop_assert_eq!(parse(&body(&text), None, &signature).is_ok(), fits);
    }
}
