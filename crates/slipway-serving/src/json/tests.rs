//! Tensors from JSON and back.

use proptest::prelude::*;
use slipway_types::model::DataType;

use super::write::{self, Strings};
use super::{Cursor, Fault, TensorBuilder};
use crate::signature::ALL_TYPES;
use crate::tensor::Tensor;

fn read(text: &str, datatype: DataType, shape: &[i64]) -> Result<Tensor, Fault> {
    let mut cursor = Cursor::new(text.as_bytes());
    let mut builder = TensorBuilder::new(datatype, shape);
    builder.whole(&mut cursor)?;
    cursor.end()?;
    builder.finish(None)
}

fn nested(tensor: &Tensor) -> String {
    let mut out = Vec::new();
    write::nested(&mut out, &tensor.view(), Strings::Text);
    String::from_utf8(out).unwrap()
}

#[test]
fn every_type_there_and_back() {
    for datatype in ALL_TYPES {
        let text = match datatype {
            DataType::Bool => "[[true,false],[false,true]]",
            DataType::Bytes => r#"[["a\"b","é"],["",{"b64":"/w=="}]]"#,
            DataType::Fp16 | DataType::Fp32 | DataType::Fp64 | DataType::Bf16 => {
                "[[1.5,-0.25],[NaN,-Infinity]]"
            }
            _ => "[[1,2],[3,127]]",
        };
        let tensor = read(text, datatype, &[-1, 2]).unwrap();
        assert_eq!((nested(&tensor).as_str(), &tensor.shape[..]), (text, &[2, 2][..]), "{datatype:?}");
    }
    assert_eq!(nested(&read("3", DataType::Fp64, &[]).unwrap()), "3.0");
    assert_eq!(nested(&read("[[],[]]", DataType::Fp64, &[-1, -1]).unwrap()), "[[],[]]");
    assert_eq!(read("[]", DataType::Fp64, &[-1, -1, 3]).unwrap().shape, [0, 0, 3]);
}

#[test]
fn says_what_does_not_fit() {
    use DataType::{Bool, Bytes, Fp16, Fp32, Int8, Int32, Uint64};
    for (text, datatype, shape, at, message) in [
        ("[1,\"a\"]", Fp32, &[-1][..], 3, "JSON Value: \"a\" Type: String is not of expected type: float"),
        ("[1.0]", Int32, &[-1], 1, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ("[NaN]", Int32, &[-1], 1, "JSON Value: NaN Type: Number is not of expected type: int32"),
        ("[1]", Bool, &[-1], 1, "JSON Value: 1 Type: Number is not of expected type: bool"),
        ("[null]", Bytes, &[-1], 1, "JSON Value: null Type: Null is not of expected type: string"),
        ("[128]", Int8, &[-1], 1, "128 is out of the range of INT8"),
        ("[-1]", Uint64, &[-1], 1, "-1 is out of the range of UINT64"),
        ("[18446744073709551616]", Uint64, &[-1], 1, "18446744073709551616 is out of the range of UINT64"),
        ("[1e39]", Fp32, &[-1], 1, "1e39 is out of the range of FP32"),
        ("[65520]", Fp16, &[-1], 1, "65520 is out of the range of FP16"),
        (
            "[[1,2],[3]]",
            Fp32,
            &[-1, -1],
            7,
            "ragged: an array of 1 in dimension 1, where those before it have 2",
        ),
        ("[[1,2],[3,4,5]]", Fp32, &[-1, 2], 7, "wrong shape: 3 elements in dimension 1, 2 are needed"),
        ("[[1]]", Fp32, &[2, 1], 0, "wrong shape: 1 elements in dimension 0, 2 are needed"),
        ("[1]", Fp32, &[-1, 1], 1, "expected an array in dimension 1, found 1 (Number)"),
        ("7", Fp32, &[-1], 0, "expected an array, found 7 (Number)"),
        ("[[1]]", Fp32, &[-1], 1, "JSON Value: [1] Type: Array is not of expected type: float"),
        ("[1]", Fp32, &[], 0, "an array with more than 0 dimensions"),
        ("[{\"b64\":\"*\"}]", Bytes, &[-1], 1, "`b64` is not base64: Invalid symbol 42, offset 0."),
        ("[{\"x\":1}]", Bytes, &[-1], 1, "expected a string or an object with the one key `b64`"),
    ] {
        assert_eq!(read(text, datatype, shape), Err(Fault::value(at, message)), "{text}");
    }
}

#[test]
fn limits_of_every_integer_type() {
    for (text, datatype) in [
        ("[0,255]", DataType::Uint8),
        ("[0,65535]", DataType::Uint16),
        ("[0,4294967295]", DataType::Uint32),
        ("[0,18446744073709551615]", DataType::Uint64),
        ("[-128,127]", DataType::Int8),
        ("[-32768,32767]", DataType::Int16),
        ("[-2147483648,2147483647]", DataType::Int32),
        ("[-9223372036854775808,9223372036854775807]", DataType::Int64),
    ] {
        assert_eq!(nested(&read(text, datatype, &[-1]).unwrap()), text);
    }
}

proptest! {
    #[test]
    fn singles_there_and_back(values in proptest::collection::vec(any::<f32>(), 0..20)) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = Tensor {
            datatype: DataType::Fp32,
            shape: vec![values.len()],
            data: crate::tensor::TensorData::Fixed(bytes.into()),
        };
        let again = read(&nested(&tensor), DataType::Fp32, &[-1]).unwrap();
        let floats: Vec<f32> = again.view().bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
        for (a, b) in floats.iter().zip(&values) {
            prop_assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
        }
    }

    #[test]
    fn strings_there_and_back(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9)) {
        let mut offsets = vec![0];
        let bytes = values.concat();
        for value in &values {
            offsets.push(offsets[offsets.len() - 1] + value.len() as u64);
        }
        let tensor = Tensor {
            datatype: DataType::Bytes,
            shape: vec![values.len()],
            data: crate::tensor::TensorData::Strings { offsets, bytes: bytes.into() },
        };
        prop_assert_eq!(read(&nested(&tensor), DataType::Bytes, &[-1]).unwrap(), tensor);
    }

    #[test]
    fn never_panics(text in "[\\[\\]{},:0-9eE.+\"b64Nautrfl-]{0,40}", kind in 0..14_usize, rank in 0..4_usize) {
        let _ = read(&text, ALL_TYPES[kind], &vec![-1; rank]);
    }
}
