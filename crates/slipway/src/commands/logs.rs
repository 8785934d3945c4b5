//! `slipway logs`

use hyper::Method;
use slipway_types::container::{LogLine, OutputStream};

use super::Context;
use crate::failure::Failure;
use crate::query;

/// Show what a container, a training run or a service's replicas wrote
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as more is written, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only lines after a time (`2026-01-31T12:00:00Z`) or of the last `10m`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "COUNT")]
    tail: Option<u32>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Container, run or service
    #[arg(value_name = "NAME")]
    name: String,
}

/// Shows.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let since = args.since.as_deref().map(since).transpose()?;
    let mut pairs = vec![("name", args.name.as_str())];
    let (since, tail) = (since.map(|t| t.to_string()), args.tail.map(|n| n.to_string()));
    pairs.extend(since.as_deref().map(|since| ("since", since)));
    pairs.extend(tail.as_deref().map(|tail| ("tail", tail)));
    if args.follow {
        pairs.push(("follow", "true"));
    }
    let printer = context.printer;
    let client = context.client()?;
    client.stream(Method::GET, &query::path("/v1/logs", &pairs), Option::<&()>::None, |line: LogLine| {
        let mut text = if args.timestamps { format!("{} {}", line.time, line.text) } else { line.text };
        text.push('\n');
        match line.stream {
            OutputStream::Stdout => printer.raw(text.as_bytes()),
            OutputStream::Stderr => printer.raw_error(text.as_bytes()),
        }
        Ok(())
    })?;
    Ok(0)
}

/// A moment: written whole, or as how long ago.
pub fn since(text: &str) -> Result<jiff::Timestamp, Failure> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let span: Result<jiff::SignedDuration, _> = text.parse();
    span.ok().and_then(|span| jiff::Timestamp::now().checked_sub(span).ok()).ok_or_else(|| {
        Failure::usage(format!(
            "--since `{text}`: expected a time such as `2026-01-31T12:00:00Z` or a span such as `10m`"
        ))
    })
}
