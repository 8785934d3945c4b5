//! Folders that a container keeps outside its root file system: VOLUME of its image, and `-v PATH`.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use slipway_image::build::copy_folder_out;
use slipway_runtime::mount_detached;
use slipway_types::container::{ContainerId, ContainerSpec, Mount};

use crate::error::{NativeError, io};

/// Adds the volumes of an image that neither a mount nor a volume of the user's takes the place of.
pub fn add_image_volumes(spec: &mut ContainerSpec, image: &[String]) {
    for path in image {
        let target = Path::new("/").join(path);
        // As Docker has it: such a volume would hide the whole root file system.
        if target.parent().is_none() {
            continue;
        }
        let taken = spec.mounts.iter().any(|mount| same(target_of(mount), &target))
            || spec.volumes.iter().any(|volume| same(volume, &target));
        if !taken {
            spec.volumes.push(target);
        }
    }
}

/// Whether two paths are the same but for slashes and dots.
fn same(a: &Path, b: &Path) -> bool {
    a.components().eq(b.components())
}

fn target_of(mount: &Mount) -> &Path {
    match mount {
        Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => target,
    }
}

/// Makes the volumes in a container's folder, filled with what the image has there, and gives all mounts, those above
/// before those below. The container's upper folder is looked through, and in no overlay any more afterwards.
pub(crate) fn prepare(
    id: &ContainerId,
    dir: &Path,
    lowers: &[PathBuf],
    spec: &ContainerSpec,
) -> Result<Vec<Mount>, NativeError> {
    if spec.volumes.is_empty() {
        return Ok(spec.mounts.clone());
    }
    let folder = dir.join("volumes");
    crate::containers::folder(&folder, 0o700)?;
    let root = mount_detached(lowers, &dir.join("upper"), &dir.join("work"), false)
        .map_err(|error| NativeError::Root { id: id.clone(), source: error })?;
    let mut mounts = Vec::with_capacity(spec.volumes.len() + spec.mounts.len());
    for (number, target) in spec.volumes.iter().enumerate() {
        let source = folder.join(number.to_string());
        let failed = |source| NativeError::Volume { id: id.clone(), target: target.clone(), source };
        let root = root.try_clone().map_err(io("open the root file system for", &source))?;
        if !copy_folder_out(root, target, &source).map_err(failed)? {
            std::fs::DirBuilder::new().mode(0o755).create(&source).map_err(io("create", &source))?;
        }
        mounts.push(Mount::Bind { source, target: target.clone(), read_only: false });
    }
    // The overlay is gone with its last descriptor, and only then may the container's own take its upper folder.
    drop(root);
    mounts.extend(spec.mounts.iter().cloned());
    mounts.sort_by_key(|mount| target_of(mount).components().count());
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_mounts_takes_the_place_of_a_volume() {
        let bind =
            |target: &str| Mount::Bind { source: "/s".into(), target: target.into(), read_only: false };
        let mut spec = ContainerSpec {
            mounts: vec![bind("/data/"), Mount::Tmpfs { target: "/cache".into(), size: None }],
            volumes: vec!["/mine".into()],
            ..ContainerSpec::default()
        };
        let image = ["/data", "/cache", "/mine/", "var/lib/db", "/"].map(str::to_owned);
        add_image_volumes(&mut spec, &image);
        assert_eq!(spec.volumes, [PathBuf::from("/mine"), PathBuf::from("/var/lib/db")]);
    }
}
