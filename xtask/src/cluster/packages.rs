//! Programs from Debian packages that a node needs.

use std::path::Path;
use std::process::Command;

use super::error::Error;
use super::programs::run;

/// A program and the Debian package that has it.
type Needed = (&'static str, &'static str);

const CONTROL_PLANE: &[Needed] = &[("ip", "iproute2"), ("docker-registry", "docker-registry")];
const NODE: &[Needed] = &[
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
];

/// Fails with what to install when programs are missing; installs them first when asked to.
pub fn require(node: bool, install: bool) -> Result<(), Error> {
    let needed: Vec<_> = CONTROL_PLANE.iter().chain(if node { NODE } else { &[] }).copied().collect();
    if install && !missing(&needed).is_empty() {
        let apt = |arguments: &[&str]| {
            run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
        };
        let packages = packages(&missing(&needed));
        eprintln!("==> installing Debian packages: {}", packages.join(" "));
        apt(&["update", "-qq"])?;
        apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())?;
    }
    let missing = missing(&needed);
    if missing.is_empty() {
        return Ok(());
    }
    let programs = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
    Err(Error::Missing { programs, packages: packages(&missing).join(" ") })
}

fn missing(needed: &[Needed]) -> Vec<Needed> {
    let exists = |program: &str| {
        // The folders where the cluster's programs look, whatever this process's PATH is.
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(program).exists())
    };
    needed.iter().filter(|(program, _)| !exists(program)).copied().collect()
}

fn packages(needed: &[Needed]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needed.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}
