//! Specifications of every kind with every option, from a seed: the same on every machine.

use std::collections::BTreeMap;

use serde_json::json;
use slipway_kubernetes::Capabilities;
use slipway_kubernetes::capabilities::{IpFamily, Version};
use slipway_kubernetes::object::Object;
use slipway_kubernetes::render::inventory::ApplySet;
use slipway_kubernetes::render::rbac::{Subject, render_engine_role};
use slipway_kubernetes::render::{Rendered, render_gateway, render_service, render_training};
use slipway_kubernetes::spec::*;
use slipway_types::Reference;
use slipway_types::container::Limits;
use slipway_types::model::ModelFormat;
use slipway_types::service::{Batch, ServiceSpec};

/// How many specifications the corpus has.
pub const SIZE: u64 = 200;

pub const NAMES: [&str; 14] = [
    "digits",
    "my_model",
    "My Model",
    "My-Model",
    "my.model",
    "模型",
    "模型二",
    "2fast",
    "-",
    "x-535d4cfe",
    "slipway-gateway",
    "a model with a {{ template }} and $(VAR) in its name",
    "long",
    "Z",
];

/// One specification, rendered.
pub struct Case {
    pub what: String,
    pub caps: Capabilities,
    pub rendered: Rendered,
}

/// A small generator (xorshift64*): a dependency for it would be more than it is.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn chance(&mut self) -> bool {
        self.below(2) == 0
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize].clone()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.chance() { Some(make(self)) } else { None }
    }
}

/// Every case of the corpus.
pub fn corpus() -> Vec<Case> {
    (0..SIZE).map(case).collect()
}

fn case(seed: u64) -> Case {
    let mut random = Random::new(seed + 1);
    let caps = capabilities(&mut random, seed);
    let (what, rendered) = match seed % 10 {
        0..=4 => {
            let spec = service(&mut random, &caps);
            (format!("service {spec:?}"), render_service(&spec, &caps))
        }
        5..=8 => {
            let run = training(&mut random, &caps);
            (format!("run {run:?}"), render_training(&run, &caps))
        }
        _ if seed % 20 == 9 => {
            let gateway = gateway(&mut random);
            (format!("gateway {gateway:?}"), render_gateway(&gateway, &caps))
        }
        _ => {
            let subject = subject(&mut random);
            (
                format!("role {subject:?}"),
                render_engine_role("team-a", "slipway-engine", subject.as_ref(), &caps),
            )
        }
    };
    let mut rendered = rendered.unwrap_or_else(|error| panic!("{seed}: {error:?}\n{what}"));
    let set = ApplySet::new("team-a", "0a1b2c3d").unwrap();
    set.adopt(&mut rendered.objects);
    let keys: Vec<_> = rendered.objects.iter().map(Object::key).collect();
    rendered.objects.push(set.parent(&keys));
    Case { what: format!("{seed}: {what}"), caps, rendered }
}

fn capabilities(random: &mut Random, seed: u64) -> Capabilities {
    let version = Version::v1(29 + (seed % 9) as u32);
    let dra = match version.minor {
        ..=31 => None,
        32 => Some("v1beta1"),
        33 => Some("v1beta2"),
        _ => Some("v1"),
    };
    Capabilities {
        version,
        gateway_api: random.maybe(|_| "v1".to_owned()),
        image_volumes: version >= Version::v1(35) && random.chance(),
        metrics_api: random.chance(),
        custom_metrics: random.chance(),
        jobset: random.maybe(|_| "v1alpha2".to_owned()),
        kueue: random.chance(),
        volcano: random.chance(),
        pod_group: (version >= Version::v1(37)).then(|| "v1beta1".to_owned()),
        dra: dra.map(str::to_owned),
        policies: Vec::new(),
        ip_family: random.pick(&[IpFamily::V4, IpFamily::V6]),
    }
}

pub fn pinned(name: &str) -> Reference {
    let digest = slipway_types::Digest::from_sha256([name.len() as u8; 32]);
    format!("registry.example.com:5000/team/{name}@{digest}").parse().unwrap()
}

fn name(random: &mut Random) -> String {
    match random.pick(&NAMES) {
        "long" => "n".repeat(200),
        other => other.to_owned(),
    }
}

fn limits(random: &mut Random) -> Limits {
    Limits {
        memory: random.maybe(|r| r.pick(&[512 << 20, 3 << 29, 1_000_000_001, 6 << 30])),
        cpu_millis: random.maybe(|r| r.pick(&[10, 500, 1000, 1500, 64_000])),
        pids: random.maybe(|_| 100),
    }
}

