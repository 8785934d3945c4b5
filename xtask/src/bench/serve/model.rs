//! The served model, one request and its right answer.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::error::Error;
use super::super::process::run;
use super::venv::Venv;

const PROGRAM: &str = include_str!("peers/make_model.py");

/// A perceptron of 64, 128 and 10 units in ONNX.
#[derive(Debug)]
pub struct Model {
    folder: PathBuf,
    row: Vec<Value>,
    answer: Vec<f64>,
}

impl Model {
    /// Makes it; the weights are the same every time.
    pub fn create(venv: &Venv, folder: PathBuf) -> Result<Self, Error> {
        let program = folder.join("make_model.py");
        std::fs::write(&program, PROGRAM).map_err(Error::io("write", &program))?;
        run(venv.command("python").arg(&program).arg(&folder), Duration::from_secs(60))?;
        let file = folder.join("request.json");
        let text = std::fs::read(&file).map_err(Error::io("read", &file))?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|e| Error::unexpected("request.json", e.to_string()))?;
        let row = value["row"].as_array().cloned().unwrap_or_default();
        let answer = numbers(&value["answer"]).unwrap_or_default();
        if row.len() != 64 || answer.len() != 10 {
            return Err(Error::unexpected(
                "request.json",
                format!("{} and {} numbers", row.len(), answer.len()),
            ));
        }
        Ok(Self { folder, row, answer })
    }

    /// The folder that holds just the ONNX file.
    pub fn folder(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// The ONNX file.
    pub fn file(&self) -> PathBuf {
        self.folder().join("model.onnx")
    }

    /// The request as TensorFlow Serving has it.
    pub fn instances(&self) -> String {
        json!({ "instances": [self.row] }).to_string()
    }

    /// The request of the Open Inference Protocol, version 2.
    pub fn inputs(&self) -> String {
        let input = json!({ "name": "x", "shape": [1, 64], "datatype": "FP32", "data": self.row });
        json!({ "inputs": [input] }).to_string()
    }

    /// Whether a server's answer is that of the model.
    pub fn agrees(&self, answer: &Value) -> bool {
        let given = numbers(&answer["predictions"][0]).or_else(|| numbers(&answer["outputs"][0]["data"]));
        given.is_some_and(|given| close(&given, &self.answer))
    }
}

fn close(given: &[f64], expected: &[f64]) -> bool {
    given.len() == expected.len() && given.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4)
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_right_answers() {
        let model = Model { folder: PathBuf::new(), row: vec![json!(0.5)], answer: vec![1.0, -2.0] };
        assert!(model.agrees(&json!({ "predictions": [[1.00001, -2.0]] })));
        assert!(model.agrees(&json!({ "outputs": [{ "name": "y", "data": [1.0, -2.0] }] })));
        assert!(!model.agrees(&json!({ "predictions": [[1.0, 2.0]] })));
        assert!(!model.agrees(&json!({ "predictions": [[1.0]] })));
        assert!(!model.agrees(&json!({ "error": "no" })));
        assert_eq!(model.instances(), r#"{"instances":[[0.5]]}"#);
    }
}
