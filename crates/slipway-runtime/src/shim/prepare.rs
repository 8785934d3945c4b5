//! From a configuration to a process that waits for its start: namespaces, cgroup, root file system, libcontainer.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::container::Container as OciContainer;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::pipe::PipeFlags;
use slipway_types::container::NetworkMode;

use super::launch::{Launch, Launcher};
use super::mounts;
use super::session::Pipes;
use crate::cgroup::{self, Cgroup, View};
use crate::config::{ContainerConfig, Process};
use crate::exit::Failure;
use crate::mountpoints::{self, MountPoint};
use crate::rootfs::{self, Overlay};
use crate::spec::{self, Planned, Sources};
use crate::user::{self, ResolvedUser};
use crate::{files, sys};

/// Size of the process's output pipes, in bytes; the kernel's default is 64 KiB.
const PIPE_BYTES: usize = 256 << 10;
/// Where the shim mounts a small file system of its own, for everything that need not outlive it. On disk, each of these
/// files would cost the search for a free inode.
const RUN_DIR: &str = "run";
/// Size of that file system, in bytes.
const RUN_BYTES: &CStr = c"mode=700,size=16m";
/// libcontainer's folder: the bundle, and its own state by id.
const OCI_DIR: &str = "run/oci";
/// Where the root file system is mounted.
const ROOTFS_DIR: &str = "run/rootfs";
/// Where mount points are made that the image lacks.
const STUBS_DIR: &str = "run/stubs";

/// The process's ends of its standard streams.
pub(super) struct ChildStdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// A container that waits for its start.
pub(super) struct Prepared {
    pub(super) container: OciContainer,
    pub(super) launch: Launch,
}

/// Both ends of a process's streams.
pub(super) fn stdio(interactive: bool) -> Result<(Pipes, ChildStdio), Failure> {
    let fault = |errno: rustix::io::Errno| Failure::runtime("cannot make pipes", errno);
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(fault);
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    for fd in [&stdout, &stderr] {
        // Fewer turns of the loop; a user's quota of pipe memory may forbid it.
        let _ = rustix::pipe::fcntl_setpipe_size(fd, PIPE_BYTES);
    }
    let (stdin, stdin_end) = if interactive {
        let (end, ours) = pipe()?;
        (Some(ours), end)
    } else {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        (None, rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(fault)?)
    };
    let child = ChildStdio { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end };
    Ok((Pipes { stdin, stdout, stderr }, child))
}

impl ChildStdio {
    /// Makes the pipes the user's, so that it may open `/dev/stdout` and the like again.
    pub(super) fn give_to(&self, user: &ResolvedUser, interactive: bool) -> Result<(), Failure> {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        let stdin = interactive.then_some(&self.stdin);
        for fd in [Some(&self.stdout), Some(&self.stderr), stdin].into_iter().flatten() {
            rustix::fs::fchown(fd, Some(uid), Some(gid))
                .map_err(|errno| Failure::runtime("cannot give the pipes to the user", errno))?;
        }
        Ok(())
    }

    /// What init and exec tell libcontainer alike.
    pub(super) fn builder(
        self,
        id: &str,
        dir: &Path,
        launcher: Launcher,
    ) -> Result<ContainerBuilder, Failure> {
        ContainerBuilder::new(id.to_owned(), SyscallType::default())
            .with_executor(launcher)
            .with_stdin(self.stdin)
            .with_stdout(self.stdout)
            .with_stderr(self.stderr)
            .with_root_path(oci_dir(dir))
            .map_err(|error| Failure::from_error(&error))
    }
}

/// libcontainer's folder of a container.
pub(super) fn oci_dir(dir: &Path) -> PathBuf {
    dir.join(OCI_DIR)
}

/// Where a container's root is, as seen by its shim.
pub(super) fn rootfs_dir(dir: &Path) -> PathBuf {
    dir.join(ROOTFS_DIR)
}

/// Folder for files that need not outlive the shim, as seen by it and those that entered its mount namespace.
pub(super) fn run_dir(dir: &Path) -> PathBuf {
    dir.join(RUN_DIR)
}

