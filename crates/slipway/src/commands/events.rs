//! `slipway events`

use hyper::Method;
use slipway_types::event::Event;

use super::Context;
use crate::failure::Failure;
use crate::printer::Format;
use crate::query;

/// Show what happened to services, containers, runs, models and images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as more happens
    #[arg(short, long)]
    follow: bool,
    /// Only of this subject, such as `service/digits`
    #[arg(long, value_name = "KIND/NAME")]
    subject: Option<String>,
    /// Only the last events
    #[arg(short = 'n', long, default_value_t = 100, value_name = "COUNT")]
    tail: u32,
    /// How to write them; JSON has one event a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Shows.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let tail = args.tail.to_string();
    let mut pairs = vec![("tail", tail.as_str())];
    pairs.extend(args.subject.as_deref().map(|subject| ("subject", subject)));
    if args.follow {
        pairs.push(("follow", "true"));
    }
    let printer = context.printer;
    let client = context.client()?;
    client.stream(Method::GET, &query::path("/v1/events", &pairs), Option::<&()>::None, |event: Event| {
        match args.format {
            Format::Json => printer.line(serde_json::to_string(&event).unwrap_or_default()),
            Format::Table => {
                let time = event.time.to_string();
                printer.line(format!(
                    "{}  {:<24} {:<20} {}",
                    time.get(..19).unwrap_or(&time),
                    event.subject,
                    event.kind,
                    event.message
                ));
            }
        }
        Ok(())
    })?;
    Ok(0)
}
