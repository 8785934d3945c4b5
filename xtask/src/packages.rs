//! Programs from Debian packages that a task needs.

use std::process::Command;

use crate::error::Common;

/// A program and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// Names or paths; one of them is enough.
    pub programs: &'static [&'static str],
    /// Its package.
    pub package: &'static str,
}

/// Fails with what to install when programs are missing; installs them first when asked to. `found` says whether one is
/// there, and `run` runs a program to its end.
pub fn require<E: From<Common>>(
    needed: &[Needed],
    install: bool,
    found: impl Fn(&Needed) -> bool,
    run: impl Fn(&mut Command) -> Result<(), E>,
) -> Result<(), E> {
    let missing = || needed.iter().filter(|needed| !found(needed)).copied().collect::<Vec<_>>();
    let mut absent = missing();
    if install && !absent.is_empty() {
        let packages = packages(&absent);
        eprintln!("==> installing Debian packages: {}", packages.join(" "));
        let apt = |arguments: &[&str]| {
            run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
        };
        apt(&["update", "-qq"])?;
        apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())?;
        absent = missing();
    }
    if absent.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = absent.iter().map(|needed| needed.programs[0]).collect();
    Err(Common::missing(programs.join(", "), packages(&absent).join(" ")).into())
}

fn packages(needed: &[Needed]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needed.iter().map(|needed| needed.package).collect();
    packages.dedup();
    packages
}
