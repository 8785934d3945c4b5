//! `slipway build`

mod secrets;
mod stdin;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use hyper::Method;
use slipway_types::build::{BuildEvent, BuildFailure, BuildRequest};
use slipway_types::container::NetworkMode;

use self::stdin::Given;
use super::Context;
use crate::failure::{self, Failure};
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
    /// A secret for `RUN --mount=type=secret`: from a file (`src=`) or a variable (`env=`); in no layer, log or
    /// cache key (repeatable)
    #[arg(long = "secret", value_name = "id=NAME[,src=FILE|,env=VAR]")]
    secrets: Vec<String>,
    /// An SSH agent for `RUN --mount=type=ssh`: `default` is the one of SSH_AUTH_SOCK (repeatable)
    #[arg(long = "ssh", value_name = "NAME[=SOCKET]")]
    ssh: Vec<String>,
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
    /// Folder with the files that COPY and ADD may name; `-` reads a tar of it, or a Dockerfile alone, from standard
    /// input
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
    let given = if args.path == Path::new("-") { Some(stdin::read()?) } else { None };
    let request = request(args, given.as_ref())?;
    let source = source(&request)?;
    let client = context.client()?;
    let moving = style == Style::Auto && context.printer.is_terminal();
    let mut progress = BuildProgress::new(context.printer, moving, quiet, &request.dockerfile, source);
    // A check ends without an event of its own.
    let mut outcome = if request.check_only { Ok(0) } else { Err(context.no_result("the build")) };
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
fn request(args: Args, given: Option<&Given>) -> Result<BuildRequest, Failure> {
    let context = match given {
        Some(given) => given.path().to_owned(),
        None => context(&args.path)?,
    };
    let (dockerfile, dockerfile_text) = match (args.file.as_deref(), given) {
        (Some(file), Some(_)) if file == Path::new("-") => {
            return Err(Failure::usage("standard input cannot be both the context and the Dockerfile"));
        }
        (Some(file), None) if file == Path::new("-") => {
            let text = stdin::text(std::io::stdin().lock())?;
            (context.join("Dockerfile"), Some(text))
        }
        // In a context that came as a tar the Dockerfile is named by its path there.
        (Some(file), Some(_)) => (context.join(file.strip_prefix("/").unwrap_or(file)), None),
        (Some(file), None) => (absolute(file)?, None),
        (None, given) => (context.join("Dockerfile"), given.and_then(|given| given.dockerfile.clone())),
    };
    Ok(BuildRequest {
        context,
        temporary_context: given.is_some(),
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
        secrets: secrets::secrets(&args.secrets)?,
        ssh: secrets::agents(&args.ssh)?,
    })
}

/// The context folder.
fn context(path: &Path) -> Result<PathBuf, Failure> {
    let context = path.canonicalize().map_err(|e| {
        let failure = failure::io("open the build context", path, &e);
        let remote = ["https://", "http://", "git@", "git://", "ssh://"];
        if path.to_str().is_some_and(|path| remote.iter().any(|start| path.starts_with(start))) {
            failure
                .hint("contexts are folders of this machine: clone or fetch it first, then name the folder")
        } else {
            failure
        }
    })?;
    if !context.is_dir() {
        return Err(Failure::usage(format!("the build context {} is not a folder", path.display())));
    }
    Ok(context)
}

/// The Dockerfile's text, for diagnostics that point into it.
fn source(request: &BuildRequest) -> Result<String, Failure> {
    slipway_image::build::read_dockerfile(request).map_err(|error| {
        let failure = failure::io("read the Dockerfile", &request.dockerfile, &error);
        if error.kind() == std::io::ErrorKind::NotFound {
            failure.hint("name it with `-f FILE`, or give the folder that holds a `Dockerfile`")
        } else {
            failure
        }
    })
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