/// Does everything up to, and not including, the start. What it leaves behind on failure is the cgroup, which the caller
/// removes in any case, and mounts in this process's own namespace, which go with it.
pub(super) fn prepare(
    dir: &Path,
    config: &ContainerConfig,
    cgroup: &Cgroup,
    stdio: ChildStdio,
) -> Result<Prepared, Failure> {
    isolate(config.network)?;
    cgroup.create(dir).map_err(|error| Failure::from_error(&error))?;
    let run = run_dir(dir);
    let mounted = std::fs::create_dir(&run).and_then(|()| {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        Ok(rustix::mount::mount("slipway", &run, "tmpfs", flags, RUN_BYTES)?)
    });
    mounted.map_err(|error| Failure::runtime("cannot make a place for the container's files", error))?;
    let view = cgroup.view();
    let sources = Sources { cgroup: cgroup_source(&view, &run), etc: run.join("etc") };
    write_etc(&sources.etc, config)
        .map_err(|error| Failure::runtime("cannot write the files for /etc", error))?;
    show_cgroup(&view, &sources.cgroup)
        .map_err(|error| Failure::runtime("cannot show the container its cgroup", error))?;
    let plan = spec::plan(config, &sources).map_err(|(path, error)| {
        Failure::runtime(format_args!("the bind mount's source {} cannot be used", path.display()), error)
    })?;
    let root = mount_root(dir, config, &plan)?;
    let user =
        user::resolve(root.as_fd(), &config.process.user).map_err(|error| Failure::from_error(&error))?;
    make_cwd(root.as_fd(), config, &plan)?;
    mounts::mount_all(root.as_fd(), &plan)?;
    drop(root);
    stdio.give_to(&user, config.interactive)?;
    let env = spec::environment(&config.process.env, &config.hostname, &user);
    let process = Process { env: env.clone(), ..config.process.clone() };
    let specification = spec::specification(
        config,
        &rootfs_dir(dir),
        &plan,
        spec::process(&process, &env, &user),
        &cgroup::stand_in_path(&run),
    );
    let bundle = oci_dir(dir);
    let written = std::fs::create_dir(&bundle)
        .and_then(|()| cgroup::make_stand_in(&run))
        .and_then(|()| files::write_json(&bundle, "config.json", &specification, false));
    written.map_err(|error| Failure::runtime("cannot write the specification", error))?;
    let (launch, launcher) = Launch::new(&process.args, &env, None)?;
    let builder = stdio.builder(config.id.as_str(), dir, launcher)?;
    let container =
        in_cgroup(cgroup, || builder.as_init(&bundle).with_systemd(false).with_detach(true).build())?;
    // Only now: they are the container's, not those of what makes it.
    cgroup.limit(&config.limits).map_err(|error| Failure::from_error(&error))?;
    Ok(Prepared { container, launch })
}

/// Has libcontainer make a process, which is born where this one is meanwhile: in the container's cgroup.
pub(super) fn in_cgroup<T>(
    cgroup: &Cgroup,
    make: impl FnOnce() -> Result<T, LibcontainerError>,
) -> Result<T, Failure> {
    let visit = cgroup.visit().map_err(|error| Failure::from_error(&error))?;
    let made = make();
    visit.leave().map_err(|error| Failure::from_error(&error))?;
    made.map_err(|error| Failure::from_error(&error))
}

/// Namespaces of the shim itself. Mounts made from here on are seen by it and the container only and vanish with them;
/// those that go on the host go here too.
fn isolate(network: NetworkMode) -> Result<(), Failure> {
    let flags = match network {
        NetworkMode::None => libc::CLONE_NEWNS | libc::CLONE_NEWNET,
        NetworkMode::Host => libc::CLONE_NEWNS,
    };
    sys::unshare(flags).map_err(|error| Failure::runtime("cannot make namespaces", error))?;
    let slave = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    rustix::mount::mount_change("/", slave)
        .map_err(|errno| Failure::runtime("cannot separate mounts from the host's", errno))?;
    if network == NetworkMode::None {
        sys::raise_loopback().map_err(|error| Failure::runtime("cannot bring up loopback", error))?;
    }
    // The caller's groups would otherwise be the container's.
    sys::clear_groups().map_err(|error| Failure::runtime("cannot drop groups", error))
}

