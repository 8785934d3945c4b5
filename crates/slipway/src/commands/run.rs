//! `slipway run`

use std::path::{Path, PathBuf};

use hyper::Method;
use slipway_types::container::{
    ContainerSpec, CreateContainer, CreatedContainer, Limits, Mount, NetworkMode,
};
use slipway_types::image::TransferEvent;
use slipway_types::{ErrorCode, size};

use super::Context;
use crate::attached;
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::progress::TransferProgress;
use crate::query;

/// Run a command in a new container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove the container once it ended
    #[arg(long)]
    rm: bool,
    /// Run in the background and print the id
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input connected
    #[arg(short, long)]
    interactive: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Set an environment variable; without `=VALUE` it is taken from here (repeatable)
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file (repeatable)
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// Show a folder or file of this machine inside; without a source, a folder that goes with the container
    /// (repeatable)
    #[arg(short, long = "volume", value_name = "[SOURCE:]TARGET[:ro]")]
    volumes: Vec<String>,
    /// Mount a temporary file system (repeatable)
    #[arg(long = "tmpfs", value_name = "TARGET[:size=SIZE]")]
    tmpfs: Vec<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "FOLDER")]
    workdir: Option<String>,
    /// User, and optionally group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Memory limit, such as `512m`
    #[arg(short, long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// CPU limit, such as `1.5`
    #[arg(long, value_name = "COUNT", value_parser = cpu_millis)]
    cpus: Option<u32>,
    /// Most processes and threads
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pids_limit: Option<u32>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Network: `none` (loopback only) or `host`
    #[arg(long, value_name = "NETWORK", default_value = "none")]
    network: NetworkMode,
    /// Replace the image's entrypoint; empty removes it
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Signal that asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Add a label (repeatable)
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Not supported yet
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Not supported yet
    #[arg(short, long, hide = true)]
    publish: Vec<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    gpus: Option<String>,
    /// Image name or id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let detach = args.detach;
    unsupported(&args).map_err(unmade)?;
    let spec = spec(context, args).map_err(unmade)?;
    let client = context.client()?;
    let (auto_remove, interactive) = (spec.auto_remove, spec.interactive);
    let request = CreateContainer { spec, wait_for_attach: !detach };
    let created = create(context, &client, &request)?;
    if let Some(failed) = created.failed {
        let reason = failed.error.unwrap_or_default();
        return Err(
            Failure::from(slipway_types::ApiError::new(ErrorCode::Failed, reason)).exiting(failed.code)
        );
    }
    if detach {
        context.printer.line(created.id.as_str());
        return Ok(0);
    }
    let outcome = attached::connect(&created.attach_socket, interactive);
    if auto_remove {
        // The daemon does it as well when this process is killed before.
        let path = query::path(&format!("/v1/containers/{}", created.id), &[("force", "true")]);
        match client.delete::<()>(&path) {
            Err(failure) if failure.exit_code == exit::NOT_FOUND => {}
            Err(failure) if outcome.is_ok() => {
                failure.error.iter().for_each(|error| context.printer.error(error));
            }
            _ => {}
        }
    }
    let info = outcome?;
    if let Some(error) = info.error {
        context.printer.error(&slipway_types::ApiError::new(ErrorCode::Failed, error));
    } else if info.oom_killed {
        context.printer.warning("the container ran out of memory and was killed; raise `--memory`");
    }
    Ok(info.code)
}

/// Makes the container; an image that is missing is pulled first, as Docker does.
fn create(
    context: &Context,
    client: &Client,
    request: &CreateContainer,
) -> Result<CreatedContainer, Failure> {
    let missing = match client.post("/v1/containers", request) {
        Err(failure) if failure.exit_code == exit::NOT_FOUND => failure,
        other => return other.map_err(unmade),
    };
    if request.spec.image.parse::<slipway_types::Reference>().is_err() {
        return Err(unmade(missing));
    }
    context.printer.note(format!("{} is not here: pulling it", request.spec.image));
    let mut progress = TransferProgress::new(context.printer, "pulled");
    let mut failed = None;
    let body = serde_json::json!({ "reference": request.spec.image });
    client
        .stream(Method::POST, "/v1/images/pull", Some(&body), |event: TransferEvent| {
            progress.show(&event);
            if let TransferEvent::Failed(error) = event {
                failed = Some(error);
            }
            Ok(())
        })
        .map_err(unmade)?;
    progress.finish();
    match failed {
        Some(error) => Err(unmade(error.into())),
        None => client.post("/v1/containers", request).map_err(unmade),
    }
}

