//! Images to pull.

use std::io::Write;

use serde_json::{Value, json};
use slipway_types::Digest;

use super::super::digest_of;
use super::super::manifest::{
    DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD, OCI_MANIFEST,
};

/// A layer with one file, and what its blob looks like.
#[derive(Clone)]
pub(crate) struct Layer {
    pub diff_id: Digest,
    pub blob: Vec<u8>,
    pub digest: Digest,
    pub media_type: &'static str,
}

pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        // Set by hand: the library refuses `..`, which some tests need.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Layer {
    pub fn new(tar: &[u8], blob: Vec<u8>, media_type: &'static str) -> Self {
        Self { diff_id: digest_of(tar), digest: digest_of(&blob), blob, media_type }
    }

    pub fn gzip(files: &[(&str, &[u8])]) -> Self {
        let tar = tar_of(files);
        Self::new(&tar, gzip(&tar), OCI_LAYER_GZIP)
    }

    /// Several members, as parallel compressors write them.
    pub fn gzip_members(files: &[(&str, &[u8])]) -> Self {
        let tar = tar_of(files);
        let blob = tar.chunks(700).flat_map(gzip).collect();
        Self::new(&tar, blob, OCI_LAYER_GZIP)
    }

    pub fn zstd(files: &[(&str, &[u8])]) -> Self {
        let tar = tar_of(files);
        let (a, b) = tar.split_at(512);
        let blob = [zstd::encode_all(a, 1).unwrap(), zstd::encode_all(b, 1).unwrap()].concat();
        Self::new(&tar, blob, OCI_LAYER_ZSTD)
    }

    pub fn plain(files: &[(&str, &[u8])]) -> Self {
        let tar = tar_of(files);
        Self::new(&tar, tar.clone(), OCI_LAYER)
    }

    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.blob.len()})
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[derive(Clone)]
pub(crate) struct Image {
    pub layers: Vec<Layer>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
}

impl Image {
    pub fn new(layers: Vec<Layer>) -> Self {
        Self::on("linux", "amd64", layers)
    }

    pub fn on(os: &str, architecture: &str, layers: Vec<Layer>) -> Self {
        let config = json!({
            "architecture": architecture, "os": os, "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>()},
        });
        let config = serde_json::to_vec_pretty(&config).unwrap();
        let mut image = Self { layers, config, manifest: Vec::new(), media_type: OCI_MANIFEST };
        image.describe(|_| {});
        image
    }

    /// Two layers of some size.
    pub fn sample() -> Self {
        Self::new(vec![
            Layer::gzip(&[("etc/name", b"one"), ("data", &noise(300_000, 7))]),
            Layer::gzip(&[("etc/other", b"two")]),
        ])
    }

    pub fn docker(layers: Vec<Layer>) -> Self {
        let mut image = Self::new(layers);
        image.media_type = DOCKER_MANIFEST;
        image.describe(|manifest| {
            manifest["config"]["mediaType"] = DOCKER_CONFIG.into();
            for layer in manifest["layers"].as_array_mut().unwrap() {
                layer["mediaType"] = DOCKER_LAYER_GZIP.into();
            }
        });
        image
    }

    /// Writes the manifest, changed.
    pub fn describe(&mut self, change: impl FnOnce(&mut Value)) {
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": self.media_type,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(&self.config), "size": self.config.len()},
            "layers": self.layers.iter().map(Layer::descriptor).collect::<Vec<_>>(),
        });
        change(&mut manifest);
        self.manifest = serde_json::to_vec_pretty(&manifest).unwrap();
    }

    pub fn digest(&self) -> Digest {
        digest_of(&self.manifest)
    }

    pub fn id(&self) -> Digest {
        digest_of(&self.config)
    }
}

/// An index over images with these platforms.
pub(crate) fn index(images: &[(&str, &Image)]) -> Vec<u8> {
    let manifests: Vec<_> = images
        .iter()
        .map(|(platform, image)| {
            let (os, architecture) = platform.split_once('/').unwrap();
            json!({
                "mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(),
                "platform": {"os": os, "architecture": architecture},
            })
        })
        .collect();
    serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})).unwrap()
}
