//! The OCI runtime specification that libcontainer is given, and what is mounted where.

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;
use serde_json::{Value, json};
use slipway_types::container::{Mount, NetworkMode};

use crate::config::{ContainerConfig, Process, lexical, target_of};
use crate::mountpoints::MountPoint;
use crate::user::ResolvedUser;

/// Where programs are looked for when the environment does not say, as Docker has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's default set.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Kernel files that tell about the host, or let it be changed; Docker's list.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) place: MountPoint,
    pub(crate) what: What,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A file or folder of the host, with what is mounted below it; read-only then holds for all of it.
    Bind { source: PathBuf, read_only: bool },
    /// A file system of its own.
    New { kind: &'static str, attributes: MountAttrFlags, options: Vec<(&'static str, String)> },
}

/// Folders and files of the container's folder that are mounted into it.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// Folder to bind at `/sys/fs/cgroup`.
    pub(crate) cgroup: PathBuf,
    /// Folder of `hosts`, `hostname` and `resolv.conf`.
    pub(crate) etc: PathBuf,
}

impl Planned {
    /// Shows what only a process inside the new namespaces can mount, so libcontainer does it.
    pub(crate) fn is_inner(&self) -> bool {
        matches!(self.what, What::New { kind: "proc" | "mqueue", .. })
    }
}

/// What is mounted, in order.
///
/// # Errors
/// Names a bind mount's source that does not exist.
pub(crate) fn plan(
    config: &ContainerConfig,
    sources: &Sources,
) -> Result<Vec<Planned>, (PathBuf, io::Error)> {
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let noexec = nosuid | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let plain = noexec | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mut plan = vec![
        new("/proc", "proc", plain, &[]),
        new("/dev", "tmpfs", nosuid, &[("mode", "755"), ("size", "65536k")]),
        new("/dev/pts", "devpts", noexec, &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")]),
        new("/dev/shm", "tmpfs", plain, &[("mode", "1777"), ("size", &config.shm_bytes.to_string())]),
        new("/dev/mqueue", "mqueue", plain, &[]),
        new("/sys", "sysfs", plain | MountAttrFlags::MOUNT_ATTR_RDONLY, &[]),
        bind("/sys/fs/cgroup", &sources.cgroup, true, true),
    ];
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        let host = Path::new(&target);
        // The host's own, read-only; of a host without one, the generated.
        let hosts_own = config.network == NetworkMode::Host && name != "hostname" && host.is_file();
        let own = sources.etc.join(name);
        let source = if hosts_own { host } else { own.as_path() };
        plan.push(bind(&target, source, false, hosts_own || config.read_only));
    }
    let mut asked: Vec<Planned> = config.mounts.iter().map(planned).collect::<Result<_, _>>()?;
    // What is above is mounted first; otherwise in the order given.
    asked.sort_by_key(|mount| mount.place.path.components().count());
    plan.retain(|mount| asked.iter().all(|other| other.place.path != mount.place.path));
    plan.extend(asked);
    Ok(plan)
}

fn planned(mount: &Mount) -> Result<Planned, (PathBuf, io::Error)> {
    let target = lexical(target_of(mount));
    match mount {
        Mount::Bind { source, read_only, .. } => {
            let found = std::fs::metadata(source).map_err(|error| (source.clone(), error))?;
            Ok(bind(target, source, found.is_dir(), *read_only))
        }
        Mount::Tmpfs { size, .. } => {
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            let mut planned = new("", "tmpfs", attributes, &[("mode", "1777")]);
            planned.place.path = target;
            if let (What::New { options, .. }, Some(bytes)) = (&mut planned.what, size) {
                options.push(("size", bytes.to_string()));
            }
            Ok(planned)
        }
    }
}

fn new(
    target: &str,
    kind: &'static str,
    attributes: MountAttrFlags,
    options: &[(&'static str, &str)],
) -> Planned {
    let options = options.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let place = MountPoint { path: target.into(), folder: true };
    Planned { place, what: What::New { kind, attributes, options } }
}

fn bind(target: impl Into<PathBuf>, source: &Path, folder: bool, read_only: bool) -> Planned {
    let place = MountPoint { path: target.into(), folder };
    Planned { place, what: What::Bind { source: source.to_owned(), read_only } }
}

/// The environment that a process gets: the later of two values, and `PATH`, `HOSTNAME` and `HOME` if missing.
///
/// `HOME` must never be missing or empty when libcontainer sees it: it would ask the name service for it, inside the
/// container's root, and so load the container's libraries into a process of the host.
pub(crate) fn environment(given: &[String], hostname: &str, user: &ResolvedUser) -> Vec<String> {
    fn key(pair: &str) -> &str {
        pair.split_once('=').map_or(pair, |(key, _)| key)
    }
    let mut env: Vec<String> = Vec::with_capacity(given.len() + 3);
    for pair in given {
        match env.iter_mut().find(|other| key(other) == key(pair)) {
            Some(other) => pair.clone_into(other),
            None => env.push(pair.clone()),
        }
    }
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOSTNAME", hostname), ("HOME", user.home.as_str())] {
        match env.iter_mut().find(|pair| key(pair) == name) {
            Some(pair) if name == "HOME" && pair.len() == "HOME=".len() => *pair = format!("HOME={value}"),
            Some(_) => {}
            None => env.push(format!("{name}={value}")),
        }
    }
    env
}

/// Full paths that a program may have, in the order of `PATH`; just itself when it is a path.
pub(crate) fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
}

