//! The overlay that is a container's root file system.
//!
//! Its upper folder must be a plain OCI layer, so every feature of overlayfs that leaves marks of its own there (index,
//! metacopy, directory redirects) is off.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags,
};

use crate::sys;

/// Settings of every overlay.
const SETTINGS: [(&str, &str); 4] =
    [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off"), ("xino", "off")];
/// Kernel's limit of layers (`OVL_MAX_STACK`).
const MAX_LOWERS: usize = 500;

/// Why an overlay cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A folder of it cannot be opened.
    #[error("cannot open the layer {path}")]
    Layer {
        /// The folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// More layers than the kernel stacks.
    #[error("{0} layers; the kernel stacks at most {MAX_LOWERS}")]
    TooManyLayers(usize),
    /// The kernel refuses.
    #[error("cannot mount an overlay of {layers} layers{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Mount {
        /// How many lower layers.
        layers: usize,
        /// The kernel's own words, where it gives some.
        detail: String,
        /// Cause.
        source: io::Error,
    },
    /// It cannot be put in its place.
    #[error("cannot attach the overlay to {path}")]
    Attach {
        /// The place.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// What to mount.
#[derive(Clone, Debug)]
pub(crate) struct Overlay<'a> {
    /// Lowest first.
    pub(crate) lowers: Vec<&'a Path>,
    /// Upper and work folder; read-only without.
    pub(crate) upper: Option<(&'a Path, &'a Path)>,
    /// Syncs nothing, not even when it is unmounted (which otherwise syncs the whole file system below).
    pub(crate) volatile: bool,
}

/// An overlay that is attached nowhere: use the descriptor as the base of `*at` calls (`openat2` with
/// `RESOLVE_IN_ROOT`); the mount goes when the last descriptor into it is closed.
///
/// `lowers` are lowest first. `read_only` stacks `upper` on them and leaves it and `work` untouched. Otherwise changes
/// go to `upper`; nothing is synced there, so whoever keeps them syncs them.
///
/// # Errors
/// When a folder is missing, or the kernel refuses the combination.
pub fn mount_detached(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    read_only: bool,
) -> Result<OwnedFd, OverlayError> {
    let mut layers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    let upper = if read_only {
        layers.push(upper);
        None
    } else {
        Some((upper, work))
    };
    let overlay = Overlay { lowers: layers, upper, volatile: true };
    match overlay.detached() {
        Err(error) if error.is_unsupported() => overlay.detached_by_thread(),
        other => other,
    }
}

impl OverlayError {
    /// The kernel lacks the calls or options, as opposed to refusing this mount. `lowerdir+` came with 6.5; before, it
    /// is an unknown parameter.
    fn is_unsupported(&self) -> bool {
        matches!(self, Self::Mount { source, detail, .. }
            if source.raw_os_error() == Some(libc::ENOSYS)
                || (source.raw_os_error() == Some(libc::EINVAL) && detail.contains("lowerdir+")))
    }
}

impl Overlay<'_> {
    /// Mounts it at `target`, in this mount namespace.
    pub(crate) fn mount_at(&self, target: &Path) -> Result<(), OverlayError> {
        let mount = match self.detached() {
            Err(error) if error.is_unsupported() => return self.mount_classic(target),
            other => other?,
        };
        rustix::mount::move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| OverlayError::Attach { path: target.to_owned(), source: errno.into() })
    }

    /// By the mount API of Linux 5.2, attached nowhere.
    pub(crate) fn detached(&self) -> Result<OwnedFd, OverlayError> {
        self.prepare()?;
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| self.refused(errno, String::new()))?;
        let configured = self.configure(&context);
        configured.map_err(|(errno, step)| {
            let words = kernel_words(&context);
            self.refused(errno, if words.is_empty() { step } else { words })
        })?;
        let mut flags = MountAttrFlags::empty();
        if self.upper.is_none() {
            flags |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
            .map_err(|errno| self.refused(errno, kernel_words(&context)))
    }

    fn configure(&self, context: &OwnedFd) -> Result<(), (Errno, String)> {
        let set = |key: &str, value: &Path| {
            rustix::mount::fsconfig_set_string(context, key, value).map_err(|errno| (errno, key.to_owned()))
        };
        set("source", Path::new("slipway"))?;
        // Appended from the top down.
        for lower in self.lowers.iter().rev() {
            set("lowerdir+", lower)?;
        }
        if let Some((upper, work)) = self.upper {
            set("upperdir", upper)?;
            set("workdir", work)?;
        }
        for (key, value) in SETTINGS {
            set(key, Path::new(value))?;
        }
        if self.volatile && self.upper.is_some() {
            rustix::mount::fsconfig_set_flag(context, "volatile")
                .map_err(|errno| (errno, "volatile".to_owned()))?;
        }
        rustix::mount::fsconfig_create(context).map_err(|errno| (errno, String::new()))
    }

    /// By mount(2), for kernels before 6.5. Its options must fit one page, so layers are named by descriptor.
    fn mount_classic(&self, target: &Path) -> Result<(), OverlayError> {
        self.prepare()?;
        let open = |path: &Path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| OverlayError::Layer { path: path.to_owned(), source: errno.into() })
        };
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let lowers = self.lowers.iter().rev().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut options = format!("lowerdir={}", lowers.iter().map(name).collect::<Vec<_>>().join(":"));
        let mut kept = Vec::new();
        if let Some((upper, work)) = self.upper {
            let (upper, work) = (open(upper)?, open(work)?);
            options.push_str(&format!(",upperdir={},workdir={}", name(&upper), name(&work)));
            kept.extend([upper, work]);
        }
        for (key, value) in SETTINGS {
            options.push_str(&format!(",{key}={value}"));
        }
        if self.volatile && self.upper.is_some() {
            options.push_str(",volatile");
        }
        let flags = if self.upper.is_none() { MountFlags::RDONLY } else { MountFlags::empty() };
        let options = CString::new(options).map_err(|_| self.refused(Errno::INVAL, String::new()))?;
        rustix::mount::mount("slipway", target, "overlay", flags, options.as_c_str())
            .map_err(|errno| self.refused(errno, String::new()))
    }

    /// Mounts it in the mount namespace of a thread that ends at once; what keeps the mount is the descriptor.
    fn detached_by_thread(&self) -> Result<OwnedFd, OverlayError> {
        let refused =
            |source| OverlayError::Mount { layers: self.lowers.len(), detail: String::new(), source };
        let lowest = *self.lowers.first().ok_or(OverlayError::TooManyLayers(0))?;
        // Any folder does as the place: nobody else sees this namespace.
        let place = self.upper.map_or(lowest, |(upper, _)| upper);
        let mounted = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                sys::unshare(libc::CLONE_NEWNS).map_err(refused)?;
                let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
                rustix::mount::mount_change("/", private).map_err(|errno| refused(errno.into()))?;
                self.mount_classic(place)?;
                crate::files::open_dir(place).map_err(refused)
            });
            thread.join()
        });
        mounted.unwrap_or_else(|_| Err(refused(io::Error::other("the mounting thread panicked"))))
    }

    fn prepare(&self) -> Result<(), OverlayError> {
        if self.lowers.len() > MAX_LOWERS {
            return Err(OverlayError::TooManyLayers(self.lowers.len()));
        }
        let folders = self.upper.iter().flat_map(|(upper, work)| [*upper, *work]);
        for path in self.lowers.iter().copied().chain(folders) {
            let found = std::fs::metadata(path).and_then(|found| {
                if found.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
            });
            found.map_err(|source| OverlayError::Layer { path: path.to_owned(), source })?;
        }
        if let Some((_, work)) = self.upper {
            // A volatile mount marks its work folder, and the kernel then refuses it, since after a crash of the
            // machine the upper folder may be torn. Those who use volatile mounts here discard both after a crash.
            match std::fs::remove_dir_all(work.join("work/incompat")) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(OverlayError::Layer { path: work.to_owned(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn refused(&self, errno: Errno, detail: String) -> OverlayError {
        OverlayError::Mount { layers: self.lowers.len(), detail, source: errno.into() }
    }
}

/// Unmounts what [`Overlay::mount_at`] mounted; the upper folder is quiet when this returns, unless a process is left
/// that holds a file open.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::empty()) {
        Err(Errno::BUSY) => Ok(rustix::mount::unmount(target, UnmountFlags::DETACH)?),
        other => Ok(other?),
    }
}

/// Messages that the kernel left in a mount context, without their severity.
fn kernel_words(context: &impl AsFd) -> String {
    let mut words = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count) = rustix::io::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..count]);
        let text = text.trim();
        words.push(text.strip_prefix("e ").unwrap_or(text).to_owned());
        if count == 0 || words.len() > 8 {
            break;
        }
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;

    struct Layers {
        dir: tempfile::TempDir,
    }

    impl Layers {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["a", "b", "upper", "work"] {
                std::fs::create_dir(dir.path().join(name)).unwrap();
            }
            std::fs::write(dir.path().join("a/one"), "a").unwrap();
            std::fs::write(dir.path().join("b/one"), "b").unwrap();
            std::fs::write(dir.path().join("a/two"), "a").unwrap();
            Self { dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn overlay<'a>(&self, paths: &'a [PathBuf; 4]) -> Overlay<'a> {
            Overlay {
                lowers: vec![&paths[0], &paths[1]],
                upper: Some((&paths[2], &paths[3])),
                volatile: true,
            }
        }

        fn paths(&self) -> [PathBuf; 4] {
            ["a", "b", "upper", "work"].map(|name| self.path(name))
        }
    }

    fn read(root: &OwnedFd, name: &str) -> io::Result<String> {
        std::fs::read_to_string(format!("/proc/self/fd/{}/{name}", root.as_raw_fd()))
    }

    fn exercise(layers: &Layers, mount: impl Fn(&Overlay<'_>) -> Result<OwnedFd, OverlayError>) {
        let paths = layers.paths();
        let root = mount(&layers.overlay(&paths)).unwrap();
        assert_eq!(read(&root, "one").unwrap(), "b", "the later layer wins");
        let base = format!("/proc/self/fd/{}", root.as_raw_fd());
        std::fs::write(format!("{base}/new"), "n").unwrap();
        std::fs::remove_file(format!("{base}/two")).unwrap();
        drop(root);
        assert_eq!(std::fs::read_to_string(layers.path("upper/new")).unwrap(), "n");
        let gone = std::fs::symlink_metadata(layers.path("upper/two")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0, "a whiteout");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(layers.dir.path().to_str().unwrap()), "nothing is mounted here");
        // Again, over what was left: the mark of the volatile mount is no obstacle.
        let root = mount(&layers.overlay(&paths)).unwrap();
        assert_eq!(read(&root, "new").unwrap(), "n");
        assert!(read(&root, "two").is_err());
    }

    #[test]
    fn detached_overlay_by_the_new_api() {
        exercise(&Layers::new(), |overlay| overlay.detached());
    }

    #[test]
    fn detached_overlay_by_a_thread() {
        exercise(&Layers::new(), |overlay| overlay.detached_by_thread());
    }

    #[test]
    fn read_only_touches_nothing() {
        let layers = Layers::new();
        std::fs::write(layers.path("upper/three"), "u").unwrap();
        let lowers = [layers.path("a"), layers.path("b")];
        let root = mount_detached(&lowers, &layers.path("upper"), &layers.path("work"), true).unwrap();
        assert_eq!(read(&root, "three").unwrap(), "u");
        let denied = std::fs::write(format!("/proc/self/fd/{}/x", root.as_raw_fd()), "x").unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(std::fs::read_dir(layers.path("work")).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_layer_is_named() {
        let layers = Layers::new();
        let lowers = [layers.path("nope")];
        let error = mount_detached(&lowers, &layers.path("upper"), &layers.path("work"), false).unwrap_err();
        assert!(error.to_string().ends_with("nope"), "{error}");
    }

    #[test]
    fn odd_names_are_layers_too() {
        let layers = Layers::new();
        let odd = layers.path("a:b,c\\d");
        std::fs::create_dir(&odd).unwrap();
        std::fs::write(odd.join("odd"), "o").unwrap();
        let lowers = [layers.path("a"), odd];
        let root = mount_detached(&lowers, &layers.path("upper"), &layers.path("work"), false).unwrap();
        assert_eq!(read(&root, "odd").unwrap(), "o");
    }
}
