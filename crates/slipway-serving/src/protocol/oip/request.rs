//! `POST …/infer`: the request.

use std::time::Duration;

use bytes::Bytes;
use slipway_types::model::{DataType, TensorSpec};

use super::params::{self, Params};
use crate::json::cursor::{Kind, locate};
use crate::json::number::Number;
use crate::json::{Cursor, SyntaxError, TensorBuilder};
use crate::protocol::ProtocolError;
use crate::protocol::tfs::{check_rows, shorten};
use crate::signature::{
    MAX_NAME, MAX_RANK, MAX_TENSORS, ModelSignature, describe, type_from_name, type_name,
};
use crate::tensor::{NamedTensor, Tensor, TensorData};
use crate::transport::Inputs;

/// A request, read.
#[derive(Debug, PartialEq)]
pub struct InferRequest {
    /// Comes back in the reply.
    pub id: Option<String>,
    /// For the model.
    pub inputs: Inputs,
    /// For the reply.
    pub wanted: Wanted,
    /// Time that the client gives it.
    pub timeout: Option<Duration>,
}

/// Which outputs the reply shall have, and how.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names, and whether each is to be raw; all outputs where it is empty.
    pub outputs: Vec<(String, Option<bool>)>,
    /// Whether outputs are raw that do not say.
    pub binary: bool,
}

/// Reads a body. `json_len` is the value of [`super::BINARY_HEADER`].
pub fn parse(
    body: &Bytes,
    json_len: Option<usize>,
    signature: &ModelSignature,
) -> Result<InferRequest, ProtocolError> {
    let json_len = json_len.unwrap_or(body.len());
    if json_len > body.len() {
        return Err(ProtocolError::invalid(format!(
            "Inference-Header-Content-Length is {json_len}, but the body has only {} bytes",
            body.len()
        )));
    }
    if json_len == 0 && !body.is_empty() {
        return raw(body, signature);
    }
    let json = body.slice(..json_len);
    let mut parser = Parser {
        text: &json,
        cursor: Cursor::new(&json),
        signature,
        raw: body.slice(json_len..),
        raw_used: 0,
    };
    let request = parser.document()?;
    if parser.raw_used != parser.raw.len() {
        return Err(ProtocolError::invalid(format!(
            "{} bytes follow the JSON, but the inputs' binary_data_size add up to {}",
            parser.raw.len(),
            parser.raw_used
        )));
    }
    Ok(request)
}

/// A body without JSON: the elements of the one input; all outputs come back raw.
fn raw(body: &Bytes, signature: &ModelSignature) -> Result<InferRequest, ProtocolError> {
    let expects = signature.expects();
    let refuse = |why: &str| ProtocolError::invalid(format!("a raw request needs {why}: expected {expects}"));
    let [spec] = signature.inputs.as_slice() else { return Err(refuse("a model with one input")) };
    let size = spec.datatype.size().ok_or_else(|| refuse("elements of a fixed size"))?;
    if spec.shape.iter().filter(|&&d| d == -1).count() > 1 {
        return Err(refuse("a shape with at most one variable dimension"));
    }
    let fixed: usize =
        spec.shape.iter().filter_map(|&d| usize::try_from(d).ok()).fold(size, usize::saturating_mul);
    let open = spec.shape.contains(&-1);
    if fixed == 0 || !body.len().is_multiple_of(fixed) || (!open && body.len() != fixed) {
        return Err(refuse(&format!("a multiple of {fixed} bytes, not {}", body.len())));
    }
    let shape = spec.shape.iter().map(|&d| usize::try_from(d).unwrap_or(body.len() / fixed)).collect();
    let tensor = Tensor { datatype: spec.datatype, shape, data: TensorData::Fixed(body.clone()) };
    let tensors = vec![tensor];
    check_rows(&tensors, signature)?;
    let wanted = Wanted { outputs: Vec::new(), binary: true };
    Ok(InferRequest { id: None, inputs: Inputs::Tensors(tensors), wanted, timeout: None })
}

struct Parser<'a> {
    text: &'a Bytes,
    cursor: Cursor<'a>,
    signature: &'a ModelSignature,
    raw: Bytes,
    raw_used: usize,
}

/// An input whose `data` may come before what says how to read it.
#[derive(Default)]
struct Input {
    name: Option<String>,
    datatype: Option<DataType>,
    shape: Option<Vec<i64>>,
    data: Option<usize>,
    tensor: Option<Tensor>,
    params: Params,
}

