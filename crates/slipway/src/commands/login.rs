//! `slipway login`

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use serde_json::json;

use super::Context;
use crate::failure::{self, Failure};

/// Remember credentials of a registry, once it accepts them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Registry, such as `registry.example.com:5000`
    #[arg(default_value = slipway_types::reference::DEFAULT_REGISTRY, value_name = "REGISTRY")]
    registry: String,
}

/// Logs in.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let terminal = std::io::stdin().is_terminal();
    if !terminal && !args.password_stdin {
        return Err(Failure::usage(
            "standard input is no terminal: give the password with `--password-stdin`",
        ));
    }
    let username = match args.username {
        Some(username) => username,
        None if args.password_stdin => {
            return Err(Failure::usage("`--password-stdin` needs `--username NAME`"));
        }
        None => {
            context.printer.note("Username:");
            read_line()?
        }
    };
    let password = if args.password_stdin {
        read_line()?
    } else {
        context.printer.note("Password:");
        without_echo(read_line)?
    };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::usage("the user name and the password must not be empty"));
    }
    let body = json!({
        "registry": args.registry,
        "credentials": { "basic": { "username": username, "password": password } },
    });
    context.client()?.post::<_, ()>("/v1/login", &body)?;
    context.printer.note(format!("logged in to {}", args.registry));
    Ok(0)
}

fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| failure::io("read", Path::new("standard input"), &e))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Runs `read` while the terminal does not show what is typed.
fn without_echo<T>(read: impl FnOnce() -> T) -> T {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let Ok(before) = tcgetattr(&stdin) else { return read() };
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let _ = tcsetattr(&stdin, OptionalActions::Now, &hidden);
    let result = read();
    let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
    result
}