/// The `process` part, also that of an `exec`.
pub(crate) fn process(process: &Process, env: &[String], user: &ResolvedUser) -> Value {
    json!({
        "terminal": false,
        "user": { "uid": user.uid, "gid": user.gid, "umask": 0o022, "additionalGids": user.groups },
        "args": process.args,
        "env": env,
        "cwd": process.cwd,
        // None inheritable or ambient: a process that is not root has none.
        "capabilities": {
            "bounding": CAPABILITIES,
            "effective": CAPABILITIES,
            "permitted": CAPABILITIES,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": true,
    })
}

/// The whole specification. Limits, the system call filter and most mounts are not in it: they are applied elsewhere.
pub(crate) fn specification(
    config: &ContainerConfig,
    rootfs: &Path,
    plan: &[Planned],
    process: Value,
    cgroup: &Path,
) -> Value {
    let mounts: Vec<Value> = plan
        .iter()
        .filter(|mount| mount.is_inner())
        .filter_map(|mount| match mount.what {
            What::New { kind, .. } => Some(json!({
                "destination": mount.place.path,
                "type": kind,
                "source": kind,
                "options": ["nosuid", "noexec", "nodev"],
            })),
            What::Bind { .. } => None,
        })
        .collect();
    let mut namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "cgroup"].iter().map(|kind| json!({ "type": kind })).collect();
    if config.network == NetworkMode::None {
        // The shim is in it already. Naming it makes an exec join it.
        namespaces.push(json!({ "type": "network", "path": "/proc/self/ns/net" }));
    }
    json!({
        "ociVersion": "1.2.0",
        "hostname": config.hostname,
        "root": { "path": rootfs, "readonly": config.read_only },
        "process": process,
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup,
            "rootfsPropagation": "private",
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::sample;

    fn user(home: &str) -> ResolvedUser {
        ResolvedUser { uid: 5, gid: 6, groups: vec![7], home: home.to_owned() }
    }

    fn sources() -> Sources {
        Sources { cgroup: "/d/cgroup".into(), etc: "/d/etc".into() }
    }

    #[test]
    fn environments_are_complete() {
        let given = ["A=1", "PATH=/x", "A=2", "HOME="].map(str::to_owned);
        assert_eq!(environment(&given, "box", &user("/h")), ["A=2", "PATH=/x", "HOME=/h", "HOSTNAME=box"]);
        let env = environment(&["HOME=/mine".to_owned()], "box", &user("/h"));
        assert_eq!(env[0], "HOME=/mine");
        assert!(env.contains(&format!("PATH={DEFAULT_PATH}")));
    }

    #[test]
    fn programs_are_looked_for() {
        let env = ["PATH=/a::/b".to_owned()];
        assert_eq!(candidates("sh", &env), ["/a/sh", "./sh", "/b/sh"]);
        assert_eq!(candidates("./sh", &env), ["./sh"]);
        assert_eq!(candidates("sh", &[]).len(), 6);
    }

    #[test]
    fn mounts_are_ordered_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = sample();
        config.mounts = vec![
            Mount::Bind { source: dir.path().into(), target: "/data/deep".into(), read_only: true },
            Mount::Tmpfs { target: "/dev/shm/".into(), size: Some(9) },
            Mount::Tmpfs { target: "/data".into(), size: None },
        ];
        let plan = plan(&config, &sources()).unwrap();
        let targets: Vec<_> = plan.iter().map(|mount| mount.place.path.to_str().unwrap()).collect();
        assert_eq!(targets.iter().filter(|target| **target == "/dev/shm").count(), 1);
        assert_eq!(targets[targets.len() - 3..], ["/data", "/data/deep", "/dev/shm"]);
        assert!(matches!(plan[plan.len() - 2].what, What::Bind { read_only: true, .. }));
        config.mounts =
            vec![Mount::Bind { source: "/no/such".into(), target: "/x".into(), read_only: false }];
        let (path, _) = super::plan(&config, &sources()).unwrap_err();
        assert_eq!(path, Path::new("/no/such"));
    }

    #[test]
    fn libcontainer_understands_it() {
        let config = sample();
        let env = environment(&config.process.env, &config.hostname, &user("/"));
        let plan = plan(&config, &sources()).unwrap();
        let value = specification(
            &config,
            Path::new("/d/rootfs"),
            &plan,
            process(&config.process, &env, &user("/")),
            Path::new("/slipway/x"),
        );
        let spec: libcontainer::oci_spec::runtime::Spec = serde_json::from_value(value).unwrap();
        assert_eq!(spec.mounts().as_ref().unwrap().len(), 2, "proc and mqueue");
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.no_new_privileges(), Some(true));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[7][..]));
        assert_eq!(process.user().umask(), Some(0o022));
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
        assert!(linux.resources().is_none(), "limits are applied by this crate");
    }
}