fn write_etc(etc: &Path, config: &ContainerConfig) -> io::Result<()> {
    let name = &config.hostname;
    let hosts =
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t{name}\n");
    std::fs::create_dir(etc)?;
    std::fs::write(etc.join("hosts"), hosts)?;
    std::fs::write(etc.join("hostname"), format!("{name}\n"))?;
    std::fs::write(etc.join("resolv.conf"), "")
}

fn cgroup_source(view: &View, run: &Path) -> PathBuf {
    match view {
        View::Folders(_) => run.join("cgroup"),
        View::Unified(folder) => folder.clone(),
    }
}

/// Gathers the container's folder of each cgroup v1 hierarchy under one.
fn show_cgroup(view: &View, at: &Path) -> io::Result<()> {
    let View::Folders(folders) = view else { return Ok(()) };
    std::fs::create_dir(at)?;
    for (name, folder) in folders {
        let place = at.join(name);
        std::fs::create_dir(&place)?;
        rustix::mount::mount_bind(folder, &place)?;
        // Controllers that share a hierarchy have their own names too.
        for alias in name.split(',').filter(|alias| alias != name) {
            std::os::unix::fs::symlink(name, at.join(alias))?;
        }
    }
    Ok(())
}

/// Mounts the root file system, with all that something will be mounted on, and opens it.
fn mount_root(dir: &Path, config: &ContainerConfig, plan: &[Planned]) -> Result<OwnedFd, Failure> {
    let from_overlay = |error: rootfs::OverlayError| Failure::from_error(&error);
    let layers: Vec<&Path> = config.rootfs.lowers.iter().map(PathBuf::as_path).collect();
    let upper = config.rootfs.upper.as_path();
    let stubs = dir.join(STUBS_DIR);
    let target = rootfs_dir(dir);
    for folder in [&stubs, &target] {
        std::fs::create_dir(folder)
            .map_err(|error| Failure::runtime(format_args!("cannot make {}", folder.display()), error))?;
    }
    let wanted: Vec<MountPoint> = plan.iter().map(|mount| mount.place.clone()).collect();
    // The image as it is, to see what it lacks.
    let made = {
        let image = Overlay { lowers: [&layers[..], &[upper]].concat(), upper: None, volatile: true };
        let root = open_image(&image, &target)?;
        mountpoints::make_stubs(root.as_fd(), &wanted, &stubs).map_err(|(path, error)| {
            Failure::runtime(format_args!("cannot mount at {} in the container", path.display()), error)
        })?
    };
    rootfs::unmount(&target).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => Ok(()),
        _ => Err(Failure::runtime("cannot unmount the image", error)),
    })?;
    let mut lowers = layers;
    if config.read_only {
        lowers.push(upper);
    }
    if made {
        lowers.push(&stubs);
    }
    let upper = (!config.read_only).then_some((upper, config.rootfs.work.as_path()));
    Overlay { lowers, upper, volatile: config.ephemeral }.mount_at(&target).map_err(from_overlay)?;
    files::open_dir(&target).map_err(|error| Failure::runtime("cannot open the container's root", error))
}

/// The merged layers, mounted nowhere if the kernel can, and else at `target`.
fn open_image(image: &Overlay<'_>, target: &Path) -> Result<OwnedFd, Failure> {
    match image.detached() {
        Ok(root) => Ok(root),
        Err(_) => {
            image.mount_at(target).map_err(|error| Failure::from_error(&error))?;
            files::open_dir(target).map_err(|error| Failure::runtime("cannot open the image", error))
        }
    }
}

/// Makes the working directory, as Docker does, unless it is in something that will be mounted.
fn make_cwd(
    root: std::os::fd::BorrowedFd<'_>,
    config: &ContainerConfig,
    plan: &[Planned],
) -> Result<(), Failure> {
    let cwd = &config.process.cwd;
    if plan.iter().any(|mount| crate::config::lexical(cwd).starts_with(&mount.place.path)) {
        return Ok(());
    }
    let place = MountPoint { path: cwd.clone(), folder: true };
    mountpoints::open_or_make(root, &place).map(drop).map_err(|error| {
        Failure::runtime(format_args!("the working directory {} cannot be made", cwd.display()), error)
    })
}
