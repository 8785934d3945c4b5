//! Images from root file system archives.

use std::io::Read;

use oci_spec::image::{History, ImageConfiguration, RootFs};
use slipway_types::Digest;

use super::archive::{self, Overlay, UnpackLimits};
use super::error::{Result, StoreError};
use super::{Store, codec};

impl Store {
    /// Makes an image of one canonical layer from the archive (tar, gzip, zstd) of a root file system. `rootfs` and
    /// `history` of `config` are replaced. The same files give the same layer, however the archive was written.
    pub fn import_rootfs(
        &self,
        reader: impl Read,
        config: &ImageConfiguration,
        limits: &UnpackLimits,
    ) -> Result<Digest> {
        let _lease = self.lease();
        let staging = self.staging("import")?;
        let fs = staging.fs()?;
        let decoder = codec::decoder(reader).map_err(StoreError::Archive)?;
        archive::unpack(decoder, &fs, limits).map_err(StoreError::Archive)?;
        let tree = archive::scan(&fs, Overlay::Keep).map_err(StoreError::Tree)?;
        let mut layers = Vec::new();
        let mut history = History::default();
        history.set_created(config.created().clone());
        history.set_created_by(Some("slipway import".to_owned()));
        if tree.is_empty() {
            history.set_empty_layer(Some(true));
        } else {
            layers.push(self.commit_tree(&fs, &tree, "slipway import")?.diff_id);
        }
        let mut config = config.clone();
        let mut rootfs = RootFs::default();
        rootfs.set_diff_ids(layers.iter().map(ToString::to_string).collect());
        config.set_rootfs(rootfs);
        config.set_history(Some(vec![history]));
        self.put_image_config(&config, &layers, None)
    }
}
