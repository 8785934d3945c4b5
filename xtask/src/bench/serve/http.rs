//! Just enough HTTP to ask a server one question: load comes from wrk.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// No answer may be longer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Sends JSON and reads the status and the JSON that comes back.
pub fn post(address: SocketAddr, path: &str, body: &str, limit: Duration) -> Result<(u16, Value), String> {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    };
    parse(&ask().map_err(|e| e.to_string())?)
}

fn parse(answer: &[u8]) -> Result<(u16, Value), String> {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no HTTP answer")?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    // From the first to the last brace: a body in one chunk reads like one that is not chunked.
    let json = match (body.find('{'), body.rfind('}')) {
        (Some(from), Some(to)) if from < to => serde_json::from_str(&body[from..=to]).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    Ok((status, json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_and_chunked_answers() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(plain), Ok((200, serde_json::json!({"a": 1}))));
        let chunked = b"HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Ok((503, serde_json::json!({"a": 1}))));
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\n\r\n"), Ok((404, Value::Null)));
        assert!(parse(b"").is_err());
    }
}
