//! `slipway delete`

use std::time::{Duration, Instant};

use slipway_types::service::ServiceStatus;
use slipway_types::{ApiError, ErrorCode};

use super::{Context, for_each};
use crate::failure::{Failure, exit};
use crate::query;

/// Replicas finish their requests first; this is longer than they may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Stop services and forget them; their models and images stay
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not wait until their replicas are gone
    #[arg(short, long)]
    detach: bool,
    /// Services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

/// Deletes.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    for_each(context, &args.services, |name| {
        let path = query::path("/v1/service", &[("name", name)]);
        client.delete::<()>(&path)?;
        if args.detach {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            match client.get::<ServiceStatus>(&path) {
                Err(failure) if failure.exit_code == exit::NOT_FOUND => return Ok(()),
                Err(failure) => return Err(failure),
                Ok(_) if began.elapsed() > LIMIT => {
                    let message = format!("replicas of `{name}` still run after {} s", LIMIT.as_secs());
                    return Err(ApiError::new(ErrorCode::Failed, message).into());
                }
                Ok(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    })
}
