//! Programs from Debian packages that a benchmark needs.

use std::process::Command;
use std::time::Duration;

use super::error::Error;
use super::process::{find_program, run};

/// A program and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// Names or paths; one of them is enough.
    pub programs: &'static [&'static str],
    /// Its package.
    pub package: &'static str,
}

/// A static busybox, of which the tiny image is made.
pub const BUSYBOX: Needed =
    Needed { programs: &["/bin/busybox", "/usr/bin/busybox"], package: "busybox-static" };
/// The Docker daemon; its package has the client as well.
pub const DOCKER: Needed = Needed { programs: &["dockerd"], package: "docker.io" };
/// runc.
pub const RUNC: Needed = Needed { programs: &["runc"], package: "runc" };
/// The load generator.
pub const WRK: Needed = Needed { programs: &["wrk"], package: "wrk" };
/// Makes the base image of the served model.
pub const MMDEBSTRAP: Needed = Needed { programs: &["mmdebstrap"], package: "mmdebstrap" };

/// Fails with what to install when programs are missing; installs them first when asked to.
pub fn require(needed: &[Needed], install: bool) -> Result<(), Error> {
    if install {
        let missing = missing(needed);
        if !missing.is_empty() {
            let packages: Vec<_> = missing.iter().map(|needed| needed.package).collect();
            eprintln!("==> installing Debian packages: {}", packages.join(" "));
            let apt = |arguments: &[&str]| {
                let mut command = Command::new("apt-get");
                command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
                run(&mut command, Duration::from_secs(600)).map(drop)
            };
            apt(&["update", "-qq"])?;
            apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())?;
        }
    }
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    let list = |name: fn(&Needed) -> &'static str| missing.iter().map(name).collect::<Vec<_>>();
    Err(Error::Missing {
        programs: list(|needed| needed.programs[0]).join(", "),
        packages: list(|needed| needed.package).join(" "),
    })
}

fn missing(needed: &[Needed]) -> Vec<Needed> {
    needed.iter().filter(|needed| find_program(needed.programs).is_none()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_install() {
        let absent = Needed { programs: &["no-such-program-here"], package: "no-such-package" };
        let shell = Needed { programs: &["also-absent", "sh"], package: "dash" };
        require(&[shell], false).unwrap();
        let error = require(&[shell, absent], false).unwrap_err().to_string();
        assert!(error.contains("no-such-program-here") && error.contains("no-such-package"), "{error}");
        assert!(!error.contains("dash"), "{error}");
    }
}
