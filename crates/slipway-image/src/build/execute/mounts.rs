//! `RUN --mount`: folders of the context, stages and images, memory, and folders that builds share.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use slipway_types::Digest;
use slipway_types::container::Mount;

use super::Build;
use super::copy::Origin;
use super::lent::{LentToStep, SecretFiles};
use super::metadata::absolute;
use super::roots::{make_dir, prepare};
use super::stage::StageState;
use super::steps::Step;
use crate::build::cache::StepKey;
use crate::build::copy::{Writer, select};
use crate::build::dockerfile::{self, MountKind, Ownership, Run, Sharing};
use crate::build::error::{Fault, SelectError, StepErrorKind};
use crate::build::ignore::Ignore;
use crate::build::root::Root;
use crate::build::runner::CancelFlag;
use crate::build::tree::{Tree, content_digest};
use crate::build::words;
use crate::store::Staging;

/// A mount whose sources are known.
pub(super) struct Planned {
    /// Absolute; empty for a secret that is only a variable.
    pub(super) target: String,
    pub(super) what: What,
}

pub(super) enum What {
    Context { tree: Tree, writable: bool },
    Layers { layers: Vec<Digest>, place: String, source: String, writable: bool },
    Cache { id: String, sharing: Sharing, read_only: bool, owner: Ownership },
    Tmpfs { size: Option<u64> },
    Lent(LentToStep),
}

/// Mounts that are ready, and the shared folders that they hold.
#[derive(Default)]
pub(super) struct Ready<'a> {
    pub(super) mounts: Vec<Mount>,
    /// Variables of the step alone.
    pub(super) env: Vec<(String, String)>,
    _secrets: Option<SecretFiles>,
    _lent: Vec<Lent<'a>>,
}

