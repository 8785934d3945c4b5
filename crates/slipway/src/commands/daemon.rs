//! `slipway daemon`

use slipway_types::ErrorCode;

use super::Context;
use crate::client::Client;
use crate::failure::{Failure, exit};

/// Run the control plane, or ask after the one that runs
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say whether a daemon runs, and which
    Status,
    /// End the daemon; containers go on, and the gateway while there are services
    Stop,
}

/// Runs, asks or stops.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    match args.action {
        None => {
            crate::daemon::run(context.settings.clone())?;
            Ok(0)
        }
        Some(Action::Status) => match Client::connect_running(&context.settings)? {
            Some(client) => {
                context.printer.json(&client.get::<serde_json::Value>("/v1/version")?);
                Ok(0)
            }
            None => {
                context.printer.note("no daemon runs");
                Ok(exit::UNREACHABLE)
            }
        },
        Some(Action::Stop) => {
            let Some(client) = Client::connect_running(&context.settings)? else {
                context.printer.note("no daemon runs");
                return Ok(0);
            };
            client.post::<_, ()>("/v1/shutdown", &())?;
            let began = std::time::Instant::now();
            while Client::connect_running(&context.settings)?.is_some() {
                if began.elapsed().as_secs() > 30 {
                    return Err(slipway_types::ApiError::new(
                        ErrorCode::Unavailable,
                        "the daemon does not end",
                    )
                    .into());
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Ok(0)
        }
    }
}