fn resources(random: &mut Random, caps: &Capabilities) -> PodResources {
    let limits = limits(random);
    let half = Limits { memory: limits.memory.map(|m| m / 2), cpu_millis: limits.cpu_millis, pids: None };
    let gpus = match random.below(6) {
        0 => Some(Gpus::Devices { resource: "nvidia.com/gpu".into(), count: 1 + random.below(8) as u32 }),
        1 => Some(Gpus::Mig { profile: "1g.10gb".into(), count: 1 }),
        2 if caps.dra.is_some() => Some(Gpus::Claim {
            device_class: "gpu.nvidia.com".into(),
            count: 2,
            selectors: vec!["device.attributes['gpu.nvidia.com'].memory > 40".into()],
        }),
        _ => None,
    };
    PodResources { requests: random.maybe(|_| half), limits, gpus, shm: random.maybe(|_| 256 << 20) }
}

fn placement(random: &mut Random) -> Placement {
    let affinities = [
        json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 1, "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "noisy"}}}}]}}),
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a", "b"]}]},
            {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
        ]}}}),
    ];
    Placement {
        node_selector: random.maybe(|_| ("pool".to_owned(), "models".to_owned())).into_iter().collect(),
        tolerations: random
            .maybe(|r| Toleration {
                key: Some("dedicated".into()),
                value: r.maybe(|_| "models".into()),
                effect: Some("NoExecute".into()),
                seconds: r.maybe(|_| 60),
            })
            .into_iter()
            .collect(),
        affinity: random.maybe(|r| r.pick(&affinities)),
        priority_class: random.maybe(|_| "high".into()),
        runtime_class: random.maybe(|_| "nvidia".into()),
        image_pull_secrets: random.maybe(|_| "registry".to_owned()).into_iter().collect(),
    }
}

fn image(random: &mut Random) -> ImagePin {
    let architectures = [vec![], vec!["amd64".to_owned()], vec!["amd64".to_owned(), "arm64".to_owned()]];
    ImagePin {
        reference: pinned("image"),
        run_as: random.pick(&[RunAs::Root, RunAs::User { uid: 1000, gid: 1000 }]),
        architectures: random.pick(&architectures),
    }
}

fn environment(random: &mut Random) -> Environment {
    Environment {
        secrets: random.maybe(|_| ("API_KEY".to_owned(), "s3cret $(x)".to_owned())).into_iter().collect(),
        secret_refs: random
            .maybe(|_| SecretRef { env: "TOKEN".into(), secret: "tokens".into(), key: "a.token".into() })
            .into_iter()
            .collect(),
    }
}

fn env(random: &mut Random) -> Vec<String> {
    let all = ["A=1", "B=$(A) $$ {{ .Values.x }}", "C=", "D=é\n two", "A=2", "API_KEY=open", "LEVEL=yes"];
    all.iter().filter(|_| random.chance()).map(|pair| (*pair).to_owned()).collect()
}

fn exposure(random: &mut Random) -> Exposure {
    match random.below(5) {
        0 => Exposure::ClusterIp,
        1 => Exposure::NodePort { port: 8080, node_port: random.maybe(|_| 31_000) },
        2 => Exposure::LoadBalancer { port: 8080 },
        _ => Exposure::Host {
            host: random.pick(&["digits.example.com", "*.example.com"]).to_owned(),
            parent: random.maybe(|r| RouteParent {
                name: "public".into(),
                namespace: r.maybe(|_| "infra".into()),
                section: r.maybe(|_| "https".into()),
            }),
            ingress_class: random.maybe(|_| "nginx".into()),
            tls_secret: random.maybe(|_| "digits-tls".into()),
        },
    }
}

pub fn service(random: &mut Random, caps: &Capabilities) -> ServiceDeployment {
    let mut name = name(random);
    let gateway = random.maybe(|_| GatewayRef { name: "slipway-gateway".into() });
    if gateway.is_some() && name == "slipway-gateway" {
        name = "digits".to_owned();
    }
    let mut spec = ServiceDeployment {
        spec: ServiceSpec {
            name: name.clone(),
            image: "whatever".into(),
            model: self::name(random),
            version: random.below(1000),
            replicas: random.below(6) as u32,
            port: None,
            batch: Batch::default(),
            entry: random.maybe(|_| "net:Net".into()),
            env: env(random),
            limits: limits(random),
            max_body: random.maybe(|_| 1 << 20),
            autoscale: None,
        },
        revision: random.below(100),
        namespace: "team-a".into(),
        image: image(random),
        workload: Workload::Model {
            content: ModelContent {
                reference: pinned("model"),
                format: random.pick(&ModelFormat::ALL),
                labels: vec!["champion".into(), "模型".into()],
                delivery: random.pick(&[ModelDelivery::Auto, ModelDelivery::Copy, ModelDelivery::Bundled]),
            },
            tools: pinned("tools"),
        },
        exposure: exposure(random),
        gateway,
        autoscaling: random.maybe(|r| Autoscaling {
            min: r.below(3) as u32,
            max: 3 + r.below(10) as u32,
            cpu_percent: r.maybe(|_| 60),
            memory_percent: r.maybe(|_| 80),
            metrics: r
                .maybe(|_| MetricTarget {
                    name: "slipway_requests_in_progress".into(),
                    average: "500m".into(),
                })
                .into_iter()
                .collect(),
        }),
        resources: resources(random, caps),
        placement: placement(random),
        environment: environment(random),
        egress: random.chance(),
        scrape_from: random.maybe(|_| "monitoring".into()),
    };
    if random.below(4) == 0 {
        run_as_is(&mut spec, random);
    }
    spec
}

