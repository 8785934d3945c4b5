//! The `parameters` of requests and tensors.

use crate::json::cursor::Kind;
use crate::json::number::Number;
use crate::json::{Cursor, SyntaxError};
use crate::protocol::ProtocolError;

/// Parameters that mean something here; others are ignored, as the protocol allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Params {
    /// Bytes of an input's raw data behind the JSON.
    pub binary_data_size: Option<u64>,
    /// Whether an output is wanted as raw data.
    pub binary_data: Option<bool>,
    /// Whether all outputs are, unless they say otherwise.
    pub binary_data_output: Option<bool>,
    /// Microseconds.
    pub timeout: Option<u64>,
}

/// Reads an object of parameters.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Params, ProtocolError> {
    let text = cursor.text();
    let syntax = |e: SyntaxError| ProtocolError::syntax(text, e);
    if cursor.kind().map_err(syntax)? != Kind::Object {
        return Err(ProtocolError::invalid("`parameters` must be an object"));
    }
    let mut params = Params::default();
    cursor.expect(b'{').map_err(syntax)?;
    let mut another = !cursor.accept(b'}');
    while another {
        let key = cursor.key().map_err(syntax)?;
        match &*key {
            "binary_data_size" => params.binary_data_size = Some(number(cursor, &key)?),
            "timeout" => params.timeout = Some(number(cursor, &key)?),
            "binary_data" => params.binary_data = Some(boolean(cursor, &key)?),
            "binary_data_output" => params.binary_data_output = Some(boolean(cursor, &key)?),
            "shared_memory_region" | "shared_memory_offset" | "shared_memory_byte_size" => {
                return Err(ProtocolError::unimplemented("the shared memory extension is not supported"));
            }
            "classification" => {
                return Err(ProtocolError::unimplemented("the classification extension is not supported"));
            }
            "sequence_id" | "sequence_start" | "sequence_end" => {
                return Err(ProtocolError::unimplemented("the sequence extension is not supported"));
            }
            _ => drop(cursor.skip().map_err(syntax)?),
        }
        another = cursor.more(b'}').map_err(syntax)?;
    }
    Ok(params)
}

fn number(cursor: &mut Cursor<'_>, key: &str) -> Result<u64, ProtocolError> {
    let text = cursor.text();
    let syntax = |e: SyntaxError| ProtocolError::syntax(text, e);
    let value = match cursor.kind().map_err(syntax)? {
        Kind::Number => match cursor.number().map_err(syntax)? {
            Number::Integer { negative: false, magnitude, .. } => magnitude,
            _ => None,
        },
        _ => None,
    };
    value.ok_or_else(|| {
        ProtocolError::invalid(format!("the parameter `{key}` must be a number that is not negative"))
    })
}

fn boolean(cursor: &mut Cursor<'_>, key: &str) -> Result<bool, ProtocolError> {
    let text = cursor.text();
    let syntax = |e: SyntaxError| ProtocolError::syntax(text, e);
    match cursor.kind().map_err(syntax)? {
        Kind::Bool => cursor.boolean().map_err(syntax),
        _ => Err(ProtocolError::invalid(format!("the parameter `{key}` must be true or false"))),
    }
}
