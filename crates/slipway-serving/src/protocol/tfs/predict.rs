//! `:predict`: the row format (`instances` → `predictions`) and the column format (`inputs` → `outputs`).

use bytes::Bytes;
use slipway_types::model::{DataType, TensorSpec};

use crate::json::cursor::{Kind, locate};
use crate::json::write::{self, Strings};
use crate::json::{Cursor, SyntaxError, TensorBuilder};
use crate::model::Prediction;
use crate::protocol::ProtocolError;
use crate::signature::{DEFAULT_SIGNATURE, ModelSignature};
use crate::tensor::{Tensor, TensorView};
use crate::transport::{Inputs, JsonForm};

/// Which of the two formats a request has; its reply has the same.
pub type Form = JsonForm;

/// A request, read.
#[derive(Debug, PartialEq)]
pub struct PredictRequest {
    /// For the model.
    pub inputs: Inputs,
    /// For the reply.
    pub form: Form,
}

/// Reads a body.
pub fn parse(body: &Bytes, signature: &ModelSignature) -> Result<PredictRequest, ProtocolError> {
    let mut request = Parser { body, cursor: Cursor::new(body), signature };
    request.document()
}

struct Parser<'a> {
    body: &'a Bytes,
    cursor: Cursor<'a>,
    signature: &'a ModelSignature,
}

impl<'a> Parser<'a> {
    fn document(&mut self) -> Result<PredictRequest, ProtocolError> {
        if self.kind()? != Kind::Object {
            return Err(self.invalid("the request must be an object with `instances` or `inputs`"));
        }
        self.cursor.expect(b'{').map_err(|e| self.syntax(e))?;
        let mut found = None;
        let mut another = !self.cursor.accept(b'}');
        while another {
            let key = self.cursor.key().map_err(|e| self.syntax(e))?;
            match &*key {
                "instances" | "inputs" if found.is_some() => {
                    return Err(self
                        .invalid("`instances` and `inputs` exclude each other, and each may be given once"));
                }
                "instances" => found = Some(PredictRequest { inputs: self.rows()?, form: Form::Rows }),
                "inputs" => found = Some(PredictRequest { inputs: self.columns()?, form: Form::Whole }),
                "signature_name" => self.signature_name()?,
                _ => drop(self.cursor.skip().map_err(|e| self.syntax(e))?),
            }
            another = self.cursor.more(b'}').map_err(|e| self.syntax(e))?;
        }
        self.cursor.end().map_err(|e| self.syntax(e))?;
        found.ok_or_else(|| {
            let expects = self.signature.expects();
            ProtocolError::invalid(format!(
                "the request has neither `instances` nor `inputs`: expected {expects}"
            ))
        })
    }

    fn signature_name(&mut self) -> Result<(), ProtocolError> {
        if self.kind()? != Kind::String {
            return Err(ProtocolError::invalid("'signature_name' key must be a string value."));
        }
        let name = self.cursor.string().map_err(|e| self.syntax(e))?;
        let known = &self.signature.name;
        if name.is_empty() || *name == **known || name == DEFAULT_SIGNATURE {
            return Ok(());
        }
        let expects = self.signature.expects();
        Err(ProtocolError::invalid(format!(
            "Serving signature name: \"{name}\" not found in signature def; the model has \"{known}\": {expects}"
        )))
    }

    fn rows(&mut self) -> Result<Inputs, ProtocolError> {
        if self.kind()? != Kind::Array {
            return Err(self.invalid("`instances` must be a list"));
        }
        let start = self.cursor.position();
        if self.signature.free_form {
            return self.json(Form::Rows);
        }
        self.cursor.expect(b'[').map_err(|e| self.syntax(e))?;
        let specs = &self.signature.inputs;
        let mut builders: Vec<_> = specs.iter().map(|s| TensorBuilder::new(s.datatype, &s.shape)).collect();
        let mut count = 0;
        if !self.cursor.accept(b']') {
            for builder in &mut builders {
                builder.reserve(1, self.body.len());
            }
            loop {
                self.row(&mut builders, count)?;
                count += 1;
                if !self.cursor.more(b']').map_err(|e| self.syntax(e))? {
                    break;
                }
            }
        }
        if count == 0 {
            return Err(self.invalid("`instances` is empty"));
        }
        self.finish(builders, Some((count, start)))
    }

