//! Mounts of the container that its shim makes, on the root file system that libcontainer then takes over whole.
//!
//! libcontainer could make them too, but resolves each target with some seventy system calls; here it is a handful. What
//! is left to it is what must be mounted from inside the container's namespaces.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags};

use crate::exit::Failure;
use crate::mountpoints;
use crate::spec::{Planned, What};
use crate::sys;

/// Mounts what is planned below `root`, in order.
pub(super) fn mount_all(root: BorrowedFd<'_>, plan: &[Planned]) -> Result<(), Failure> {
    for mount in plan.iter().filter(|mount| !mount.is_inner()) {
        mount_one(root, mount).map_err(|error| {
            Failure::runtime(
                format_args!("cannot mount at {} in the container", mount.place.path.display()),
                error,
            )
        })?;
    }
    Ok(())
}

fn mount_one(root: BorrowedFd<'_>, mount: &Planned) -> io::Result<()> {
    let made = make(&mount.what)?;
    // Opened only now: it may be in what was mounted right before.
    let place = mountpoints::open_or_make(root, &mount.place)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&made, "", &place, "", flags)?)
}

/// A mount that is attached nowhere yet.
fn make(what: &What) -> io::Result<OwnedFd> {
    match what {
        What::Bind { source, read_only } => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE;
            let mount = rustix::mount::open_tree(CWD, source, flags)?;
            sys::settle_mount(&mount, *read_only)?;
            Ok(mount)
        }
        What::New { kind, attributes, options } => {
            let context = rustix::mount::fsopen(*kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_set_string(&context, "source", *kind)?;
            for (key, value) in options {
                rustix::mount::fsconfig_set_string(&context, *key, value)?;
            }
            rustix::mount::fsconfig_create(&context).map_err(|errno: Errno| io::Error::from(errno))?;
            Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, *attributes)?)
        }
    }
}
