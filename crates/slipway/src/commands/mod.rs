//! The command line: one command, one file.

mod autoscale;
mod base;
mod build;
mod daemon;
mod delete;
mod deploy;
mod diff;
mod dry_run;
mod engine;
mod events;
mod exec;
mod export;
mod expose;
mod exposure;
mod gateway;
mod images;
mod import;
mod inspect;
mod kill;
mod login;
mod logout;
mod logs;
mod model;
mod predict;
mod ps;
mod pull;
mod push;
mod rm;
mod rmi;
mod run;
mod runs;
mod scale;
mod services;
mod stop;
mod system;
mod tag;
mod top;
mod train;
mod up;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use slipway_types::{ApiError, ErrorCode};

use crate::client::Client;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::Settings;

/// From training code to a monitored, autoscaled REST API, in containers, with one binary.
#[derive(Debug, Parser)]
#[command(name = "slipway", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Folder of all state [default: /var/lib/slipway]
    #[arg(long, global = true, value_name = "FOLDER", env = crate::env_vars::SLIPWAY_ROOT)]
    pub root: Option<PathBuf>,
    /// Where `up`, `train` and `deploy` run: `native`, or a cluster of `slipway engine ls` [default: the one in use]
    #[arg(long, global = true, value_name = "ENGINE", env = crate::env_vars::SLIPWAY_ENGINE)]
    pub engine: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Up(up::Args),
    Build(build::Args),
    Run(run::Args),
    Ps(ps::Args),
    Logs(logs::Args),
    Exec(exec::Args),
    Stop(stop::Args),
    Kill(kill::Args),
    Rm(rm::Args),
    Images(images::Args),
    Inspect(inspect::Args),
    Tag(tag::Args),
    Rmi(rmi::Args),
    Pull(pull::Args),
    Push(push::Args),
    Login(login::Args),
    Logout(logout::Args),
    Import(import::Args),
    Base(base::Args),
    Train(train::Args),
    Runs(runs::Args),
    Model(model::Args),
    Deploy(deploy::Args),
    Diff(diff::Args),
    Services(services::Args),
    Top(top::Args),
    Scale(scale::Args),
    Expose(expose::Args),
    Delete(delete::Args),
    Predict(predict::Args),
    Export(export::Args),
    Engine(engine::Args),
    Events(events::Args),
    System(system::Args),
    Daemon(daemon::Args),
    #[command(hide = true)]
    Gateway(gateway::Args),
}

/// What every command is given.
pub struct Context {
    /// Where things are.
    pub settings: Settings,
    /// Where output goes.
    pub printer: Printer,
    /// Engine that was asked for.
    pub engine: Option<String>,
}

impl Context {
    /// The context of this process.
    pub fn new(root: Option<PathBuf>, engine: Option<String>, printer: Printer) -> Result<Self, Failure> {
        Ok(Self { settings: Settings::resolve(root)?, printer, engine })
    }

    /// What to say when the daemon's answer ends before it says how something, such as `the build`, came out.
    pub fn no_result(&self, what: &str) -> Failure {
        let log = self.settings.root.join("daemon.log");
        ApiError::new(ErrorCode::Internal, format!("the daemon ended {what} without a result"))
            .with_hint(format!("{} tells more; then try again", log.display()))
            .into()
    }

    /// The daemon, started if none runs.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::connect(&self.settings)
    }
}

/// Runs a command; gives the exit code of the process.
pub fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Up(args) => up::run(context, args),
        Command::Build(args) => build::run(context, args),
        Command::Run(args) => run::run(context, args),
        Command::Ps(args) => ps::run(context, &args),
        Command::Logs(args) => logs::run(context, &args),
        Command::Exec(args) => exec::run(context, args),
        Command::Stop(args) => stop::run(context, &args),
        Command::Kill(args) => kill::run(context, &args),
        Command::Rm(args) => rm::run(context, &args),
        Command::Images(args) => images::run(context, &args),
        Command::Inspect(args) => inspect::run(context, &args),
        Command::Tag(args) => tag::run(context, &args),
        Command::Rmi(args) => rmi::run(context, &args),
        Command::Pull(args) => pull::run(context, &args),
        Command::Push(args) => push::run(context, &args),
        Command::Login(args) => login::run(context, args),
        Command::Logout(args) => logout::run(context, &args),
        Command::Import(args) => import::run(context, &args),
        Command::Base(args) => base::run(context, args),
        Command::Train(args) => train::run(context, &args),
        Command::Runs(args) => runs::run(context, &args),
        Command::Model(args) => model::run(context, args),
        Command::Deploy(args) => deploy::run(context, args),
        Command::Diff(args) => diff::run(context, &args),
        Command::Services(args) => services::run(context, &args),
        Command::Top(args) => top::run(context, &args),
        Command::Scale(args) => scale::run(context, &args),
        Command::Expose(args) => expose::run(context, &args),
        Command::Delete(args) => delete::run(context, &args),
        Command::Predict(args) => predict::run(context, &args),
        Command::Export(args) => export::run(context, args),
        Command::Engine(args) => engine::run(context, &args),
        Command::Events(args) => events::run(context, &args),
        Command::System(args) => system::run(context, &args),
        Command::Daemon(args) => daemon::run(context, &args),
        Command::Gateway(args) => gateway::run(context, &args),
    }
}

/// Does the same for each name; goes on after a failure and ends with the first.
fn for_each(
    context: &Context,
    names: &[String],
    mut act: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let mut code = 0;
    for name in names {
        match act(name) {
            Ok(()) => context.printer.line(name),
            Err(failure) => {
                if let Some(error) = &failure.error {
                    context.printer.error(error);
                }
                if code == 0 {
                    code = failure.exit_code;
                }
            }
        }
    }
    Ok(code)
}
