//! Image manifests and indexes, OCI's and Docker's, and the choice of a platform.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_types::Digest;
use slipway_types::image::Platform;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub(crate) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(crate) const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The most bytes of a manifest or index that are accepted; registries have the same limit.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// The most bytes of an image or model configuration.
pub(crate) const MAX_CONFIG: u64 = 4 << 20;
/// The most layers of an image; the kernel's overlay takes no more than 500.
pub(crate) const MAX_LAYERS: usize = 500;

/// What a manifest says about a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Type of the content.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest, or an artifact's, which has the same form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

/// An index (OCI) or manifest list (Docker).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Index {
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<IndexEntry>,
}

/// One image of an index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct IndexEntry {
    #[serde(flatten)]
    pub descriptor: Descriptor,
    #[serde(default)]
    pub platform: Option<EntryPlatform>,
}

/// The platform of an index entry, as registries write it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct EntryPlatform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: Option<String>,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What came when a manifest was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Why bytes are no manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DocumentError {
    /// A type that is not read here.
    MediaType(String),
    /// What is wrong.
    Invalid(String),
}

/// Reads a manifest or index. The type in the document wins over the reply's `Content-Type`.
pub(crate) fn read_document(bytes: &[u8], content_type: Option<&str>) -> Result<Document, DocumentError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        config: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    let invalid = |e: serde_json::Error| DocumentError::Invalid(e.to_string());
    let content_type = content_type.map(|t| t.split(';').next().unwrap_or(t).trim());
    let head: Head = serde_json::from_slice(bytes).map_err(invalid)?;
    // Both at once is how one document passes for two: every reader would take another part of it.
    if head.config.is_some() && head.manifests.is_some() {
        return Err(DocumentError::Invalid("it has both `config` and `manifests`".to_owned()));
    }
    let named =
        head.media_type.as_deref().or(content_type.filter(|t| t.contains("vnd."))).unwrap_or_default();
    let kind = match named {
        "" if head.manifests.is_some() => OCI_INDEX,
        "" if head.config.is_some() => OCI_MANIFEST,
        "" if head.schema_version == 1 => "application/vnd.docker.distribution.manifest.v1+json",
        other => other,
    };
    let document = match kind {
        OCI_MANIFEST | DOCKER_MANIFEST => Document::Manifest(serde_json::from_slice(bytes).map_err(invalid)?),
        OCI_INDEX | DOCKER_LIST => Document::Index(serde_json::from_slice(bytes).map_err(invalid)?),
        other => return Err(DocumentError::MediaType(other.to_owned())),
    };
    if head.schema_version != 2 {
        return Err(DocumentError::Invalid(format!("`schemaVersion` is {}, not 2", head.schema_version)));
    }
    Ok(document)
}

/// Whether a layer of this type can be unpacked.
pub(crate) fn is_layer_type(media_type: &str) -> bool {
    matches!(
        media_type,
        OCI_LAYER | OCI_LAYER_GZIP | OCI_LAYER_ZSTD | DOCKER_LAYER | DOCKER_LAYER_GZIP | DOCKER_LAYER_ZSTD
    )
}

/// OCI's name for a layer type of Docker's.
pub(crate) fn oci_layer_type(media_type: &str) -> &str {
    match media_type {
        DOCKER_LAYER => OCI_LAYER,
        DOCKER_LAYER_GZIP => OCI_LAYER_GZIP,
        DOCKER_LAYER_ZSTD => OCI_LAYER_ZSTD,
        other => other,
    }
}

impl Manifest {
    /// The type to send it under.
    pub fn content_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(OCI_MANIFEST)
    }
}

impl EntryPlatform {
    fn text(&self) -> String {
        let mut text = format!("{}/{}", self.os, self.architecture);
        if let Some(variant) = self.variant.as_deref().filter(|v| !v.is_empty()) {
            text.push('/');
            text.push_str(variant);
        }
        text
    }

    /// Attestations and the like are listed as `unknown/unknown` and run nowhere.
    fn runs_somewhere(&self) -> bool {
        self.os != "unknown" && self.architecture != "unknown" && !self.os.is_empty()
    }
}

/// How well an image for `have` runs on `want`: `None` not at all, else higher is better.
pub(crate) fn platform_rank(
    want: &Platform,
    have_os: &str,
    have_architecture: &str,
    have_variant: Option<&str>,
) -> Option<u32> {
    if want.os != have_os || want.architecture != have_architecture {
        return None;
    }
    // The level that a missing variant stands for: ARM images without one are v7 by Docker's convention.
    let default = match have_architecture {
        "arm64" => 8,
        "arm" => 7,
        _ => 1,
    };
    let level = |variant: Option<&str>| match variant.filter(|v| !v.is_empty()) {
        None => Some(default),
        Some(v) => v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()),
    };
    match (level(want.variant.as_deref()), level(have_variant)) {
        (Some(want), Some(have)) if have <= want => Some(have + 1),
        (Some(_), Some(_)) => None,
        // Variants without an order, such as s390x machine names: only the same one.
        _ => (want.variant.as_deref() == have_variant).then_some(0),
    }
}

