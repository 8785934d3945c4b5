//! Programs from Debian packages that a node needs.

use std::path::Path;

use super::error::Error;
use super::programs::run;
use crate::packages::{self, Needed};

const CONTROL_PLANE: &[Needed] = &[
    Needed { programs: &["ip"], package: "iproute2" },
    Needed { programs: &["docker-registry"], package: "docker-registry" },
];
const NODE: &[Needed] = &[
    Needed { programs: &["containerd"], package: "containerd" },
    Needed { programs: &["ctr"], package: "containerd" },
    Needed { programs: &["runc"], package: "runc" },
    Needed { programs: &["nft"], package: "nftables" },
    Needed { programs: &["iptables"], package: "iptables" },
    Needed { programs: &["/usr/lib/cni/ptp"], package: "containernetworking-plugins" },
];

/// Fails with what to install when programs are missing; installs them first when asked to.
pub fn require(node: bool, install: bool) -> Result<(), Error> {
    let needed = [CONTROL_PLANE, if node { NODE } else { &[] }].concat();
    packages::require(&needed, install, |needed| needed.programs.iter().any(|name| exists(name)), run)
}

/// Looks in the folders where the cluster's programs look, whatever this process's PATH is.
fn exists(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|folder| Path::new(folder).join(program).exists())
}