impl Build<'_> {
    /// Finds what the mounts of a RUN show.
    pub(super) fn plan_mounts(
        &self,
        stage: usize,
        state: &StageState,
        run: &Run,
        step: &Step<'_>,
    ) -> Result<Vec<Planned>, Fault> {
        let mut planned = Vec::new();
        let mut agents = 0;
        for mount in &run.mounts {
            let one = self.plan_mount(stage, state, mount, agents, step);
            planned.extend(one.map_err(|fault| fault.at(mount.span))?);
            agents += usize::from(matches!(mount.kind, MountKind::Ssh { .. }));
        }
        Ok(planned)
    }

    fn plan_mount(
        &self,
        stage: usize,
        state: &StageState,
        mount: &dockerfile::Mount,
        agents: usize,
        step: &Step<'_>,
    ) -> Result<Option<Planned>, Fault> {
        let expand = |text: &str| -> Result<String, Fault> {
            words::expand(text, &|name| state.lookup(name), state.escape)
                .map_err(|source| StepErrorKind::Expand { word: text.to_owned(), source }.into())
        };
        let inside = |text: &str| -> Result<String, Fault> { Ok(absolute(state, &expand(text)?)) };
        Ok(Some(match &mount.kind {
            MountKind::Bind { from, source, target, writable } => {
                let source = source.as_deref().map(expand).transpose()?.unwrap_or_default();
                let writable = *writable;
                let what = match from {
                    None => {
                        let origin = self.context_origin();
                        let selected = select(origin.root, origin.rules, &source, origin.place, true)?;
                        let tree = match &selected[..] {
                            [one] => self.tree(one.clone(), &origin, &Ignore::default(), None)?,
                            _ => return Err(missing(&source, origin.place).into()),
                        };
                        What::Context { tree, writable }
                    }
                    Some(from) => {
                        let (layers, place) = self.source_layers(stage, from, step)?;
                        What::Layers { layers, place, source, writable }
                    }
                };
                Planned { target: inside(target)?, what }
            }
            MountKind::Cache { from: Some(_), .. } => {
                let what = "`from` of a cache mount".to_owned();
                return Err(Fault::from(StepErrorKind::Unsupported { what })
                    .hint("leave `from` and `source` out: the folder starts empty"));
            }
            MountKind::Cache { id, target, sharing, read_only, owner, .. } => {
                let target = inside(target)?;
                let id = id.as_deref().map(expand).transpose()?.unwrap_or_else(|| target.clone());
                let what = What::Cache { id, sharing: *sharing, read_only: *read_only, owner: *owner };
                Planned { target, what }
            }
            MountKind::Tmpfs { target, size } => {
                Planned { target: inside(target)?, what: What::Tmpfs { size: *size } }
            }
            MountKind::Secret { .. } | MountKind::Ssh { .. } => {
                return self.plan_lent(mount, agents, &expand, &inside);
            }
        }))
    }

    /// Makes the mounts of a RUN in its staging folder.
    pub(super) fn ready_mounts(&self, planned: &[Planned], staging: &Staging) -> Result<Ready<'_>, Fault> {
        let mut ready = Ready::default();
        // Locks are taken in one order by all builds, so that no two wait for each other.
        let mut ids: Vec<(&str, Sharing, Ownership)> = planned
            .iter()
            .filter_map(|one| match &one.what {
                What::Cache { id, sharing, owner, .. } => Some((id.as_str(), *sharing, *owner)),
                _ => None,
            })
            .collect();
        ids.sort_by(|a, b| a.0.cmp(b.0));
        ids.dedup_by(|a, b| a.0 == b.0);
        let mut folders: HashMap<&str, PathBuf> = HashMap::new();
        for (id, sharing, owner) in ids {
            let lent = self.parts.machine.cache_mounts.take(id, sharing, owner, &self.parts.cancel)?;
            folders.insert(id, lent.path.clone());
            ready._lent.push(lent);
        }
        let mut secrets = SecretFiles::new(staging);
        for (number, one) in planned.iter().enumerate() {
            let target = PathBuf::from(&one.target);
            ready.mounts.push(match &one.what {
                What::Lent(lent) => {
                    // Of several agents the first is the one that programs ask by themselves.
                    let variable = lent.variable(&one.target)?;
                    let given = |name: &str| ready.env.iter().any(|(given, _)| given == name);
                    let variable = variable.filter(|(name, _)| !lent.is_agent() || !given(name));
                    ready.env.extend(variable);
                    match lent.mount(target, &mut secrets)? {
                        Some(mount) => mount,
                        None => continue,
                    }
                }
                What::Tmpfs { size } => Mount::Tmpfs { target, size: *size },
                What::Cache { id, read_only, .. } => {
                    Mount::Bind { source: folders[id.as_str()].clone(), target, read_only: *read_only }
                }
                What::Context { tree, writable } => {
                    let source = self.copied(number, tree, &self.parts.context.root, staging)?;
                    Mount::Bind { source, target, read_only: !writable }
                }
                What::Layers { layers, place, source, writable } => {
                    let view = self.view(layers)?;
                    let origin = view.origin(place);
                    let selected = select(origin.root, origin.rules, source, place, false)?;
                    let [one] = &selected[..] else { return Err(missing(source, place).into()) };
                    let tree = self.tree(one.clone(), &origin, &Ignore::default(), None)?;
                    let source = self.copied(number, &tree, origin.root, staging)?;
                    Mount::Bind { source, target, read_only: !writable }
                }
            });
        }
        ready._secrets = Some(secrets);
        Ok(ready)
    }

    /// Copies a tree beside a step: writes to it are lost with the step, and what the ignore file hides is not seen.
    fn copied(&self, number: usize, tree: &Tree, from: &Root, staging: &Staging) -> Result<PathBuf, Fault> {
        let folder = make_dir(staging.path(), &format!("mount-{number}"), 0o755)?;
        let root = Root::open(&folder).map_err(prepare(&folder))?;
        let writer = Writer { root: &root, owner: None, mode: None, cancel: &self.parts.cancel };
        writer.place(from, tree, "/content")?;
        Ok(folder.join("content"))
    }

    fn context_origin(&self) -> Origin<'_> {
        let context = self.parts.context;
        Origin {
            root: &context.root,
            rules: context,
            cache: Some(&context.cache),
            place: "the build context",
            contained: true,
        }
    }
}

impl Planned {
    /// Adds what counts for the cache: not the contents of shared folders.
    pub(super) fn add_to(&self, key: StepKey) -> StepKey {
        let key = key.text("mount", &self.target);
        match &self.what {
            What::Context { tree, writable } => key
                .text("kind", if *writable { "bind-rw" } else { "bind" })
                .bytes("tree", &content_digest(tree)),
            What::Layers { layers, source, writable, .. } => key
                .text("kind", if *writable { "layers-rw" } else { "layers" })
                .list("layers", layers.iter().map(Digest::as_str))
                .text("source", source),
            What::Lent(lent) => lent.add_to(key),
            What::Cache { id, .. } => key.text("kind", "cache").text("id", id),
            What::Tmpfs { size } => key.text("kind", "tmpfs").bytes("size", &size.unwrap_or(0).to_le_bytes()),
        }
    }

