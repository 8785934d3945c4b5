use bytes::Bytes;
use proptest::prelude::*;
use slipway_types::model::DataType;

use super::*;
use crate::model::Readiness;
use crate::protocol::tfs::{Form, PredictRequest, metadata, parse, status, write};
use crate::transport::Inputs;

fn tensors(text: &str, signature: &ModelSignature) -> (Vec<Tensor>, Form) {
    match parse(&body(text), signature).unwrap_or_else(|e| panic!("{text}: {e}")) {
        PredictRequest { inputs: Inputs::Tensors(tensors), form } => (tensors, form),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests() {
    let two = floats(&[2, 2], &[1.0, 2.5, -3.0, 4e3]);
    for text in [
        r#"{"instances":[[1,2.5],[-3,4e3]]}"#,
        r#" { "signature_name" : "serving_default" , "instances" : [ [ 1 , 2.5 ] , [ -3 , 4000 ] ] } "#,
        r#"{"instances":[{"x":[1,2.5]},{"x":[-3,4e3]}]}"#,
        r#"{"instances":[[1,2.5],{"x":[-3,4e3]}],"signature_name":"","other":{"a":[null,"\u00e9"]}}"#,
    ] {
        assert_eq!(tensors(text, &single()), (vec![two.clone()], Form::Rows), "{text}");
    }
    for text in [r#"{"inputs":[[1,2.5],[-3,4e3]]}"#, r#"{"inputs":{"x":[[1,2.5],[-3,4e3]]}}"#] {
        assert_eq!(tensors(text, &single()), (vec![two.clone()], Form::Whole), "{text}");
    }
    let both = vec![floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), longs(&[2], &[5, 6])];
    for (text, form) in [
        (r#"{"instances":[{"a":[1,2],"b":5},{"b":6,"a":[3,4]}]}"#, Form::Rows),
        (r#"{"inputs":{"b":[5,6],"a":[[1,2],[3,4]]}}"#, Form::Whole),
    ] {
        assert_eq!(tensors(text, &double()), (both.clone(), form), "{text}");
    }
    let two_words = vec![strings(&[2], &[b"hi", b"\xff"])];
    for text in [
        r#"{"instances":["hi",{"b64":"/w=="}]}"#,
        r#"{"instances":[{"t":"hi"},{"t":{"b64":"/w"}}]}"#,
        r#"{"inputs":["hi",{"b64":"/w=="}]}"#,
    ] {
        assert_eq!(tensors(text, &words()).0, two_words, "{text}");
    }
    let scalar = signature(vec![spec("n", DataType::Fp32, &[])], vec![], false);
    assert_eq!(tensors(r#"{"inputs":3}"#, &scalar).0, [floats(&[], &[3.0])]);
}

#[test]
fn specials_are_accepted() {
    let (tensors, _) = tensors(r#"{"instances":[[NaN,-Infinity]]}"#, &single());
    let bytes = tensors[0].view().bytes;
    assert!(f32::from_le_bytes(bytes[..4].try_into().unwrap()).is_nan());
    assert_eq!(f32::from_le_bytes(bytes[4..].try_into().unwrap()), f32::NEG_INFINITY);
}

#[test]
fn json_for_a_class_without_a_signature() {
    for (text, json, form) in [
        (r#"{"instances": [{"a": 1}, NaN ] }"#, r#"[{"a": 1}, NaN ]"#, Form::Rows),
        (r#"{"inputs":"x"}"#, r#""x""#, Form::Whole),
    ] {
        let request = parse(&body(text), &free()).unwrap();
        assert_eq!(request, PredictRequest { inputs: Inputs::Json { form, text: body(json) }, form });
    }
    let error = parse(&body(r#"{"instances":3}"#), &free()).unwrap_err();
    assert_eq!(error.message, "`instances` must be a list (line 1, column 14): expected free-form JSON");
}

#[test]
fn errors() {
    let x = r#"expected input "x": FP32 [-1,2]"#;
    for (text, message) in [
        ("", "JSON Parse error: The document is empty at line 1, column 1".into()),
        ("hello", "JSON Parse error: Invalid value at line 1, column 1".into()),
        ("{\"instances\":\n [[1,2],]}", "JSON Parse error: Invalid value at line 2, column 9".into()),
        (r#"{"instances":[[1,2"#, "JSON Parse error: The document ends too early at line 1, column 19".into()),
        (r#"{"instances":[[1,2]]} x"#, "JSON Parse error: Unexpected text after the document at line 1, column 23".into()),
        ("[1]", format!("the request must be an object with `instances` or `inputs` (line 1, column 1): {x}")),
        ("{}", format!("the request has neither `instances` nor `inputs`: {x}")),
        (r#"{"instance":[[1,2]]}"#, format!("the request has neither `instances` nor `inputs`: {x}")),
        (
            r#"{"instances":[[1,2]],"inputs":[[1,2]]}"#,
            format!("`instances` and `inputs` exclude each other, and each may be given once (line 1, column 31): {x}"),
        ),
        (r#"{"instances":[[1,2]],"signature_name":5}"#, "'signature_name' key must be a string value.".into()),
        (
            r#"{"signature_name":"other","instances":[[1,2]]}"#,
            "Serving signature name: \"other\" not found in signature def; the model has \"serving_default\": \
             input \"x\": FP32 [-1,2]"
                .into(),
        ),
        (r#"{"instances":{}}"#, format!("`instances` must be a list (line 1, column 14): {x}")),
        (r#"{"instances":[]}"#, format!("`instances` is empty (line 1, column 16): {x}")),
        (
            r#"{"instances":[[1,"a"]]}"#,
            format!("JSON Value: \"a\" Type: String is not of expected type: float (line 1, column 18): {x}"),
        ),
        (
            r#"{"instances":[[1,2],[3]]}"#,
            format!("wrong shape: 1 elements in dimension 1, 2 are needed (line 1, column 21): {x}"),
        ),
        (r#"{"instances":[1,2]}"#, format!("expected an array in dimension 1, found 1 (Number) (line 1, column 15): {x}")),
        (
            r#"{"instances":[[[1],[2]]]}"#,
            format!("JSON Value: [1] Type: Array is not of expected type: float (line 1, column 16): {x}"),
        ),
        (r#"{"instances":[{"z":[1,2]}]}"#, format!("the model has no input \"z\" (line 1, column 16): {x}")),
        (r#"{"instances":[{}]}"#, format!("instance 0 has no input \"x\" (line 1, column 17): {x}")),
        (
            r#"{"instances":[{"x":[1,2],"x":[1,2]}]}"#,
            format!("input \"x\" is given twice in instance 0 (line 1, column 26): {x}"),
        ),
        (r#"{"inputs":{"x":[[1,2]],"z":1}}"#, format!("the model has no input \"z\" (line 1, column 24): {x}")),
        (r#"{"inputs":[]}"#, format!("the request has no rows: {x}")),
    ] {
        let error = parse(&body(text), &single()).unwrap_err();
        assert_eq!((error.message, error.status.as_u16()), (message, 400), "{text}");
    }
    let ab = r#"expected input "a": FP32 [-1,2]; input "b": INT64 [-1]"#;
    for (text, message) in [
        (
            r#"{"instances":[[1,2]]}"#,
            format!("instance 0 must be an object with a key for each input (line 1, column 15): {ab}"),
        ),
        (
            r#"{"inputs":[[1,2]]}"#,
            format!("`inputs` must be an object with a key for each input (line 1, column 11): {ab}"),
        ),
        (r#"{"inputs":{"a":[[1,2]]}}"#, format!("`inputs` has no input \"b\" (line 1, column 24): {ab}")),
        (r#"{"inputs":{"a":[[1,2]],"b":[1,2]}}"#, format!("input \"b\" has 2 rows, input \"a\" has 1: {ab}")),
        (
            r#"{"instances":[{"a":[1,2],"b":1.5}]}"#,
            "JSON Value: 1.5 Type: Number is not of expected type: int64 (line 1, column 30): \
             expected input \"b\": INT64 [-1]"
                .into(),
        ),
    ] {
        assert_eq!(parse(&body(text), &double()).unwrap_err().message, message, "{text}");
    }
    let open = signature(vec![spec("s", DataType::Fp32, &[-1, -1])], vec![], true);
    let error = parse(&body(r#"{"instances":[[1,2],[3]]}"#), &open).unwrap_err();
    assert_eq!(
        error.message,
        "ragged: an array of 1 in dimension 1, where those before it have 2 (line 1, column 21): \
         expected input \"s\": FP32 [-1,-1]"
    );
    let fixed = signature(vec![spec("s", DataType::Fp32, &[2, 1])], vec![], false);
    let error = parse(&body(r#"{"instances":[[1]]}"#), &fixed).unwrap_err();
    assert!(error.message.starts_with("wrong shape: 1 elements in dimension 0, 2 are needed"), "{error}");
}

#[test]
fn replies() {
    let y = floats(&[3, 2], &[0.1, f32::NAN, 1.0, f32::INFINITY, 1e-7, 3.5]);
    let s = strings(&[3], &[b"a\n", b"\xff", "é".as_bytes()]);
    let one = |rows| prediction(vec![("y", y.clone())], rows);
    let two = |rows| prediction(vec![("y", y.clone()), ("s", s.clone())], rows);
    for (prediction, form, expected) in [
        (one(None), Form::Rows, r#"{"predictions":[[0.1,NaN],[1.0,Infinity],[1e-7,3.5]]}"#),
        (one(Some((1, 1))), Form::Rows, r#"{"predictions":[[1.0,Infinity]]}"#),
        (one(Some((2, 1))), Form::Whole, r#"{"outputs":[[1e-7,3.5]]}"#),
        (
            two(Some((0, 2))),
            Form::Rows,
            r#"{"predictions":[{"y":[0.1,NaN],"s":"a\n"},{"y":[1.0,Infinity],"s":{"b64":"/w=="}}]}"#,
        ),
        (two(Some((2, 1))), Form::Whole, r#"{"outputs":{"y":[[1e-7,3.5]],"s":["é"]}}"#),
        (
            prediction(vec![("out_bytes", s.clone())], Some((0, 1))),
            Form::Rows,
            r#"{"predictions":[{"b64":"YQo="}]}"#,
        ),
        (prediction(vec![("n", floats(&[], &[2.0]))], None), Form::Whole, r#"{"outputs":2.0}"#),
        (Prediction::Json(body("[1, NaN]")), Form::Rows, r#"{"predictions":[1, NaN]}"#),
    ] {
        assert_eq!(String::from_utf8(write(&prediction, form).unwrap()).unwrap(), expected);
    }
    let uneven = prediction(vec![("y", y), ("n", floats(&[], &[2.0]))], None);
    let error = write(&uneven, Form::Rows).unwrap_err();
    assert!(error.message.starts_with("Tensor name: n has inconsistent batch size"), "{error}");
    let error = write(&Prediction::Json(Bytes::from_static(b"[1,")), Form::Rows).unwrap_err();
    assert_eq!(error.status.as_u16(), 500);
}

#[test]
fn status_and_metadata() {
    let text = |b: Bytes| serde_json::from_slice::<serde_json::Value>(&b).unwrap();
    let loading = text(status(7, &Readiness::Starting { reason: Some("why".into()) }));
    assert_eq!(
        loading,
        serde_json::json!({"model_version_status": [{"version": "7", "state": "LOADING",
            "status": {"error_code": "UNAVAILABLE", "error_message": "why"}}]})
    );
    assert_eq!(text(status(7, &Readiness::Ready))["model_version_status"][0]["state"], "AVAILABLE");
    let metadata = text(metadata("m", 7, &single()));
    assert_eq!(
        metadata["model_spec"],
        serde_json::json!({"name": "m", "signature_name": "", "version": "7"})
    );
    let definition = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(
        definition["inputs"]["x"],
        serde_json::json!({"dtype": "DT_FLOAT", "name": "x:0", "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": false}})
    );
    assert_eq!(definition["method_name"], "tensorflow/serving/predict");
}

proptest! {
    #[test]
    fn rows_there_and_back(values in proptest::collection::vec(any::<[f32; 2]>(), 1..9)) {
        let flat: Vec<f32> = values.iter().flatten().copied().collect();
        let reply = write(&prediction(vec![("y", floats(&[values.len(), 2], &flat))], None), Form::Rows).unwrap();
        let request = String::from_utf8(reply).unwrap().replace("predictions", "instances");
        let (tensors, _) = tensors(&request, &single());
        let bits = |bytes: &[u8]| -> Vec<u32> {
            let floats = bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c));
            floats.map(|f| if f.is_nan() { 1 } else { f.to_bits() }).collect()
        };
        prop_assert_eq!(bits(tensors[0].view().bytes), bits(floats(&[0], &flat).view().bytes));
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for signature in [single(), double(), words(), free()] {
            let _ = parse(&Bytes::from(bytes.clone()), &signature);
        }
    }

    #[test]
    fn never_panics_on_what_is_nearly_right(text in "\\{\"(instances|inputs)\":[\\[\\]{},:0-9e.\"abxtN64-]{0,40}\\}?") {
        for signature in [single(), double(), words(), free()] {
            let _ = parse(&body(&text), &signature);
        }
    }
}
