//! `slipway base`

use std::process::{Command, Stdio};

use slipway_types::{ApiError, ErrorCode};

use super::Context;
use super::import::upload;
use crate::failure::Failure;

/// Make a base image on machines that reach no image registry
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Debian(Debian),
}

/// Make a base image from Debian packages
#[derive(Debug, clap::Args)]
struct Debian {
    /// Debian release
    #[arg(long, default_value = "bookworm", value_name = "SUITE")]
    suite: String,
    /// Package to install besides the essential ones (repeatable)
    #[arg(short, long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// Mirror to fetch packages from [default: this machine's]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Set an instruction of the image, as `import` does (repeatable)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Name of the image
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tag: String,
}

/// Makes a base image.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let Kind::Debian(debian) = args.kind;
    for package in &debian.packages {
        let valid = package.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.:=~".contains(&b));
        if !valid || package.starts_with('-') || package.is_empty() {
            return Err(Failure::usage(format!("--package `{package}`: that is no Debian package name")));
        }
    }
    // A name that cannot be used is found before a minute of work, not after it.
    let reference: slipway_types::Reference = debian
        .tag
        .parse()
        .map_err(|e: slipway_types::reference::InvalidReference| Failure::usage(e.to_string()))?;
    let tool = "mmdebstrap";
    let mut command = Command::new(tool);
    command
        .arg("--variant=minbase")
        .arg("--quiet")
        .arg("--format=tar")
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*");
    let packages: Vec<&str> =
        std::iter::once("ca-certificates").chain(debian.packages.iter().map(String::as_str)).collect();
    command.arg(format!("--include={}", packages.join(",")));
    command.arg(&debian.suite).arg("-");
    command.args(debian.mirror.as_deref());
    context.printer.note(format!("making {} from Debian {} packages", reference.familiar(), debian.suite));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| {
        let mut api = ApiError::new(ErrorCode::Unavailable, format!("cannot start {tool}"));
        api.causes.push(error.to_string());
        Failure::from(api).hint(
            "install it with `apt-get install mmdebstrap`; elsewhere than on Debian, pull a base image or \
             `slipway import` a root file system",
        )
    })?;
    let Some(tar) = child.stdout.take() else {
        return Err(ApiError::new(ErrorCode::Internal, format!("{tool} has no output")).into());
    };
    let mut changes = vec!["CMD [\"bash\"]".to_owned(), "ENV LANG=C.UTF-8".to_owned()];
    changes.extend(debian.changes);
    // The image gets its name only when the tool succeeded: a tar cut short must not be used.
    let (sender, receiver) = std::sync::mpsc::channel();
    let guarded = UntilSuccess { tar, child, sender, tool };
    let outcome = upload(context, &debian.tag, &changes, guarded);
    if let Ok(reason) = receiver.try_recv() {
        return Err(ApiError::new(ErrorCode::Failed, reason)
            .with_hint("its own messages are above; are the suite and the packages right?")
            .into());
    }
    context.printer.line(outcome?.as_str());
    Ok(0)
}

/// Reads a tool's output; its end is an error unless the tool succeeded.
struct UntilSuccess {
    tar: std::process::ChildStdout,
    child: std::process::Child,
    sender: std::sync::mpsc::Sender<String>,
    tool: &'static str,
}

impl std::io::Read for UntilSuccess {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.tar.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        let status = self.child.wait()?;
        if status.success() {
            return Ok(0);
        }
        let reason = format!("{} failed ({status})", self.tool);
        let _ = self.sender.send(reason.clone());
        Err(std::io::Error::other(reason))
    }
}

impl Drop for UntilSuccess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
