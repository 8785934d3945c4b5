//! Replicas of this host keep the contracts of replicas and of engines, with real containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder, RootFsBuilder};
use slipway_image::model::{self, ModelMeta};
use slipway_image::store::{Store, UnpackLimits};
use slipway_native::{Native, NativeReplicas, ServingFiles};
use slipway_orchestrator::contract;
use slipway_orchestrator::{Engine, ModelPin, Policy, Reconciling, Replicas, Revision, StartReplica};
use slipway_types::Digest;
use slipway_types::container::ContainerId;
use slipway_types::model::{Lineage, ModelFormat};
use slipway_types::service::ServiceSpec;

const PROGRAM: &str = env!("CARGO_BIN_EXE_slipway-test-replica");
const SIGKILL: i32 = 9;

/// Stands in the runner's place. The first process of a container gets no signal that it does not handle: without the
/// trap it is a stubborn one.
const RUNNER: &str = "#!/bin/sh\n\
    echo hello\n\
    [ \"$BEHAVIOUR\" = failing ] && exit 3\n\
    [ \"$BEHAVIOUR\" = good ] && trap 'exit 0' TERM\n\
    /bin/replica \"$1\" &\n\
    wait\n";

#[test]
fn native_replicas_keep_the_contract() {
    contract::replicas::run(ReplicasHarness::new);
}

#[test]
fn the_engine_over_native_replicas_keeps_the_contract() {
    contract::engine::run(EngineHarness::new);
}

struct ReplicasHarness {
    replicas: NativeReplicas,
    native: Native,
    world: Arc<World>,
}

struct EngineHarness {
    engine: Reconciling<NativeReplicas>,
    native: Native,
    world: Arc<World>,
    origin: Instant,
}

/// A state folder with an image and a model in its store.
struct World {
    folder: tempfile::TempDir,
    image: Digest,
    model: Digest,
}

impl ReplicasHarness {
    fn new() -> Self {
        let (store, world) = World::new();
        Self::over(store, world)
    }

    fn over(store: Store, world: Arc<World>) -> Self {
        let (native, replicas) = world.replicas(store);
        Self { replicas, native, world }
    }

    fn replica(&self, behaviour: &str, service: &str, number: u64, slot: u32) -> StartReplica {
        StartReplica { revision: self.world.revision(behaviour, service, number, 1), slot }
    }
}

impl contract::replicas::Harness for ReplicasHarness {
    fn replicas(&self) -> &dyn Replicas {
        &self.replicas
    }

    fn good(&self, service: &str, revision: u64, slot: u32) -> StartReplica {
        self.replica("good", service, revision, slot)
    }

    fn failing(&self, service: &str) -> StartReplica {
        self.replica("failing", service, 1, 0)
    }

    fn stubborn(&self, service: &str) -> StartReplica {
        self.replica("stubborn", service, 1, 0)
    }

    fn without_image(&self, service: &str) -> StartReplica {
        let mut replica = self.good(service, 1, 0);
        replica.revision.image_id = missing();
        replica
    }

    fn kill(&self, container: &ContainerId) {
        kill(&self.native, container);
    }

    fn pass_time(&self) {
        std::thread::sleep(Duration::from_millis(10));
    }

    fn reopen(self) -> Self {
        let world = Arc::clone(&self.world);
        drop(self);
        Self::over(world.reopen(), world)
    }
}

impl EngineHarness {
    fn new() -> Self {
        let (store, world) = World::new();
        Self::over(store, world, Instant::now())
    }

    fn over(store: Store, world: Arc<World>, origin: Instant) -> Self {
        // The daemon's policy with short times.
        let policy = Policy {
            backoff_first: Duration::from_millis(100),
            min_ready: Duration::from_millis(500),
            drain_delay: Duration::from_millis(300),
            stop_grace: Duration::from_secs(5),
            ..Policy::default()
        };
        let (native, replicas) = world.replicas(store);
        Self { engine: Reconciling::new(replicas, policy), native, world, origin }
    }
}

impl contract::engine::Harness for EngineHarness {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn good(&self, service: &str, number: u64, replicas: u32) -> Revision {
        self.world.revision("good", service, number, replicas)
    }

    fn failing(&self, service: &str, number: u64, replicas: u32) -> Revision {
        self.world.revision("failing", service, number, replicas)
    }

    fn impossible(&self, service: &str, number: u64, replicas: u32) -> Revision {
        Revision { image_id: missing(), ..self.good(service, number, replicas) }
    }

