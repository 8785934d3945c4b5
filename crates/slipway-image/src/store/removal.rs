//! Removing images, as `docker rmi` does.

use std::collections::{BTreeSet, HashSet};

use rusqlite::Transaction;
use slipway_types::{Digest, Reference};

use super::error::{During, Result, StoreError};
use super::images::{NAMES, REPO_DIGESTS, references};
use super::index::digests;
use super::names::{FoundBy, find, repository};
use super::pins::users;
use super::prune::{Plan, forget};
use super::reach::Holdings;
use super::{Store, with_reserve};

/// What the removal of an image did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoveReport {
    /// Names that were taken away.
    pub untagged: Vec<Reference>,
    /// The image, if it is gone.
    pub deleted: Option<Digest>,
    /// Layers that went with it.
    pub layers: Vec<Digest>,
    /// Bytes freed, by the index.
    pub bytes: u64,
}

impl Store {
    /// Removes a name, and with the last one the image, its layers and blobs as far as nothing else needs them.
    ///
    /// - By name: another name of the image stays, and so does the image. When a repository's last tag goes, its digests
    ///   (`repository@manifest`) go, too.
    /// - By id: all names go. Names in several repositories need `force`.
    /// - An image that something pins ([`StoreError::ImageInUse`]) loses with `force` its names only; it goes when it
    ///   is unpinned and pruned.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<RemoveReport> {
        with_reserve(self.root(), || self.remove(text, force))
    }

    fn remove(&self, text: &str, force: bool) -> Result<RemoveReport> {
        let trash = self.staging("trash")?;
        let collecting = self.inner.gc_exclusive();
        let (plan, report) = self.inner.index.write(|index| {
            let Some((id, by)) = find(index, text)? else {
                return Err(StoreError::ImageNotFound { text: text.to_owned() });
            };
            let mut report = RemoveReport::default();
            let names = references(index, NAMES, &id)?;
            let repo_digests = references(index, REPO_DIGESTS, &id)?;
            let (going, last) = choose(&id, by, &names, &repo_digests, force)?;
            if last {
                let users = users(index, &id)?;
                if !users.is_empty() && !force {
                    return Err(StoreError::ImageInUse { id, users });
                }
            }
            take_names(index, &going)?;
            report.untagged = going;
            if !last {
                return Ok((Plan::default(), report));
            }
            let plan = self.remove_unnamed(index, &id)?;
            if plan.images.contains(&id) {
                report.deleted = Some(id);
                report.bytes = plan.bytes();
                report.layers = plan.layers.iter().map(|(digest, _)| digest.clone()).collect();
            }
            Ok((plan, report))
        })?;
        self.take_away(&plan, &trash)?;
        drop(collecting);
        Ok(report)
    }

    /// Takes an image out of the index, unless a pin or a lease keeps it.
    fn remove_unnamed(&self, index: &Transaction<'_>, id: &Digest) -> Result<Plan> {
        let holdings = Holdings::load(index)?;
        if self.kept_by_others(&holdings, super::reach::Forms::Keep).images.contains(id) {
            return Ok(Plan::default());
        }
        let candidates = candidates(index, id).during("look up what an image needs")?;
        index.execute("DELETE FROM images WHERE id = ?1", [id.as_str()]).during("remove an image")?;
        let mut plan = self.plan_after_removal(&Holdings::load(index)?, &candidates);
        plan.images.push(id.clone());
        forget(index, &plan)?;
        Ok(plan)
    }
}

/// The names that go, and whether the image goes with them.
fn choose(
    id: &Digest,
    by: FoundBy,
    names: &[Reference],
    repo_digests: &[Reference],
    force: bool,
) -> Result<(Vec<Reference>, bool)> {
    let all = || names.iter().chain(repo_digests).cloned().collect::<Vec<_>>();
    match by {
        FoundBy::Id => {
            let repositories: BTreeSet<String> = names.iter().map(repository).collect();
            if repositories.len() > 1 && !force {
                let names = names.iter().map(Reference::familiar).collect();
                return Err(StoreError::ManyNames { id: id.clone(), names });
            }
            Ok((all(), true))
        }
        FoundBy::Name(name) => {
            let rest: Vec<&Reference> = names.iter().filter(|other| **other != name).collect();
            if rest.is_empty() {
                return Ok((all(), true));
            }
            let own = repository(&name);
            let mut going = vec![name];
            if !rest.iter().any(|other| repository(other) == own) {
                going.extend(repo_digests.iter().filter(|other| repository(other) == own).cloned());
            }
            Ok((going, false))
        }
        FoundBy::RepoDigest(name) => {
            let same = |other: &&Reference| {
                repository(other) == repository(&name) && other.digest() == name.digest()
            };
            let going: Vec<Reference> = repo_digests.iter().filter(same).cloned().collect();
            let last = names.is_empty() && going.len() == repo_digests.len();
            Ok((going, last))
        }
    }
}

fn take_names(index: &Transaction<'_>, names: &[Reference]) -> Result<()> {
    const TAKE: &str = "take away a name";
    for name in names {
        match name.digest() {
            Some(manifest) => index
                .execute(
                    "DELETE FROM repo_digests WHERE repository = ?1 AND manifest = ?2",
                    [&repository(name), manifest.as_str()],
                )
                .during(TAKE)?,
            None => index.execute("DELETE FROM names WHERE name = ?1", [name.to_string()]).during(TAKE)?,
        };
    }
    Ok(())
}

/// All that only an image may have needed.
fn candidates(index: &Transaction<'_>, id: &Digest) -> rusqlite::Result<HashSet<Digest>> {
    let mut candidates = HashSet::from([id.clone()]);
    for sql in [
        "SELECT diff_id FROM image_layers WHERE image = ?1",
        "SELECT manifest FROM image_manifests WHERE image = ?1",
        "SELECT digest FROM layer_blobs WHERE diff_id IN (SELECT diff_id FROM image_layers WHERE image = ?1)",
    ] {
        candidates.extend(digests(index, sql, [id.as_str()])?);
    }
    Ok(candidates)
}