impl<'a> Parser<'a> {
    fn document(&mut self) -> Result<InferRequest, ProtocolError> {
        if self.kind()? != Kind::Object {
            return Err(self.expected("the request must be an object with `inputs`"));
        }
        self.take(b'{')?;
        let (mut id, mut inputs, mut wanted, mut params) = (None, None, Wanted::default(), Params::default());
        let mut another = !self.cursor.accept(b'}');
        while another {
            let key = self.key()?;
            match key.as_str() {
                "id" => id = Some(self.string("id")?),
                "inputs" if inputs.is_some() => return Err(self.expected("`inputs` is given twice")),
                "inputs" => inputs = Some(self.inputs()?),
                "outputs" => wanted.outputs = self.outputs()?,
                "parameters" => params = params::read(&mut self.cursor)?,
                _ => self.skip()?,
            }
            another = self.more(b'}')?;
        }
        self.cursor.end().map_err(|e| self.syntax(e))?;
        let inputs = inputs.ok_or_else(|| self.expected("the request has no `inputs`"))?;
        wanted.binary = params.binary_data_output.unwrap_or(false);
        let timeout = params.timeout.filter(|&t| t > 0).map(Duration::from_micros);
        Ok(InferRequest { id, inputs, wanted, timeout })
    }

    fn inputs(&mut self) -> Result<Inputs, ProtocolError> {
        if self.kind()? != Kind::Array {
            return Err(self.expected("`inputs` must be a list"));
        }
        self.take(b'[')?;
        let mut named: Vec<NamedTensor> = Vec::new();
        let mut another = !self.cursor.accept(b']');
        while another {
            if named.len() == MAX_TENSORS {
                return Err(self.expected("there are too many inputs"));
            }
            let input = self.input()?;
            if named.iter().any(|n| n.name == input.name) {
                return Err(self.expected(&format!("input \"{}\" is given twice", input.name)));
            }
            named.push(input);
            another = self.more(b']')?;
        }
        if self.signature.free_form {
            return Ok(Inputs::Named(named));
        }
        let mut tensors = Vec::with_capacity(self.signature.inputs.len());
        for spec in &self.signature.inputs {
            let Some(index) = named.iter().position(|n| n.name == spec.name) else {
                return Err(self.expected(&format!("`inputs` has no input \"{}\"", spec.name)));
            };
            tensors.push(named.swap_remove(index).tensor);
        }
        check_rows(&tensors, self.signature)?;
        Ok(Inputs::Tensors(tensors))
    }

    fn input(&mut self) -> Result<NamedTensor, ProtocolError> {
        if self.kind()? != Kind::Object {
            return Err(self.expected("each of `inputs` must be an object"));
        }
        self.take(b'{')?;
        let mut input = Input::default();
        let mut another = !self.cursor.accept(b'}');
        while another {
            let key = self.key()?;
            match key.as_str() {
                "name" => input.name = Some(self.name()?),
                "datatype" => input.datatype = Some(self.datatype()?),
                "shape" => input.shape = Some(self.shape()?),
                "parameters" => input.params = params::read(&mut self.cursor)?,
                "data" => {
                    self.cursor.peek();
                    let at = self.cursor.position();
                    input.data = Some(at);
                    match self.spec(&input)? {
                        Some(spec) => {
                            input.tensor = Some(self.data(&spec)?);
                        }
                        None => self.skip()?,
                    }
                }
                _ => self.skip()?,
            }
            another = self.more(b'}')?;
        }
        let Some(spec) = self.spec(&input)? else {
            return Err(self.expected("each of `inputs` needs `name`, `datatype` and `shape`"));
        };
        let tensor = match (input.tensor, input.data, input.params.binary_data_size) {
            (_, Some(_), Some(_)) => {
                let message = format!("input \"{}\" has both `data` and `binary_data_size`", spec.name);
                return Err(self.expected(&message));
            }
            (Some(tensor), ..) => tensor,
            (None, Some(at), None) => {
                let back = std::mem::replace(&mut self.cursor, Cursor::at(self.text, at));
                let tensor = self.data(&spec)?;
                self.cursor = back;
                tensor
            }
            (None, None, Some(size)) => self.binary(&spec, size)?,
            (None, None, None) => {
                return Err(self.expected(&format!("input \"{}\" has no `data`", spec.name)));
            }
        };
        Ok(NamedTensor { name: spec.name, tensor })
    }