    fn kill(&self, replica: &ContainerId) {
        kill(&self.native, replica);
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn pass_time(&self) {
        std::thread::sleep(Duration::from_millis(20));
    }

    fn reopen(self) -> Self {
        let (world, origin) = (Arc::clone(&self.world), self.origin);
        drop(self);
        Self::over(world.reopen(), world, origin)
    }
}

fn kill(native: &Native, container: &ContainerId) {
    let container = native.container(container).unwrap();
    container.wait_started(Duration::from_secs(60)).unwrap();
    container.signal(SIGKILL).unwrap();
}

/// An image that no store has.
fn missing() -> Digest {
    format!("sha256:{}", "ab".repeat(32)).parse().unwrap()
}

impl World {
    fn new() -> (Store, Arc<Self>) {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let folder = tempfile::Builder::new().prefix("slipway-").tempdir().unwrap();
        std::fs::write(folder.path().join("runner"), RUNNER).unwrap();
        let store = Store::open(folder.path().join("images")).unwrap();
        let image = import(&store, folder.path());
        let model = pack(&store, folder.path());
        (store, Arc::new(Self { folder, image, model }))
    }

    fn reopen(&self) -> Store {
        Store::open(self.folder.path().join("images")).unwrap()
    }

    fn replicas(&self, store: Store) -> (Native, NativeReplicas) {
        let root = self.folder.path();
        let files = ServingFiles::install(&root.join("serving"), &root.join("runner")).unwrap();
        let native = Native::new(store, self.containers(), PROGRAM.into());
        (native.clone(), NativeReplicas::new(native, root.join("models"), files))
    }

    fn revision(&self, behaviour: &str, service: &str, number: u64, replicas: u32) -> Revision {
        let spec = ServiceSpec {
            name: service.to_owned(),
            image: "box".to_owned(),
            model: "net".to_owned(),
            version: 1,
            replicas,
            env: vec![format!("BEHAVIOUR={behaviour}")],
            ..ServiceSpec::default()
        };
        let model = ModelPin {
            manifest: self.model.clone(),
            format: ModelFormat::Onnx,
            labels: vec!["champion".to_owned()],
        };
        Revision { number, spec, image_id: self.image.clone(), model: Some(model) }
    }

    fn containers(&self) -> PathBuf {
        self.folder.path().join("containers")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left: Vec<_> = std::fs::read_dir(self.containers())
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        if std::thread::panicking() {
            for path in left {
                let _ = slipway_runtime::Container::open(&path).map(|container| {
                    let _ = container.signal(SIGKILL);
                    let _ = container.wait_exit(Some(Duration::from_secs(10)));
                    let _ = container.remove();
                });
            }
            return;
        }
        assert!(left.is_empty(), "a case left {left:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.folder.path().to_str().unwrap();
        assert!(!mounts.contains(root), "mounts are left below {root}");
    }
}

/// An image of busybox, the replica's program, and the libraries that it was linked with.
fn import(store: &Store, folder: &Path) -> Digest {
    let tree = folder.join("tree");
    let copy = |from: &Path, to: &str| {
        let to = tree.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    };
    copy(Path::new("/bin/busybox"), "/bin/busybox");
    std::os::unix::fs::symlink("busybox", tree.join("bin/sh")).unwrap();
    copy(Path::new(PROGRAM), "/bin/replica");
    let linked = Command::new("ldd").arg(PROGRAM).output().unwrap();
    for word in String::from_utf8(linked.stdout).unwrap().split_whitespace().filter(|w| w.starts_with('/')) {
        copy(Path::new(word), word);
    }
    let tar = folder.join("tree.tar");
    let status = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&tree).arg(".").status().unwrap();
    assert!(status.success());
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(Vec::<String>::new()).build().unwrap();
    let config = ImageConfigurationBuilder::default()
        .architecture("amd64")
        .os("linux")
        .rootfs(rootfs)
        .config(ConfigBuilder::default().build().unwrap())
        .build()
        .unwrap();
    let reader = std::fs::File::open(&tar).unwrap();
    store.import_rootfs(reader, &config, &UnpackLimits::default()).unwrap()
}

fn pack(store: &Store, folder: &Path) -> Digest {
    let dir = folder.join("net");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("weights"), "1 2 3").unwrap();
    let meta = ModelMeta {
        model: "net".to_owned(),
        version: 1,
        format: ModelFormat::Onnx,
        entry: None,
        lineage: Lineage::default(),
        metrics: BTreeMap::new(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
    };
    model::pack(store, &dir, &meta).unwrap().manifest
}