    fn row(&mut self, builders: &mut [TensorBuilder<'_>], row: usize) -> Result<(), ProtocolError> {
        let specs = &self.signature.inputs;
        if let ([builder], [spec]) = (&mut *builders, specs.as_slice())
            && (self.kind()? != Kind::Object || self.is_byte_string(spec)?)
        {
            return builder.row(&mut self.cursor).map_err(|f| ProtocolError::fault(self.body, f, spec));
        }
        if self.kind()? != Kind::Object {
            let message = format!("instance {row} must be an object with a key for each input");
            return Err(self.invalid(&message));
        }
        let mut seen = vec![false; specs.len()];
        self.named(row, &mut seen, |parser, index| {
            let spec = &parser.signature.inputs[index];
            builders[index].row(&mut parser.cursor).map_err(|f| ProtocolError::fault(parser.body, f, spec))
        })?;
        self.all_seen(&seen, &format!("instance {row}"))
    }

    fn columns(&mut self) -> Result<Inputs, ProtocolError> {
        if self.signature.free_form {
            return self.json(Form::Whole);
        }
        let specs = &self.signature.inputs;
        let mut builders: Vec<_> = specs.iter().map(|s| TensorBuilder::new(s.datatype, &s.shape)).collect();
        if let ([builder], [spec]) = (&mut *builders, specs.as_slice())
            && (self.kind()? != Kind::Object || self.is_byte_string(spec)?)
        {
            builder.reserve(1, self.body.len());
            builder.whole(&mut self.cursor).map_err(|f| ProtocolError::fault(self.body, f, spec))?;
            return self.finish(builders, None);
        }
        if self.kind()? != Kind::Object {
            return Err(self.invalid("`inputs` must be an object with a key for each input"));
        }
        let mut seen = vec![false; specs.len()];
        self.named(0, &mut seen, |parser, index| {
            let spec = &parser.signature.inputs[index];
            builders[index].whole(&mut parser.cursor).map_err(|f| ProtocolError::fault(parser.body, f, spec))
        })?;
        self.all_seen(&seen, "`inputs`")?;
        self.finish(builders, None)
    }

    /// Reads an object whose keys name inputs.
    fn named(
        &mut self,
        row: usize,
        seen: &mut [bool],
        mut value: impl FnMut(&mut Self, usize) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        self.cursor.expect(b'{').map_err(|e| self.syntax(e))?;
        let mut another = !self.cursor.accept(b'}');
        while another {
            self.cursor.peek();
            let at = self.cursor.position();
            let key = self.cursor.key().map_err(|e| self.syntax(e))?;
            let Some(index) = self.signature.input(&key) else {
                let message = format!("the model has no input \"{}\"", shorten(&key));
                return Err(self.invalid_at(at, &message));
            };
            if std::mem::replace(&mut seen[index], true) {
                let message = format!("input \"{key}\" is given twice in instance {row}");
                return Err(self.invalid_at(at, &message));
            }
            value(self, index)?;
            another = self.cursor.more(b'}').map_err(|e| self.syntax(e))?;
        }
        Ok(())
    }

    fn all_seen(&self, seen: &[bool], place: &str) -> Result<(), ProtocolError> {
        match seen.iter().position(|s| !s) {
            None => Ok(()),
            Some(index) => {
                let name = &self.signature.inputs[index].name;
                Err(self.invalid(&format!("{place} has no input \"{name}\"")))
            }
        }
    }

    fn finish(
        &self,
        builders: Vec<TensorBuilder<'_>>,
        rows: Option<(usize, usize)>,
    ) -> Result<Inputs, ProtocolError> {
        let mut tensors = Vec::with_capacity(builders.len());
        for (builder, spec) in builders.into_iter().zip(&self.signature.inputs) {
            tensors.push(builder.finish(rows).map_err(|f| ProtocolError::fault(self.body, f, spec))?);
        }
        check_rows(&tensors, self.signature)?;
        Ok(Inputs::Tensors(tensors))
    }

    /// The value as it stands, for a class that takes JSON.
    fn json(&mut self, form: Form) -> Result<Inputs, ProtocolError> {
        self.cursor.peek();
        let start = self.cursor.position();
        self.cursor.skip().map_err(|e| self.syntax(e))?;
        Ok(Inputs::Json { form, text: self.body.slice(start..self.cursor.position()) })
    }

    /// Whether the object that is next is a byte string for `spec`, not an object that names inputs.
    fn is_byte_string(&self, spec: &TensorSpec) -> Result<bool, ProtocolError> {
        if spec.datatype != DataType::Bytes {
            return Ok(false);
        }
        let mut look = self.cursor.clone();
        look.expect(b'{').map_err(|e| self.syntax(e))?;
        Ok(look.peek() == b'"' && look.key().map_err(|e| self.syntax(e))? == "b64" && spec.name != "b64")
    }

    fn kind(&mut self) -> Result<Kind, ProtocolError> {
        self.cursor.kind().map_err(|e| self.syntax(e))
    }

    fn syntax(&self, error: SyntaxError) -> ProtocolError {
        ProtocolError::syntax(self.body, error)
    }

    fn invalid(&self, message: &str) -> ProtocolError {
        self.invalid_at(self.cursor.position(), message)
    }

    fn invalid_at(&self, at: usize, message: &str) -> ProtocolError {
        let (line, column) = locate(self.body, at);
        let expects = self.signature.expects();
        ProtocolError::invalid(format!("{message} (line {line}, column {column}): expected {expects}"))
    }
}

/// A name of a client's, cut for an error message.
pub(crate) fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Where the first dimension is the batch, all inputs must agree on it.
pub(crate) fn check_rows(tensors: &[Tensor], signature: &ModelSignature) -> Result<(), ProtocolError> {
    if !signature.batched {
        return Ok(());
    }
    let rows = tensors.first().map_or(1, Tensor::rows);
    if rows == 0 {
        let expects = signature.expects();
        return Err(ProtocolError::invalid(format!("the request has no rows: expected {expects}")));
    }
    for (tensor, spec) in tensors.iter().zip(&signature.inputs) {
        if tensor.rows() != rows {
            let first = &signature.inputs[0].name;
            return Err(ProtocolError::invalid(format!(
                "input \"{}\" has {} rows, input \"{first}\" has {rows}: expected {}",
                spec.name,
                tensor.rows(),
                signature.expects()
            )));
        }
    }
    Ok(())
}

/// Writes a reply.
pub fn write(prediction: &Prediction, form: Form) -> Result<Vec<u8>, ProtocolError> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(match form {
        Form::Rows => b"{\"predictions\":",
        Form::Whole => b"{\"outputs\":",
    });
    match (prediction, form) {
        (Prediction::Json(text), _) => out.extend_from_slice(checked_json(text)?),
        (_, Form::Rows) => rows(&mut out, prediction)?,
        (_, Form::Whole) => columns(&mut out, prediction),
    }
    out.push(b'}');
    Ok(out)
}

