//! `slipway predict`

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use slipway_types::engine::NATIVE;
use slipway_types::service::ServiceStatus;
use slipway_types::{ApiError, ErrorCode, name};

use super::Context;
use crate::failure::{self, Failure, exit};
use crate::query;

/// How long a service's address is waited for.
const ADDRESS_LIMIT: Duration = Duration::from_secs(10);

/// Send one request to a service through the gateway before it and print the answer
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Body of the request: `{"instances": …}`, `{"inputs": …}` (TensorFlow Serving), or with `--v2` the Open
    /// Inference Protocol's
    #[arg(long, value_name = "TEXT", conflicts_with = "file", required_unless_present = "file")]
    json: Option<String>,
    /// Read the body from a file, `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Use the Open Inference Protocol v2
    #[arg(long)]
    v2: bool,
    /// Version of the model [default: the one that is served]
    #[arg(long, value_name = "NUMBER")]
    version: Option<u64>,
    /// Service
    #[arg(value_name = "SERVICE")]
    service: String,
}

/// Predicts.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    if !name::is_valid(&args.service) {
        return Err(Failure::usage(format!("`{}` is not a service name: {}", args.service, name::RULE)));
    }
    let body = body(args)?;
    let service = name::segment(&args.service);
    let version = args.version.map(|version| format!("/versions/{version}")).unwrap_or_default();
    let path = if args.v2 {
        format!("/v2/models/{service}{version}/infer")
    } else {
        format!("/v1/models/{service}{version}:predict")
    };
    let (address, of) = match elsewhere(context, &args.service)? {
        Some(address) => (address, "the cluster"),
        None => (context.settings.values.gateway.listen.clone(), "the gateway"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::from(ApiError::new(ErrorCode::Internal, format!("cannot start: {e}"))))?;
    let (status, answer) = runtime.block_on(post(&address, &path, body)).map_err(|reason| {
        let mut error = ApiError::new(ErrorCode::Unavailable, format!("no answer from {of} at {address}"));
        error.causes.push(reason);
        let hint = if of == "the gateway" {
            "`slipway services` lists what is served; the gateway starts with the first service"
        } else {
            "names that end in `.svc` are known in the cluster alone: `slipway expose SERVICE --type NodePort` opens a way in"
        };
        error.hint = Some(hint.into());
        Failure { error: Some(error), exit_code: exit::UNREACHABLE }
    })?;
    let text = String::from_utf8_lossy(&answer);
    if status.is_success() {
        context.printer.line(text.trim_end());
        return Ok(0);
    }
    let reason = serde_json::from_slice::<serde_json::Value>(&answer)
        .ok()
        .and_then(|v| v["error"].as_str().map(str::to_owned))
        .unwrap_or_else(|| text.trim().to_owned());
    let code = match status.as_u16() {
        404 => ErrorCode::NotFound,
        400..=499 => ErrorCode::InvalidArgument,
        _ => ErrorCode::Failed,
    };
    Err(ApiError::new(code, format!("{status}: {reason}")).into())
}

fn is_unknown(failure: &Failure) -> bool {
    failure.error.as_ref().is_some_and(|error| error.code == ErrorCode::NotFound)
}

/// Host and port of a service that is not on this host.
fn elsewhere(context: &Context, service: &str) -> Result<Option<String>, Failure> {
    let began = Instant::now();
    let status = loop {
        // The gateway here answers without a daemon, and says itself what it does not serve.
        let path = query::path("/v1/service", &[("name", service)]);
        let status = context.client().and_then(|client| client.get::<ServiceStatus>(&path));
        let status = match status {
            Ok(status) => status,
            Err(failure) if failure.exit_code == exit::UNREACHABLE || is_unknown(&failure) => {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        if status.engine == NATIVE || status.engine.is_empty() {
            return Ok(None);
        }
        // A daemon that has just started looks at its clusters first.
        if !status.url.is_empty() || began.elapsed() > ADDRESS_LIMIT {
            break status;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if let Some(host) = status.url.strip_prefix("http://") {
        let host = host.trim_end_matches('/');
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        return Ok(Some(if has_port { host.to_owned() } else { format!("{host}:80") }));
    }
    if status.url.is_empty() {
        let mut error = ApiError::new(ErrorCode::Unavailable, format!("`{service}` has no address"));
        error.causes.extend(status.pending);
        return Err(error.into());
    }
    let message = format!("`predict` does not speak TLS, and `{service}` is at {}", status.url);
    Err(ApiError::new(ErrorCode::InvalidArgument, message).with_hint("use curl or another client").into())
}

fn body(args: &Args) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    match (&args.json, args.file.as_deref()) {
        (Some(text), _) => bytes.extend_from_slice(text.as_bytes()),
        (None, Some(path)) if path == Path::new("-") => {
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|e| failure::io("read", Path::new("standard input"), &e))?;
        }
        (None, Some(path)) => {
            bytes = std::fs::read(path).map_err(|e| failure::io("read", path, &e))?;
        }
        (None, None) => return Err(Failure::usage("give the request with `--json TEXT` or `--file FILE`")),
    }
    Ok(bytes)
}

async fn post(address: &str, path: &str, body: Vec<u8>) -> Result<(hyper::StatusCode, Bytes), String> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let request = hyper::Request::post(path)
        .header("host", address)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok((status, bytes))
}
