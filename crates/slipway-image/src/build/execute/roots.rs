//! File systems of stages and images, and base images.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use slipway_types::image::Platform;
use slipway_types::{Digest, Reference};

use super::Build;
use super::steps::Step;
use crate::build::error::{Fault, StepErrorKind};
use crate::build::image_config::ImageConfig;
use crate::build::plan::fits;
use crate::build::root::Root;
use crate::store::Staging;

/// Folders of an overlay: what it shows, and where its changes go.
pub(super) struct Layout {
    pub(super) lowers: Vec<PathBuf>,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
}

/// A file system that is only read. What the overlay needs to be writable is thrown away with it.
pub(super) struct View {
    pub(super) root: Root,
    _staging: Staging,
}

impl Build<'_> {
    /// Prepares an overlay of `layers` (lowest first) in a staging folder.
    pub(super) fn layout(&self, layers: &[Digest], staging: &Staging) -> Result<Layout, Fault> {
        let upper = staging.fs()?;
        // The upper folder's own mode is what `/` gets, whatever the umask.
        fs::set_permissions(&upper, Permissions::from_mode(0o755)).map_err(prepare(&upper))?;
        let work = make_dir(staging.path(), "work", 0o700)?;
        let store = &self.parts.machine.store;
        let mut seen = HashSet::new();
        let mut lowers: Vec<PathBuf> = layers
            .iter()
            .rev()
            .filter(|layer| seen.insert(*layer))
            .map(|layer| store.layer_path(layer))
            .collect();
        if lowers.is_empty() {
            lowers.push(make_dir(staging.path(), "empty", 0o755)?);
        }
        Ok(Layout { lowers, upper, work })
    }

    pub(super) fn open_root(&self, layout: &Layout) -> Result<Root, Fault> {
        let fd = self.parts.machine.runner.open_root(&layout.lowers, &layout.upper, &layout.work);
        Ok(Root::new(fd.map_err(StepErrorKind::OpenRoot)?))
    }

    /// Opens the file system that `layers` make, for reading.
    pub(super) fn view(&self, layers: &[Digest]) -> Result<View, Fault> {
        let staging = self.parts.machine.store.staging("view")?;
        let root = self.open_root(&self.layout(layers, &staging)?)?;
        Ok(View { root, _staging: staging })
    }

    /// A base image's configuration, fetched once for a build. Tells whether anything was transferred.
    pub(super) fn base(
        &self,
        reference: &Reference,
        platform: &Platform,
        step: &Step<'_>,
    ) -> Result<(ImageConfig, bool), Fault> {
        let slot = {
            let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(bases.entry(reference.clone()).or_default())
        };
        // Held while it is fetched: who needs the same one waits, others do not.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let image = reference.familiar();
        let mut pulled = false;
        let config = match &*slot {
            Some(config) => config.clone(),
            None => {
                let progress = |what: &str, done: u64, total: Option<u64>| step.progress(what, done, total);
                let resolved = self
                    .parts
                    .machine
                    .bases
                    .resolve(
                        reference,
                        &platform.to_string(),
                        self.parts.request.pull,
                        &progress,
                        &self.parts.cancel,
                    )
                    .map_err(|error| StepErrorKind::Base { image: image.clone(), error })?;
                self.check_cancel()?;
                pulled = resolved.pulled;
                let stored = self.parts.machine.store.image(&resolved.id)?;
                let mut config: ImageConfig = serde_json::from_slice(&stored.raw_config)
                    .map_err(|source| StepErrorKind::BaseConfig { image: image.clone(), source })?;
                config.rootfs.diff_ids = stored.layers;
                slot.insert(config).clone()
            }
        };
        let actual = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
        };
        if !fits(platform, &actual) {
            let (actual, wanted) = (actual.to_string(), platform.to_string());
            return Err(StepErrorKind::WrongPlatform { image, actual, wanted }.into());
        }
        Ok((config, pulled))
    }
}

/// Makes a folder with exactly this mode.
pub(super) fn make_dir(parent: &Path, name: &str, mode: u32) -> Result<PathBuf, Fault> {
    let path = parent.join(name);
    let made = DirBuilder::new()
        .mode(mode)
        .create(&path)
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)));
    made.map_err(prepare(&path))?;
    Ok(path)
}

pub(super) fn prepare(path: &Path) -> impl FnOnce(std::io::Error) -> StepErrorKind + '_ {
    |source| StepErrorKind::Prepare { path: path.to_owned(), source }
}