/// The same service without its model: what its image itself runs.
fn run_as_is(spec: &mut ServiceDeployment, random: &mut Random) {
    spec.spec.model.clear();
    spec.spec.version = 0;
    let exposed = spec.exposure != Exposure::ClusterIp;
    let port = random.pick(&[80, 8080, 65_535]);
    spec.workload = Workload::Image { port: Some(port).filter(|_| exposed || random.chance()) };
}

fn source(random: &mut Random) -> VolumeSource {
    match random.below(4) {
        0 => VolumeSource::Claim {
            name: "shared".into(),
            sub_path: random.maybe(|_| "projects/a".into()),
            read_only: random.chance(),
        },
        1 => VolumeSource::Image { reference: pinned("folder"), folder: "/workspace/".into() },
        2 => VolumeSource::Scratch { size: random.maybe(|_| 10 << 30) },
        _ => VolumeSource::Bundled,
    }
}

pub fn training(random: &mut Random, caps: &Capabilities) -> TrainingRun {
    let launcher = random.pick(&[Launcher::None, Launcher::Torchrun, Launcher::TensorFlow, Launcher::Mpi]);
    let ranks = random.pick(&[1, 2, 4, 1000]);
    let mut gangs = vec![Gang::Emulated];
    let optional = [
        (caps.jobset.is_some(), Gang::JobSet),
        (caps.kueue, Gang::Kueue { queue: "gpus".into() }),
        (caps.volcano, Gang::Volcano { queue: random.maybe(|_| "gpus".into()) }),
        (caps.pod_group.is_some(), Gang::PodGroup),
    ];
    gangs.extend(optional.into_iter().filter(|(there, _)| *there).map(|(_, gang)| gang));
    // A JobSet puts more between the run's name and the rank.
    let gang = random.pick(&gangs);
    let name =
        if gang == Gang::JobSet { random.pick(&["digits", "My Run"]).to_owned() } else { name(random) };
    let min_ranks = if launcher == Launcher::Torchrun && ranks > 1 { random.maybe(|_| 1) } else { None };
    let mut environment = environment(random);
    if launcher == Launcher::Mpi {
        environment.secrets.insert(slipway_kubernetes::render::MPI_TOKEN.to_owned(), "t0ken".to_owned());
    }
    TrainingRun {
        run: format!("{name}-{}", random.below(1000)),
        owner: random.maybe(|_| "0a1b2c3d4e5f".into()),
        project: self::name(random),
        attempt: random.below(30) as u32,
        namespace: "team-a".into(),
        image: image(random),
        tools: pinned("tools"),
        command: vec!["python".into(), "train.py".into(), "--note=$(date) {{ x }}".into()],
        ranks,
        min_ranks,
        processes: random.pick(&[1, 1, 8]),
        launcher,
        env: env(random),
        environment,
        resources: resources(random, caps),
        placement: placement(random),
        workspace: source(random),
        data: random.maybe(source),
        output: match random.below(2) {
            0 => Storage::New { size: 50 << 30, class: random.maybe(|_| "fast".into()), shared: true },
            _ => Storage::Existing { claim: "runs".into() },
        },
        deadline: random.maybe(|_| 3600),
        grace: 60,
        gang,
        egress: random.chance(),
    }
}

fn gateway(random: &mut Random) -> GatewayDeployment {
    GatewayDeployment {
        name: "slipway-gateway".into(),
        namespace: "team-a".into(),
        image: image(random),
        replicas: 1 + random.below(3) as u32,
        exposure: exposure(random),
        resources: PodResources { limits: limits(random), ..PodResources::default() },
        placement: placement(random),
        service_annotations: BTreeMap::from([("example.com/internal".to_owned(), "true".to_owned())]),
    }
}

fn subject(random: &mut Random) -> Option<Subject> {
    random.pick(&[
        None,
        Some(Subject::User("jane@example.com".into())),
        Some(Subject::Group("ml".into())),
        Some(Subject::ServiceAccount { namespace: "ci".into(), name: "deployer".into() }),
    ])
}