/// JSON of a worker's, once it is known to be that.
pub(crate) fn checked_json(text: &Bytes) -> Result<&[u8], ProtocolError> {
    let mut cursor = Cursor::new(text);
    match cursor.skip().and_then(|_| cursor.end()) {
        Ok(()) => Ok(text),
        Err(error) => Err(ProtocolError::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            format!("the worker's JSON is malformed: {} at byte {}", error.kind, error.at),
        )),
    }
}

fn strings_of(name: &str) -> Strings {
    if name.ends_with("_bytes") { Strings::Base64 } else { Strings::Text }
}

fn rows(out: &mut Vec<u8>, prediction: &Prediction) -> Result<(), ProtocolError> {
    let tensors = prediction.tensors();
    let rows_of = |view: &TensorView<'_>| view.dims().next();
    let count = tensors.clone().next().and_then(|(_, view)| rows_of(&view));
    for (name, view) in tensors.clone() {
        if rows_of(&view).is_none() || rows_of(&view) != count {
            return Err(ProtocolError::invalid(format!(
                "Tensor name: {name} has inconsistent batch size: the outputs have no row for each instance; \
                 send the request in the column format, as `inputs`"
            )));
        }
    }
    out.push(b'[');
    if let (1, Some((name, view))) = (tensors.len(), tensors.clone().next()) {
        for row in 0..count.unwrap_or(0) {
            if row > 0 {
                out.push(b',');
            }
            write::nested_row(out, &view, row, strings_of(name));
        }
    } else {
        for row in 0..count.unwrap_or(0) {
            out.extend_from_slice(if row > 0 { b",{" } else { b"{" });
            for (i, (name, view)) in tensors.clone().enumerate() {
                key(out, i, name);
                write::nested_row(out, &view, row, strings_of(name));
            }
            out.push(b'}');
        }
    }
    out.push(b']');
    Ok(())
}

fn columns(out: &mut Vec<u8>, prediction: &Prediction) {
    let tensors = prediction.tensors();
    if let (1, Some((name, view))) = (tensors.len(), tensors.clone().next()) {
        write::nested(out, &view, strings_of(name));
        return;
    }
    out.push(b'{');
    for (i, (name, view)) in tensors.enumerate() {
        key(out, i, name);
        write::nested(out, &view, strings_of(name));
    }
    out.push(b'}');
}

fn key(out: &mut Vec<u8>, index: usize, name: &str) {
    if index > 0 {
        out.push(b',');
    }
    write::string(out, name);
    out.push(b':');
}