impl Index {
    /// The entry that runs best on `want`; the first of equals.
    pub fn choose(&self, want: &Platform) -> Option<&IndexEntry> {
        let mut best: Option<(u32, &IndexEntry)> = None;
        for entry in &self.manifests {
            let Some(p) = entry.platform.as_ref().filter(|p| p.runs_somewhere()) else { continue };
            let Some(rank) = platform_rank(want, &p.os, &p.architecture, p.variant.as_deref()) else {
                continue;
            };
            if best.is_none_or(|(b, _)| rank > b) {
                best = Some((rank, entry));
            }
        }
        best.map(|(_, entry)| entry)
    }

    /// Every platform that has an image, sorted, at most 64.
    pub fn platforms(&self) -> Vec<String> {
        let mut platforms: Vec<_> = self
            .manifests
            .iter()
            .filter_map(|m| m.platform.as_ref())
            .filter(|p| p.runs_somewhere())
            .map(EntryPlatform::text)
            .collect();
        platforms.sort();
        platforms.dedup();
        platforms.truncate(64);
        platforms
    }
}

/// The parts of an image configuration that a pull needs.
#[derive(Debug, Deserialize)]
pub(crate) struct ConfigHead {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: Option<String>,
    pub rootfs: RootFs,
}

/// The layers of an image configuration.
#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::from_sha256([n; 32])
    }

    fn index(platforms: &[&str]) -> Index {
        let manifests: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let mut parts = text.split('/');
                let mut platform = serde_json::json!({"os": parts.next(), "architecture": parts.next()});
                if let Some(variant) = parts.next() {
                    platform["variant"] = variant.into();
                }
                serde_json::json!({
                    "mediaType": OCI_MANIFEST, "digest": digest(i as u8), "size": 1, "platform": platform,
                })
            })
            .collect();
        let bytes =
            serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": manifests})).unwrap();
        match read_document(&bytes, None).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("no index"),
        }
    }

    #[test]
    fn chooses_the_best_platform() {
        for (have, want, chosen) in [
            (&["linux/amd64", "linux/arm64"][..], "linux/arm64", Some(1)),
            (&["linux/amd64", "linux/arm64/v8"], "linux/arm64", Some(1)),
            (&["linux/amd64", "linux/arm64"], "linux/arm64/v8", Some(1)),
            (&["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7", Some(1)),
            (&["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", Some(0)),
            (&["linux/amd64", "linux/amd64/v3", "linux/amd64/v2"], "linux/amd64", Some(0)),
            (&["linux/amd64", "linux/amd64/v4", "linux/amd64/v2"], "linux/amd64/v3", Some(2)),
            (&["linux/amd64", "linux/amd64"], "linux/amd64", Some(0)),
            (&["unknown/unknown", "windows/amd64"], "linux/amd64", None),
            (&[], "linux/amd64", None),
        ] {
            let index = index(have);
            let entry = index.choose(&want.parse().unwrap());
            assert_eq!(entry.map(|e| e.descriptor.digest.clone()), chosen.map(digest), "{have:?} {want}");
        }
        assert_eq!(
            index(&["windows/amd64", "unknown/unknown", "linux/arm/v7"]).platforms(),
            ["linux/arm/v7", "windows/amd64"]
        );
    }

    #[test]
    fn tells_documents_apart() {
        let config = serde_json::json!({"mediaType": OCI_CONFIG, "digest": digest(1), "size": 2});
        let read = |v: serde_json::Value, t: Option<&str>| read_document(&serde_json::to_vec(&v).unwrap(), t);
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": null});
        assert!(matches!(read(manifest.clone(), Some("application/json")), Ok(Document::Manifest(_))));
        assert!(matches!(
            read(manifest.clone(), Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")),
            Ok(Document::Manifest(_))
        ));
        let v1 = serde_json::json!({"schemaVersion": 1, "fsLayers": []});
        assert!(matches!(read(v1, Some("application/json")), Err(DocumentError::MediaType(_))));
        let both = serde_json::json!({"schemaVersion": 2, "config": config, "manifests": []});
        assert!(matches!(read(both, Some(OCI_INDEX)), Err(DocumentError::Invalid(_))));
        let mut old = manifest.clone();
        old["schemaVersion"] = 3.into();
        assert!(matches!(read(old, None), Err(DocumentError::Invalid(_))));
        let mut other = manifest;
        other["mediaType"] = "application/vnd.example+json".into();
        assert!(matches!(read(other, Some(OCI_MANIFEST)), Err(DocumentError::MediaType(_))));
        assert!(matches!(read_document(b"<html>", None), Err(DocumentError::Invalid(_))));
    }
}
