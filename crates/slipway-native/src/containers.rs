//! Containers of this host by id.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use slipway_image::store::{Store, StoredImage};
use slipway_runtime::{Container, ContainerConfig, Rootfs};
use slipway_types::Digest;
use slipway_types::container::{ContainerId, ContainerSpec, ContainerState, Mount};

use crate::config::{LaunchPlan, plan_launch};
use crate::error::{NativeError, io};
use crate::volumes;

/// Containers below one folder, made from one store's images. A cheap clone.
#[derive(Clone)]
pub struct Native {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    root: PathBuf,
    exe: PathBuf,
}

/// Says that a container's folder is complete.
const CONFIG_FILE: &str = "config.json";
const SIGKILL: i32 = 9;
/// How long a container may take to end after `SIGKILL`.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Kind of the pin that keeps a container's image in the store.
const PIN: &str = "container";

impl Native {
    /// Containers below `root`; `exe` is a program whose first argument `shim` makes it the shim.
    pub fn new(store: Store, root: PathBuf, exe: PathBuf) -> Self {
        Self { shared: Arc::new(Shared { store, root, exe }) }
    }

    /// The store that images come from.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The folder that holds the containers.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// The program that becomes the shim.
    pub fn exe(&self) -> &Path {
        &self.shared.exe
    }

    /// The folder of one container.
    pub fn dir(&self, id: &ContainerId) -> PathBuf {
        self.shared.root.join(id.as_str())
    }

    /// The container of this id.
    ///
    /// # Errors
    /// When it has no folder, or its configuration cannot be read.
    pub fn container(&self, id: &ContainerId) -> Result<Container, NativeError> {
        Container::open(&self.dir(id)).map_err(|source| NativeError::Runtime { id: id.clone(), source })
    }

    /// Whether a container is all there: not before it is made, and not any more once its removal has begun.
    pub fn is_complete(&self, id: &ContainerId) -> bool {
        self.dir(id).join(CONFIG_FILE).exists()
    }

    /// What a container of this image would execute.
    pub fn plan(
        &self,
        image: &Digest,
        spec: &ContainerSpec,
    ) -> Result<(StoredImage, LaunchPlan), NativeError> {
        let image = self.shared.store.image(image)?;
        let plan = plan_launch(&image.config, spec)?;
        Ok((image, plan))
    }

    /// Makes the container's folder and starts its shim. `adjust` may change the configuration before.
    ///
    /// # Errors
    /// When the image is not in the store, a mount's source does not exist, or the runtime refuses; nothing stays.
    pub fn launch(
        &self,
        id: &ContainerId,
        image: &StoredImage,
        plan: &LaunchPlan,
        spec: &ContainerSpec,
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Result<Container, NativeError> {
        for mount in &spec.mounts {
            if let Mount::Bind { source, .. } = mount
                && !source.exists()
            {
                return Err(NativeError::MountSource(source.clone()));
            }
        }
        let lowers = self.shared.store.layer_paths(&image.id)?;
        self.shared.store.pin(PIN, id.as_str(), &image.id)?;
        self.launch_over(id, lowers, plan, spec, adjust).inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.discard(id);
        })
    }

    fn launch_over(
        &self,
        id: &ContainerId,
        lowers: Vec<PathBuf>,
        plan: &LaunchPlan,
        spec: &ContainerSpec,
        adjust: impl FnOnce(&mut ContainerConfig),
    ) -> Result<Container, NativeError> {
        let dir = self.dir(id);
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        folder(&dir, 0o700)?;
        folder(&upper, 0o755)?;
        folder(&work, 0o700)?;
        let mounts = volumes::prepare(id, &dir, &lowers, spec)?;
        let rootfs = Rootfs { lowers, upper, work };
        let mut config = ContainerConfig::new(id.clone(), rootfs, plan.process.clone());
        config.read_only = spec.read_only;
        config.mounts = mounts;
        config.network = spec.network;
        config.limits = spec.limits;
        config.stop_signal.clone_from(&plan.stop_signal);
        config.interactive = spec.interactive;
        config.log = true;
        config.ephemeral = spec.auto_remove;
        adjust(&mut config);
        let fail = |source| NativeError::Runtime { id: id.clone(), source };
        let container = Container::create(&dir, &config).map_err(fail)?;
        container.spawn_shim(&self.shared.exe).map_err(fail)?;
        Ok(container)
    }

    /// Removes a container that does not run, and the pin of its image.
    pub fn remove(&self, id: &ContainerId) -> Result<(), NativeError> {
        let dir = self.dir(id);
        if self.is_complete(id) {
            self.container(id)?.remove().map_err(|source| NativeError::Runtime { id: id.clone(), source })?;
        } else if dir.exists() {
            // Its making was cut short before there was anything to run.
            std::fs::remove_dir_all(&dir).map_err(io("remove", &dir))?;
        }
        self.shared.store.unpin(PIN, id.as_str())?;
        Ok(())
    }

    /// Ends a container whatever state it is in, and removes it.
    pub fn discard(&self, id: &ContainerId) -> Result<(), NativeError> {
        if self.is_complete(id) {
            let container = self.container(id)?;
            let fail = |source| NativeError::Runtime { id: id.clone(), source };
            if container.observe().map_err(fail)?.state != ContainerState::Exited
                && (container.signal(SIGKILL).is_err() || container.wait_exit(Some(KILL_LIMIT)).is_err())
            {
                // Its shim is gone, or could not write down how it ended.
                container.destroy().map_err(|source| NativeError::Runtime { id: id.clone(), source })?;
            }
        }
        self.remove(id)
    }

    /// Ids of every container's folder.
    pub fn ids(&self) -> Result<Vec<ContainerId>, NativeError> {
        let entries = match std::fs::read_dir(&self.shared.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io("list", &self.shared.root)(source)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io("list", &self.shared.root))?;
            ids.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        Ok(ids)
    }

    /// Drops pins of containers that are gone.
    pub fn drop_stale_pins(&self) -> Result<(), NativeError> {
        for (name, _) in self.shared.store.pins(PIN)? {
            let gone = name.parse::<ContainerId>().is_ok_and(|id| !self.dir(&id).exists());
            if gone {
                self.shared.store.unpin(PIN, &name)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn folder(path: &Path, mode: u32) -> Result<(), NativeError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(io("create", path))
}
