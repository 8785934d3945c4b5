//! `slipway exec`

use slipway_types::ErrorCode;
use slipway_types::container::{CreatedExec, ExecSpec};

use super::Context;
use super::run::environment;
use crate::attached;
use crate::failure::{Failure, exit};
use crate::query;

/// Run one more command in a container that runs
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep standard input connected
    #[arg(short, long)]
    interactive: bool,
    /// Set an environment variable (repeatable)
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Working directory inside [default: the container's]
    #[arg(short, long, value_name = "FOLDER")]
    workdir: Option<String>,
    /// User, and optionally group, by name or number [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Executes.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let spec = ExecSpec {
        command: args.command,
        env: environment(args.env)?,
        workdir: args.workdir,
        user: args.user,
        interactive: args.interactive,
    };
    let interactive = spec.interactive;
    let path = format!("/v1/containers/{}/exec", query::segment(&args.container));
    let created: CreatedExec = context.client()?.post(&path, &spec)?;
    let info = attached::connect(&created.attach_socket, interactive)?;
    if let Some(error) = info.error {
        context.printer.error(&slipway_types::ApiError::new(ErrorCode::Failed, error));
        return Ok(if info.code == 0 { exit::CONTAINER_FAILED } else { info.code });
    }
    Ok(info.code)
}