    /// What the request says about an input, once it said all of it and the signature accepts it.
    fn spec(&self, input: &Input) -> Result<Option<TensorSpec>, ProtocolError> {
        let (Some(name), Some(datatype), Some(shape)) = (&input.name, input.datatype, &input.shape) else {
            return Ok(None);
        };
        let spec = TensorSpec { name: name.clone(), datatype, shape: shape.clone() };
        if self.signature.free_form {
            return Ok(Some(spec));
        }
        let Some(index) = self.signature.input(name) else {
            return Err(self.expected(&format!("the model has no input \"{}\"", shorten(name))));
        };
        let accepted = &self.signature.inputs[index];
        let expected = |message: String| {
            ProtocolError::invalid(format!("{message}: expected input {}", describe(accepted)))
        };
        if datatype != accepted.datatype {
            return Err(expected(format!("input \"{name}\" has the datatype {}", type_name(datatype))));
        }
        let fits = shape.len() == accepted.shape.len()
            && shape.iter().zip(&accepted.shape).all(|(have, want)| *want == -1 || have == want);
        if !fits {
            return Err(expected(format!("input \"{name}\" has the shape {shape:?}")));
        }
        Ok(Some(spec))
    }

    fn data(&mut self, spec: &TensorSpec) -> Result<Tensor, ProtocolError> {
        let text = self.text;
        let fault = |f| ProtocolError::fault(text, f, spec);
        if self.kind()? != Kind::Array {
            return Err(self.expected(&format!("`data` of input \"{}\" must be a list", spec.name)));
        }
        let mut look = self.cursor.clone();
        look.expect(b'[').map_err(|e| self.syntax(e))?;
        let nested = look.peek() == b'[';
        let mut builder = TensorBuilder::new(spec.datatype, &spec.shape);
        builder.reserve(spec.shape.first().and_then(|&d| usize::try_from(d).ok()).unwrap_or(1), text.len());
        if nested {
            builder.whole(&mut self.cursor).map_err(fault)?;
        } else {
            builder.flat(&mut self.cursor).map_err(fault)?;
        }
        builder.finish(None).map_err(fault)
    }

    fn binary(&mut self, spec: &TensorSpec, size: u64) -> Result<Tensor, ProtocolError> {
        let expected =
            |message: String| ProtocolError::invalid(format!("{message}: input {}", describe(spec)));
        let end = usize::try_from(size).ok().and_then(|s| self.raw_used.checked_add(s));
        let Some(end) = end.filter(|&e| e <= self.raw.len()) else {
            return Err(expected(format!(
                "binary_data_size is {size}, but only {} bytes follow the JSON",
                self.raw.len()
            )));
        };
        let bytes = self.raw.slice(self.raw_used..end);
        self.raw_used = end;
        let elements = spec.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        let shape = spec.shape.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        let data = match spec.datatype.size() {
            Some(size) => {
                let needed = elements.and_then(|n| n.checked_mul(size));
                if needed != Some(bytes.len()) {
                    let needed = needed.map_or("too many".to_owned(), |n| n.to_string());
                    return Err(expected(format!("{} bytes of data, the shape needs {needed}", bytes.len())));
                }
                TensorData::Fixed(bytes)
            }
            None => strings(&bytes, elements).ok_or_else(|| {
                expected(
                    "the data is not one length of 4 bytes and as many bytes for each element".to_owned(),
                )
            })?,
        };
        Ok(Tensor { datatype: spec.datatype, shape, data })
    }

