//! `slipway build`

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use hyper::Method;
use slipway_types::build::{BuildEvent, BuildFailure, BuildRequest};
use slipway_types::container::NetworkMode;

use super::Context;
use crate::failure::{self, Failure, exit};
use crate::progress::BuildProgress;

/// Build an image from a Dockerfile
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the result, and optionally a tag: `name:tag` (repeatable)
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<String>,
    /// The Dockerfile, `-` for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Stage to stop at
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set a build argument; without `=VALUE` it is taken from the environment
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    build_args: Vec<String>,
    /// Add a label to the image
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Execute every step, whatever the cache holds
    #[arg(long)]
    no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Network of RUN steps: `host` (default) or `none`
    #[arg(long, value_name = "NETWORK")]
    network: Option<NetworkMode>,
    /// PEM bundle that RUN steps trust besides the image's own; not kept in the image
    #[arg(long, value_name = "FILE", env = crate::env_vars::SLIPWAY_CA_CERTIFICATES)]
    ca_certificates: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t, value_name = "STYLE")]
    progress: Style,
    /// Only run the checks; exit 1 if they find an error
    #[arg(long)]
    check: bool,
    /// Print only the image id
    #[arg(short, long)]
    quiet: bool,
    /// Folder with the files that COPY and ADD may name
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// Moving on a terminal, plain elsewhere
    #[default]
    Auto,
    /// One line after another
    Plain,
}

/// Builds.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let (style, quiet) = (args.progress, args.quiet);
    let request = request(args)?;
    let source = source(&request)?;
    let client = context.client()?;
    let moving = style == Style::Auto && context.printer.is_terminal();
    let mut progress = BuildProgress::new(context.printer, moving, quiet, &request.dockerfile, source);
    // A check ends without an event of its own.
    let mut outcome = Ok(if request.check_only { 0 } else { exit::FAILED });
    client.stream(Method::POST, "/v1/build", Some(&request), |event: BuildEvent| {
        progress.show(&event);
        match event {
            BuildEvent::Finished { image, .. } => {
                if quiet {
                    context.printer.line(image.as_str());
                }
                outcome = Ok(0);
            }
            BuildEvent::Failed(failed) => outcome = Err(failure_of(failed)),
            _ => {}
        }
        Ok(())
    })?;
    progress.finish();
    outcome
}

/// How a failed build ends the command: a diagnostic that was shown has said everything.
pub fn failure_of(failed: BuildFailure) -> Failure {
    let shown = failed.diagnostic.is_some();
    let failure = Failure::from(failed.error);
    if shown { Failure::silent(failure.exit_code) } else { failure }
}

/// The request that the flags mean, with absolute paths.
fn request(args: Args) -> Result<BuildRequest, Failure> {
    let context =
        args.path.canonicalize().map_err(|e| failure::io("open the build context", &args.path, &e))?;
    if !context.is_dir() {
        return Err(Failure::usage(format!("the build context {} is not a folder", args.path.display())));
    }
    let (dockerfile, dockerfile_text) = match args.file.as_deref() {
        Some(file) if file == Path::new("-") => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| failure::io("read the Dockerfile from", Path::new("standard input"), &e))?;
            (context.join("Dockerfile"), Some(text))
        }
        Some(file) => (absolute(file)?, None),
        None => (context.join("Dockerfile"), None),
    };
    Ok(BuildRequest {
        context,
        dockerfile,
        dockerfile_text,
        tags: args.tags,
        target: args.target,
        build_args: build_args(&args.build_args)?,
        labels: pairs("--label", &args.labels)?,
        no_cache: args.no_cache,
        network: args.network,
        ca_certificates: args.ca_certificates.as_deref().map(absolute).transpose()?,
        pull: args.pull,
        check_only: args.check,
    })
}

/// The Dockerfile's text, for diagnostics that point into it.
fn source(request: &BuildRequest) -> Result<String, Failure> {
    match &request.dockerfile_text {
        Some(text) => Ok(text.clone()),
        None => std::fs::read_to_string(&request.dockerfile).map_err(|error| {
            let failure = failure::io("read the Dockerfile", &request.dockerfile, &error);
            if error.kind() == std::io::ErrorKind::NotFound {
                failure.hint("name it with `-f FILE`, or give the folder that holds a `Dockerfile`")
            } else {
                failure
            }
        }),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|e| failure::io("open", path, &e))
}

fn build_args(values: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for value in values {
        match value.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                map.insert(key.to_owned(), value.to_owned());
            }
            None if !value.is_empty() => {
                if let Ok(found) = std::env::var(value) {
                    map.insert(value.clone(), found);
                }
            }
            _ => return Err(Failure::usage(format!("--build-arg `{value}`: expected KEY=VALUE or KEY"))),
        }
    }
    Ok(map)
}

fn pairs(flag: &str, values: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |value: &String| match value.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{flag} `{value}`: expected KEY=VALUE"))),
    };
    values.iter().map(pair).collect()
}
