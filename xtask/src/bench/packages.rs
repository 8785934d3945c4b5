//! Programs from Debian packages that a benchmark needs.

use std::time::Duration;

use super::error::Error;
use super::process::{find_program, run};
use crate::packages::{self, Needed};

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
    let found = |needed: &Needed| find_program(needed.programs).is_some();
    packages::require(needed, install, found, |command| run(command, Duration::from_secs(600)).map(drop))
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
