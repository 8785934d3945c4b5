//! How the same folders come to be inside a pod that the native engine mounts into a container.

use serde_json::{Value, json};
use slipway_types::Reference;

use super::RenderError;
use super::pod::container_security;
use super::resources::bytes;
use crate::Capabilities;
use crate::spec::{ModelContent, ModelDelivery, PodResources, VolumeSource};

/// Folder with the runner and the Python worker.
pub(super) const TOOLS: &str = "/slipway";
/// The runner.
pub(super) const RUNNER: &str = "/slipway/slipway-runner";
/// Folder of the runner's socket.
pub(super) const RUN: &str = "/run/slipway";
/// Folder of the runner's configuration.
pub(super) const CONFIG: &str = "/etc/slipway";
/// Folder of the model's files, in their image and where they are copied to.
pub(super) const MODEL: &str = "/model";
/// Where an image volume with the model is mounted: it has the whole image, so the files are one folder down.
const MODEL_VOLUME: &str = "/mnt/model";
/// Where init containers see the volume that they fill.
const TARGET: &str = "/target";
const DEFAULT_SHM: u64 = 1 << 30;
const DEFAULT_TMP: u64 = 4 << 30;

/// Volumes of a pod, mounts of its main container, and init containers that fill volumes.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    pub volumes: Vec<Value>,
    pub mounts: Vec<Value>,
    pub init: Vec<Value>,
}

/// How a model reaches a pod of this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ImageVolume,
    Copy,
    Bundled,
}

pub(super) fn way(model: &ModelContent, caps: &Capabilities) -> Way {
    match model.delivery {
        ModelDelivery::Bundled => Way::Bundled,
        ModelDelivery::Auto if caps.image_volumes => Way::ImageVolume,
        ModelDelivery::Auto | ModelDelivery::Copy => Way::Copy,
    }
}

/// Folder of the model's files inside the serving container.
pub(super) fn model_dir(way: Way) -> String {
    match way {
        Way::ImageVolume => format!("{MODEL_VOLUME}{MODEL}"),
        Way::Copy | Way::Bundled => MODEL.to_owned(),
    }
}

impl Volumes {
    pub(super) fn mount(&mut self, name: &str, target: &str, read_only: bool, volume: Value) {
        let mut entry = volume;
        entry["name"] = name.into();
        self.volumes.push(entry);
        self.mount_again(name, target, read_only, None);
    }

    fn mount_again(&mut self, name: &str, target: &str, read_only: bool, sub_path: Option<&str>) {
        self.mounts.push(json!({
            "name": name, "mountPath": target, "readOnly": read_only.then_some(true), "subPath": sub_path,
        }));
    }

    /// `/slipway`, copied from the tools image: an image volume may not be executed from.
    pub(super) fn tools(&mut self, tools: &Reference) {
        self.tools_for_init(tools);
        self.mount_again("tools", TOOLS, true, None);
    }

    fn tools_for_init(&mut self, tools: &Reference) {
        self.volumes.push(json!({"name": "tools", "emptyDir": {}}));
        let mounts = json!([{"name": "tools", "mountPath": TARGET}]);
        self.init.push(copier("install-tools", tools, TOOLS, &mounts));
    }

    /// The model, read-only.
    pub(super) fn model(&mut self, model: &ModelContent, way: Way) {
        match way {
            Way::Bundled => {}
            Way::ImageVolume => self.image("model", MODEL_VOLUME, &model.reference),
            Way::Copy => {
                self.mount("model", MODEL, true, json!({"emptyDir": {}}));
                self.copy("copy-model", "model", &model.reference, MODEL);
            }
        }
    }

    fn image(&mut self, name: &str, target: &str, reference: &Reference) {
        let source = json!({"image": {"reference": reference.to_string(), "pullPolicy": "IfNotPresent"}});
        self.mount(name, target, true, source);
    }

    /// An init container of an image without any program: it runs ours, from the volume with the tools.
    fn copy(&mut self, container: &str, volume: &str, image: &Reference, folder: &str) {
        let mounts = json!([
            {"name": "tools", "mountPath": TOOLS, "readOnly": true},
            {"name": volume, "mountPath": TARGET},
        ]);
        self.init.push(copier(container, image, folder, &mounts));
    }

    /// `/tmp` and `/dev/shm`.
    pub(super) fn scratch(&mut self, resources: &PodResources) {
        self.shared_memory(resources);
        self.mount("tmp", "/tmp", false, json!({"emptyDir": {"sizeLimit": bytes(DEFAULT_TMP)}}));
    }

    /// `/dev/shm`. Pods have 64 MiB of shared memory otherwise, which data loaders and NCCL exceed.
    pub(super) fn shared_memory(&mut self, resources: &PodResources) {
        let half = resources.limits.memory.map(|memory| memory / 2);
        let shm = resources.shm.or(half).unwrap_or(DEFAULT_SHM);
        self.mount(
            "shm",
            "/dev/shm",
            false,
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": bytes(shm)}}),
        );
    }

    /// A folder of the user's.
    pub(super) fn source(
        &mut self,
        name: &str,
        target: &str,
        source: &VolumeSource,
        caps: &Capabilities,
        tools: &Reference,
    ) -> Result<(), RenderError> {
        match source {
            VolumeSource::Bundled => {}
            VolumeSource::Claim { name: claim, sub_path, read_only } => {
                claim_name(claim)?;
                self.volumes.push(json!({
                    "name": name,
                    "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only.then_some(true)},
                }));
                self.mount_again(name, target, *read_only, sub_path.as_deref());
            }
            VolumeSource::Scratch { size } => {
                self.mount(name, target, false, json!({"emptyDir": {"sizeLimit": size.map(bytes)}}));
            }
            VolumeSource::Image { reference, folder } => {
                super::pinned("image of a folder", reference)?;
                let inside = folder.trim_end_matches('/');
                if !folder.starts_with('/') || inside.split('/').any(|part| part == "..") {
                    let reason = format!("`{folder}` is no absolute path in the image");
                    return Err(RenderError::Contradiction { what: "folder", reason });
                }
                if inside.is_empty() {
                    if !caps.image_volumes {
                        let what = format!("the whole of {reference} as a folder");
                        return Err(RenderError::Unsupported { missing: "image volumes", what });
                    }
                    self.image(name, target, reference);
                    return Ok(());
                }
                // A folder of an image volume needs nodes that know sub-paths, which none tells; a copy always works.
                if !self.volumes.iter().any(|volume| volume["name"] == "tools") {
                    self.tools_for_init(tools);
                }
                self.mount(name, target, true, json!({"emptyDir": {}}));
                self.copy(&format!("copy-{name}"), name, reference, inside);
            }
        }
        Ok(())
    }
}

pub(super) fn claim_name(name: &str) -> Result<(), RenderError> {
    crate::validate::dns_1123_subdomain(name).map_err(|source| RenderError::Invalid { what: "claim", source })
}

fn copier(name: &str, image: &Reference, from: &str, mounts: &Value) -> Value {
    json!({
        "name": name,
        "image": image.to_string(),
        "imagePullPolicy": "IfNotPresent",
        "command": [RUNNER, "copy", from, TARGET],
        "securityContext": container_security(true),
        "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
        "volumeMounts": mounts,
    })
}