fn unmade(failure: Failure) -> Failure {
    if failure.exit_code == exit::UNREACHABLE { failure } else { failure.exiting(exit::CONTAINER_FAILED) }
}

/// Flags of Docker's that are known and cannot be followed yet.
fn unsupported(args: &Args) -> Result<(), Failure> {
    let refuse = |flag: &str, instead: &str| {
        Err(Failure::usage(format!("`{flag}` is not supported yet")).hint(instead))
    };
    if args.tty {
        return refuse("--tty", "leave it out: `-i` alone connects standard input");
    }
    if !args.publish.is_empty() {
        return refuse("--publish", "`--network host` shares this machine's ports with the container");
    }
    if args.gpus.is_some() {
        return refuse("--gpus", "leave it out");
    }
    Ok(())
}

fn spec(context: &Context, args: Args) -> Result<ContainerSpec, Failure> {
    let mut env = Vec::new();
    for file in &args.env_files {
        let text = std::fs::read_to_string(file).map_err(|e| crate::failure::io("read", file, &e))?;
        let lines = text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#'));
        env.extend(lines.map(str::to_owned));
    }
    env.extend(args.env);
    let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
    for text in &args.volumes {
        match volume(text)? {
            Volume::Own(target) => volumes.push(target),
            Volume::Shown { source, target, read_only } => {
                mounts.push(Mount::Bind { source, target, read_only });
            }
        }
    }
    for text in &args.tmpfs {
        mounts.push(tmpfs(text)?);
    }
    let label = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("--label `{text}`: expected KEY=VALUE"))),
    };
    let mut spec = ContainerSpec {
        name: args.name,
        image: args.image,
        entrypoint: args.entrypoint.map(|e| if e.is_empty() { Vec::new() } else { vec![e] }),
        command: args.command,
        env: environment(env)?,
        workdir: args.workdir,
        user: args.user,
        mounts,
        volumes,
        network: args.network,
        limits: Limits { memory: args.memory, cpu_millis: args.cpus, pids: args.pids_limit },
        read_only: args.read_only,
        auto_remove: args.rm,
        interactive: args.interactive,
        stop_signal: args.stop_signal,
        labels: args.labels.iter().map(label).collect::<Result<_, _>>()?,
    };
    // Last, so that a mistake elsewhere on the command line leaves no folders behind.
    for mount in &mut spec.mounts {
        if let Mount::Bind { source, .. } = mount {
            *source = existing(context, source)?;
        }
    }
    Ok(spec)
}

/// `KEY=value` pairs; a bare `KEY` takes this process's value, or nothing when there is none.
pub fn environment(pairs: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut env = Vec::with_capacity(pairs.len());
    for pair in pairs {
        match pair.find('=') {
            Some(0) => return Err(Failure::usage(format!("--env `{pair}`: the name is empty"))),
            Some(_) => env.push(pair),
            None if pair.is_empty() => return Err(Failure::usage("--env: the name is empty")),
            None => env.extend(std::env::var(&pair).ok().map(|value| format!("{pair}={value}"))),
        }
    }
    Ok(env)
}

/// What `-v` asks for.
#[derive(Debug, PartialEq)]
enum Volume {
    /// Something of this machine.
    Shown { source: PathBuf, target: PathBuf, read_only: bool },
    /// A folder of the container's own.
    Own(PathBuf),
}

/// A mount's source without links. As Docker has it, a folder is made where nothing is.
fn existing(context: &Context, source: &Path) -> Result<PathBuf, Failure> {
    let fail = |error: std::io::Error| crate::failure::io("mount", source, &error);
    match source.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Ok(link) = source.read_link() {
                let (source, link) = (source.display(), link.display());
                return Err(Failure::usage(format!(
                    "cannot mount {source}: it is a symbolic link to {link}, which does not exist"
                )));
            }
            std::fs::create_dir_all(source).map_err(fail)?;
            context.printer.note(format!("made the folder {}, which --volume names", source.display()));
            source.canonicalize().map_err(fail)
        }
        result => result.map_err(fail),
    }
}

