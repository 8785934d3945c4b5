//! What a loaded model takes and gives, as its worker reports it.

use serde::{Deserialize, Serialize};
use slipway_types::model::{DataType, TensorSpec};

/// Most inputs or outputs of a model.
pub const MAX_TENSORS: usize = 256;
/// Most dimensions of a tensor; NumPy's limit was 32 until 2.0.
pub const MAX_RANK: usize = 32;
/// Longest name of an input or output, in bytes.
pub const MAX_NAME: usize = 1024;
/// The signature name that requests may leave out, as TensorFlow Serving calls it.
pub const DEFAULT_SIGNATURE: &str = "serving_default";

/// A model's signature and how requests may be merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSignature {
    /// Its name.
    pub name: String,
    /// What kind of model it is, as the Open Inference Protocol's `platform`, for example `onnx_onnxruntime`.
    pub platform: String,
    /// Inputs, in the order in which the worker expects them; empty when `free_form`.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in order; empty when only the reply will tell.
    pub outputs: Vec<TensorSpec>,
    /// Whether the first dimension of every tensor is the batch, so that requests may be merged.
    pub batched: bool,
    /// A class of the user's without a declared signature: it takes parsed JSON, not tensors.
    pub free_form: bool,
}

/// Why a signature that a worker reported is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not the JSON of a signature.
    #[error("the signature is not valid: {0}")]
    Malformed(String),
    /// Too many inputs or outputs.
    #[error("the signature has {0} tensors, at most {MAX_TENSORS} are supported")]
    TooMany(usize),
    /// Two tensors of one name, or a name that is empty or too long.
    #[error("the signature has a tensor name that is empty, too long or used twice: `{0}`")]
    Name(String),
    /// Rank or dimension out of range.
    #[error("the shape of `{0}` is not valid: dimensions are -1 or more, at most {MAX_RANK} of them")]
    Shape(String),
    /// Neither inputs nor free-form.
    #[error("the signature has no inputs")]
    NoInputs,
    /// Said to be batched, but a tensor has no variable first dimension.
    #[error("the signature is marked as batched, but the first dimension of `{0}` is not -1")]
    NotBatched(String),
}

impl ModelSignature {
    /// Reads and checks what a worker reported, as JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SignatureError> {
        let signature: Self =
            serde_json::from_slice(bytes).map_err(|e| SignatureError::Malformed(e.to_string()))?;
        signature.check()?;
        Ok(signature)
    }

    /// Checks names, counts and shapes.
    pub fn check(&self) -> Result<(), SignatureError> {
        if self.inputs.is_empty() && !self.free_form {
            return Err(SignatureError::NoInputs);
        }
        for specs in [&self.inputs, &self.outputs] {
            if specs.len() > MAX_TENSORS {
                return Err(SignatureError::TooMany(specs.len()));
            }
            for (i, spec) in specs.iter().enumerate() {
                let name = &spec.name;
                if name.is_empty() || name.len() > MAX_NAME || specs[..i].iter().any(|s| s.name == *name) {
                    return Err(SignatureError::Name(name.chars().take(80).collect()));
                }
                if spec.shape.len() > MAX_RANK
                    || spec.shape.iter().any(|&d| d < -1 || d > i64::from(i32::MAX))
                {
                    return Err(SignatureError::Shape(name.clone()));
                }
                if self.batched && spec.shape.first() != Some(&-1) {
                    return Err(SignatureError::NotBatched(name.clone()));
                }
            }
        }
        Ok(())
    }

    /// Position of an input.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|s| s.name == name)
    }

    /// All inputs for an error message: `input "image": FP32 [-1,28,28,1]; input "mask": …`.
    pub fn expects(&self) -> String {
        if self.inputs.is_empty() {
            return "free-form JSON".to_owned();
        }
        let inputs: Vec<_> = self.inputs.iter().map(|s| format!("input {}", describe(s))).collect();
        inputs.join("; ")
    }
}

/// One tensor for people: `"image": FP32 [-1,28,28,1]`.
pub fn describe(spec: &TensorSpec) -> String {
    let dims: Vec<_> = spec.shape.iter().map(i64::to_string).collect();
    format!("\"{}\": {} [{}]", spec.name, type_name(spec.datatype), dims.join(","))
}

/// The Open Inference Protocol's name of an element type.
pub fn type_name(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "BOOL",
        DataType::Uint8 => "UINT8",
        DataType::Uint16 => "UINT16",
        DataType::Uint32 => "UINT32",
        DataType::Uint64 => "UINT64",
        DataType::Int8 => "INT8",
        DataType::Int16 => "INT16",
        DataType::Int32 => "INT32",
        DataType::Int64 => "INT64",
        DataType::Fp16 => "FP16",
        DataType::Fp32 => "FP32",
        DataType::Fp64 => "FP64",
        DataType::Bf16 => "BF16",
        DataType::Bytes => "BYTES",
    }
}

/// The element type that a name of the Open Inference Protocol means.
pub fn type_from_name(name: &str) -> Option<DataType> {
    ALL_TYPES.into_iter().find(|t| type_name(*t) == name)
}

/// Every element type; the position is its code on the wire to the worker.
pub const ALL_TYPES: [DataType; 14] = [
    DataType::Bool,
    DataType::Uint8,
    DataType::Uint16,
    DataType::Uint32,
    DataType::Uint64,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::Fp16,
    DataType::Fp32,
    DataType::Fp64,
    DataType::Bf16,
    DataType::Bytes,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: shape.to_vec() }
    }

    fn signature(inputs: Vec<TensorSpec>, batched: bool) -> ModelSignature {
        ModelSignature {
            name: DEFAULT_SIGNATURE.into(),
            platform: "test".into(),
            inputs,
            outputs: vec![],
            batched,
            free_form: false,
        }
    }

    #[test]
    fn names_its_inputs() {
        let signature = signature(vec![spec("image", &[-1, 28, 28, 1]), spec("n", &[])], false);
        assert_eq!(signature.expects(), r#"input "image": FP32 [-1,28,28,1]; input "n": FP32 []"#);
    }

    #[test]
    fn refuses_what_cannot_be_served() {
        use SignatureError as E;
        let many: Vec<_> = (0..257).map(|i| spec(&format!("i{i}"), &[-1])).collect();
        for (inputs, batched, error) in [
            (vec![], false, E::NoInputs),
            (many, false, E::TooMany(257)),
            (vec![spec("a", &[-1]), spec("a", &[-1])], true, E::Name("a".into())),
            (vec![spec("", &[-1])], true, E::Name(String::new())),
            (vec![spec("a", &[-2])], false, E::Shape("a".into())),
            (vec![spec("a", &[1; 33])], false, E::Shape("a".into())),
            (vec![spec("a", &[1, 2])], true, E::NotBatched("a".into())),
            (vec![spec("a", &[])], true, E::NotBatched("a".into())),
        ] {
            assert_eq!(signature(inputs, batched).check(), Err(error));
        }
        assert!(matches!(ModelSignature::from_json(b"{}"), Err(E::Malformed(_))));
    }

    #[test]
    fn type_names_are_those_of_serde() {
        for datatype in ALL_TYPES {
            assert_eq!(serde_json::to_value(datatype).unwrap(), type_name(datatype));
            assert_eq!(type_from_name(type_name(datatype)), Some(datatype));
        }
        assert_eq!(type_from_name("fp32"), None);
    }
}