    fn outputs(&mut self) -> Result<Vec<(String, Option<bool>)>, ProtocolError> {
        if self.kind()? != Kind::Array {
            return Err(ProtocolError::invalid("`outputs` must be a list"));
        }
        self.take(b'[')?;
        let mut outputs: Vec<(String, Option<bool>)> = Vec::new();
        let mut another = !self.cursor.accept(b']');
        while another {
            if self.kind()? != Kind::Object {
                return Err(ProtocolError::invalid("each of `outputs` must be an object with a `name`"));
            }
            self.take(b'{')?;
            let (mut name, mut params) = (None, Params::default());
            let mut inner = !self.cursor.accept(b'}');
            while inner {
                let key = self.key()?;
                match key.as_str() {
                    "name" => name = Some(self.name()?),
                    "parameters" => params = params::read(&mut self.cursor)?,
                    _ => self.skip()?,
                }
                inner = self.more(b'}')?;
            }
            let name = name.ok_or_else(|| ProtocolError::invalid("each of `outputs` needs a `name`"))?;
            let known = &self.signature.outputs;
            if !known.is_empty() && !known.iter().any(|s| s.name == name) {
                return Err(super::reply::unknown_output(&name, known.iter().map(|s| s.name.as_str())));
            }
            if outputs.len() == MAX_TENSORS || outputs.iter().any(|(n, _)| *n == name) {
                return Err(ProtocolError::invalid(format!("output \"{name}\" is asked for twice")));
            }
            outputs.push((name, params.binary_data));
            another = self.more(b']')?;
        }
        Ok(outputs)
    }

    fn name(&mut self) -> Result<String, ProtocolError> {
        let name = self.string("name")?;
        if name.len() > MAX_NAME {
            return Err(ProtocolError::invalid(format!("the name \"{}…\" is too long", shorten(&name))));
        }
        Ok(name)
    }

    fn datatype(&mut self) -> Result<DataType, ProtocolError> {
        let name = self.string("datatype")?;
        type_from_name(&name)
            .ok_or_else(|| self.expected(&format!("\"{}\" is not a datatype", shorten(&name))))
    }

    fn shape(&mut self) -> Result<Vec<i64>, ProtocolError> {
        if self.kind()? != Kind::Array {
            return Err(self.expected("`shape` must be a list of sizes"));
        }
        self.take(b'[')?;
        let mut shape = Vec::new();
        let mut another = !self.cursor.accept(b']');
        while another {
            let dim = match self.kind()? {
                Kind::Number => match self.cursor.number().map_err(|e| self.syntax(e))? {
                    Number::Integer { negative: false, magnitude: Some(dim), .. } => i32::try_from(dim).ok(),
                    _ => None,
                },
                _ => None,
            };
            let Some(dim) = dim.filter(|_| shape.len() < MAX_RANK) else {
                return Err(self.expected("`shape` must be a list of sizes that are not negative"));
            };
            shape.push(i64::from(dim));
            another = self.more(b']')?;
        }
        Ok(shape)
    }

    fn string(&mut self, key: &str) -> Result<String, ProtocolError> {
        if self.kind()? != Kind::String {
            return Err(ProtocolError::invalid(format!("`{key}` must be a string")));
        }
        self.cursor.string().map(Into::into).map_err(|e| self.syntax(e))
    }

    fn key(&mut self) -> Result<String, ProtocolError> {
        self.cursor.key().map(Into::into).map_err(|e| self.syntax(e))
    }

    fn kind(&mut self) -> Result<Kind, ProtocolError> {
        self.cursor.kind().map_err(|e| self.syntax(e))
    }

    fn take(&mut self, byte: u8) -> Result<(), ProtocolError> {
        self.cursor.expect(byte).map_err(|e| self.syntax(e))
    }

    fn more(&mut self, close: u8) -> Result<bool, ProtocolError> {
        self.cursor.more(close).map_err(|e| self.syntax(e))
    }

    fn skip(&mut self) -> Result<(), ProtocolError> {
        self.cursor.skip().map(drop).map_err(|e| self.syntax(e))
    }

    fn syntax(&self, error: SyntaxError) -> ProtocolError {
        ProtocolError::syntax(self.text, error)
    }

    fn expected(&self, message: &str) -> ProtocolError {
        let (line, column) = locate(self.text, self.cursor.position());
        let expects = self.signature.expects();
        ProtocolError::invalid(format!("{message} (line {line}, column {column}): expected {expects}"))
    }
}

/// Byte strings, each after its length of 4 bytes.
fn strings(raw: &[u8], elements: Option<usize>) -> Option<TensorData> {
    let elements = elements.filter(|&n| n <= raw.len() / 4)?;
    let mut offsets = Vec::with_capacity(elements + 1);
    let mut bytes = Vec::with_capacity(raw.len() - elements * 4);
    offsets.push(0);
    let mut rest = raw;
    for _ in 0..elements {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (element, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        bytes.extend_from_slice(element);
        offsets.push(bytes.len() as u64);
        rest = tail;
    }
    rest.is_empty().then(|| TensorData::Strings { offsets, bytes: bytes.into() })
}