fn volume(text: &str) -> Result<Volume, Failure> {
    let wrong =
        |reason: &str| Failure::usage(format!("--volume `{text}`: {reason}; expected [SOURCE:]TARGET[:ro]"));
    if !text.contains(':') && text.starts_with('/') {
        return match Path::new(text).parent() {
            Some(_) => Ok(Volume::Own(text.into())),
            None => Err(wrong("the root itself cannot be a volume")),
        };
    }
    let mut parts = text.split(':');
    let (source, target) = match (parts.next(), parts.next()) {
        (Some(source), Some(target)) if !source.is_empty() && !target.is_empty() => (source, target),
        _ => return Err(wrong("it has no target")),
    };
    let read_only = match parts.next() {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return Err(wrong("its last part is neither `ro` nor `rw`")),
    };
    if parts.next().is_some() {
        return Err(wrong("it has too many parts"));
    }
    if !target.starts_with('/') {
        return Err(wrong("the target is not absolute"));
    }
    if !source.contains('/') && source != "." && source != ".." {
        return Err(wrong("named volumes are not supported; give a path such as `./data`"));
    }
    Ok(Volume::Shown { source: source.into(), target: target.into(), read_only })
}

fn tmpfs(text: &str) -> Result<Mount, Failure> {
    let wrong = |reason: String| Failure::usage(format!("--tmpfs `{text}`: {reason}"));
    let (target, option) =
        text.split_once(':').map_or((text, None), |(target, option)| (target, Some(option)));
    if !target.starts_with('/') {
        return Err(wrong("the target is not absolute".to_owned()));
    }
    let size = match option.map(|o| o.strip_prefix("size=").unwrap_or(o)) {
        None => None,
        Some(size) => Some(size::parse_bytes(size).map_err(|e| wrong(e.to_string()))?),
    };
    Ok(Mount::Tmpfs { target: target.into(), size })
}

/// As little as Docker lets a container have.
const MIN_MEMORY: u64 = 6 << 20;

fn memory(text: &str) -> Result<u64, String> {
    match size::parse_bytes(text) {
        Ok(bytes) if bytes < MIN_MEMORY => Err("the smallest memory limit is 6 MiB".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn cpu_millis(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        Ok(cpus) if (0.01..=4096.0).contains(&cpus) => Ok((cpus * 1000.0).round() as u32),
        _ => Err("expected a number between 0.01 and 4096".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let shown = |source: &str, read_only| Volume::Shown {
            source: source.into(),
            target: "/data".into(),
            read_only,
        };
        assert_eq!(volume("/s:/data:ro").unwrap(), shown("/s", true));
        assert_eq!(volume("./s:/data").unwrap(), shown("./s", false));
        assert_eq!(volume("/data").unwrap(), Volume::Own("/data".into()));
        for bad in ["", "/", "a", "/a:b", "/a:/b:x", "/a:/b:ro:x", "name:/b"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
        assert_eq!(tmpfs("/t:size=1m").unwrap(), Mount::Tmpfs { target: "/t".into(), size: Some(1 << 20) });
        assert!(tmpfs("t").is_err() && tmpfs("/t:size=x").is_err());
    }

    #[test]
    fn environment_takes_bare_names_from_here() {
        let pairs = ["A=1", "PATH", "SURELY_NOT_SET_HERE"].map(str::to_owned).to_vec();
        let env = environment(pairs).unwrap();
        assert_eq!(env.len(), 2);
        assert!(env[1].starts_with("PATH=/"));
        assert!(environment(vec!["=x".into()]).is_err());
        assert_eq!((cpu_millis("1.5"), cpu_millis("0").is_err()), (Ok(1500), true));
        assert_eq!((memory("6m"), memory("5m").is_err()), (Ok(6 << 20), true));
    }
}
