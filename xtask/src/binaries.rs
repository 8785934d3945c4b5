//! The two programs, side by side as they are installed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::{root, target};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds both and gives the folder with `slipway` and `slipway-runner`.
pub fn build(release: bool) -> Result<PathBuf, String> {
    let profile = if release { "release" } else { "debug" };
    cargo(&["build", "--package", "slipway"], release, None)?;
    // Static, so that it runs in any image; a target of its own keeps the other build's artefacts valid.
    let flags = ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    cargo(&["build", "--package", "slipway-runner", "--target", TARGET], release, Some(flags))?;
    let target = target();
    let folder = target.join("slipway").join(profile);
    std::fs::create_dir_all(&folder).map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
    for (from, name) in [
        (target.join(profile).join("slipway"), "slipway"),
        (target.join(TARGET).join(profile).join("slipway-runner"), "slipway-runner"),
    ] {
        place(&from, &folder.join(name))?;
    }
    Ok(folder)
}

/// Renamed into place, since the old program may be running.
fn place(from: &Path, to: &Path) -> Result<(), String> {
    let aside = to.with_extension("new");
    let _ = std::fs::remove_file(&aside);
    // Renaming one link of a file over another does nothing, and would leave both.
    if let (Ok(old), Ok(new)) = (to.metadata(), from.metadata())
        && (old.dev(), old.ino()) == (new.dev(), new.ino())
    {
        return Ok(());
    }
    std::fs::hard_link(from, &aside)
        .or_else(|_| std::fs::copy(from, &aside).map(drop))
        .and_then(|()| std::fs::rename(&aside, to))
        .map_err(|e| format!("cannot copy {} to {}: {e}", from.display(), to.display()))
}

fn cargo(arguments: &[&str], release: bool, env: Option<(&str, &str)>) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments).args(release.then_some("--release")).envs(env);
    // What `cargo run` tells this program of itself is none of a build's business: build scripts that look at it would
    // run again, and with them everything that depends on their crates, whenever a build comes from elsewhere.
    let own = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| own.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(&name);
        }
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {} failed ({status})", arguments.join(" "))),
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}