    /// Where it is mounted, if it is.
    pub(super) fn target(&self) -> Option<&Path> {
        (!self.target.is_empty()).then_some(Path::new(&self.target))
    }
}

fn missing(source: &str, place: &str) -> SelectError {
    SelectError::Missing { path: source.to_owned(), place: place.to_owned() }
}

/// Folders that RUN steps share and no layer holds, `cache-mounts/` in the store's root.
pub(crate) struct CacheMounts {
    folder: PathBuf,
    /// Users of each folder; -1 when one has it alone.
    users: Mutex<HashMap<String, i64>>,
    changed: Condvar,
}

/// A shared folder in use; given back on drop.
struct Lent<'a> {
    owner: &'a CacheMounts,
    name: String,
    path: PathBuf,
}

impl CacheMounts {
    pub(crate) fn new(store_root: &Path) -> Self {
        Self { folder: store_root.join("cache-mounts"), users: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the folders that no step uses; bytes of the files in them.
    pub(crate) fn clear(&self) -> io::Result<u64> {
        // Held throughout, so that no step takes a folder that is about to go.
        let users = self.lock();
        let folders = match std::fs::read_dir(&self.folder) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut bytes = 0;
        for folder in folders {
            let folder = folder?;
            if users.get(&*folder.file_name().to_string_lossy()).is_none_or(|&count| count == 0) {
                bytes += size_of_tree(&folder.path())?;
                std::fs::remove_dir_all(folder.path())?;
            }
        }
        Ok(bytes)
    }

    fn take(
        &self,
        id: &str,
        sharing: Sharing,
        owner: Ownership,
        cancel: &CancelFlag,
    ) -> Result<Lent<'_>, Fault> {
        let base = hex::encode(&Sha256::digest(id.as_bytes())[..16]);
        let mut users = self.lock();
        let name = match sharing {
            Sharing::Private => {
                let mut number = 0_u32;
                loop {
                    let name = format!("{base}-{number}");
                    if users.get(&name).is_none_or(|&count| count == 0) {
                        break name;
                    }
                    number += 1;
                }
            }
            Sharing::Shared | Sharing::Locked => base,
        };
        loop {
            let count = users.entry(name.clone()).or_insert(0);
            if sharing == Sharing::Shared && *count >= 0 {
                *count += 1;
                break;
            }
            if sharing != Sharing::Shared && *count == 0 {
                *count = -1;
                break;
            }
            if cancel.is_cancelled() {
                return Err(StepErrorKind::Cancelled.into());
            }
            let wait = self.changed.wait_timeout(users, Duration::from_millis(100));
            users = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(users);
        let path = self.folder.join(&name);
        let lent = Lent { owner: self, name, path };
        lent.ensure(owner).map_err(prepare(&lent.path))?;
        Ok(lent)
    }
}

fn size_of_tree(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}

impl Lent<'_> {
    fn ensure(&self, owner: Ownership) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.owner.folder)?;
        match std::fs::DirBuilder::new().mode(0o755).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            result => result?,
        }
        chown(&self.path, Some(owner.uid.unwrap_or(0)), Some(owner.gid.unwrap_or(0)))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(owner.mode.unwrap_or(0o755));
        std::fs::set_permissions(&self.path, mode)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut users = self.owner.lock();
        if let Some(count) = users.get_mut(&self.name) {
            *count = if *count < 0 { 0 } else { *count - 1 };
            if *count == 0 {
                users.remove(&self.name);
            }
        }
        drop(users);
        self.owner.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_is_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = CacheMounts::new(dir.path());
        let cancel = CancelFlag::new();
        let take =
            |sharing| mounts.take("pip", sharing, Ownership::default(), &cancel).map_err(|fault| *fault.kind);
        let (a, b) = (take(Sharing::Shared).unwrap(), take(Sharing::Shared).unwrap());
        assert_eq!(a.path, b.path);
        let (c, d) = (take(Sharing::Private).unwrap(), take(Sharing::Private).unwrap());
        assert!(c.path != d.path && c.path != a.path);
        drop((a, b));
        let locked = take(Sharing::Locked).unwrap();
        std::fs::write(locked.path.join("kept"), "x").unwrap();
        cancel.cancel();
        assert!(matches!(take(Sharing::Shared), Err(StepErrorKind::Cancelled)));
        assert_eq!(mounts.clear().unwrap(), 0);
        drop(locked);
        assert!(take(Sharing::Shared).unwrap().path.join("kept").exists());
        assert_eq!(mounts.clear().unwrap(), 1);
    }
}
