//! Files that people look at. `SLIPWAY_BLESS=1` writes them anew.

use std::path::{Path, PathBuf};

use slipway_kubernetes::Capabilities;
use slipway_kubernetes::capabilities::Version;
use slipway_kubernetes::export::stream;
use slipway_kubernetes::object::Object;
use slipway_kubernetes::render::inventory::ApplySet;
use slipway_kubernetes::render::rbac::{Subject, render_engine_role};
use slipway_kubernetes::render::{MPI_TOKEN, render_gateway, render_service, render_training};
use slipway_kubernetes::spec::*;

use super::checks::{plain_image, plain_run, plain_service};
use super::corpus::pinned;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn check(name: &str, objects: &[Object]) {
    let text = stream(objects);
    let path = folder().join(format!("{name}.yaml"));
    if std::env::var_os("SLIPWAY_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some((at, (new, old))) =
        text.lines().zip(expected.lines()).enumerate().find(|(_, (new, old))| new != old)
    {
        panic!("{}:{}: rendered `{new}`, not `{old}`; SLIPWAY_BLESS=1 takes it", path.display(), at + 1);
    }
    assert_eq!(text, expected, "{}; SLIPWAY_BLESS=1 takes it", path.display());
}

fn modern() -> Capabilities {
    Capabilities {
        version: Version::v1(36),
        gateway_api: Some("v1".into()),
        image_volumes: true,
        metrics_api: true,
        custom_metrics: true,
        jobset: Some("v1alpha2".into()),
        dra: Some("v1".into()),
        ..Capabilities::default()
    }
}

#[test]
fn the_smallest_service() {
    check("service-smallest", &render_service(&plain_service(), &Capabilities::default()).unwrap().objects);
}

#[test]
fn an_image_alone() {
    let mut spec = plain_image(Some(8080));
    spec.exposure = Exposure::LoadBalancer { port: 80 };
    check("service-image", &render_service(&spec, &modern()).unwrap().objects);
}

#[test]
fn a_service_with_everything() {
    let mut spec = plain_service();
    spec.spec.name = "my_model".into();
    spec.gateway = Some(GatewayRef { name: "slipway-gateway".into() });
    spec.autoscaling = Some(Autoscaling {
        min: 2,
        max: 8,
        cpu_percent: Some(60),
        metrics: vec![MetricTarget { name: "slipway_requests_in_progress".into(), average: "8".into() }],
        ..Autoscaling::default()
    });
    spec.resources.limits.memory = Some(4 << 30);
    spec.resources.limits.cpu_millis = Some(1500);
    spec.resources.gpus =
        Some(Gpus::Claim { device_class: "gpu.nvidia.com".into(), count: 1, selectors: vec![] });
    spec.environment.secrets = [("API_KEY".to_owned(), "s3cret".to_owned())].into();
    spec.image.architectures.push("arm64".into());
    spec.scrape_from = Some("monitoring".into());
    spec.exposure = Exposure::Host {
        host: "digits.example.com".into(),
        parent: Some(RouteParent { name: "public".into(), namespace: Some("infra".into()), section: None }),
        ingress_class: None,
        tls_secret: None,
    };
    check("service-everything", &render_service(&spec, &modern()).unwrap().objects);
}

#[test]
fn a_run_of_two_ranks() {
    check("run-torchrun", &render_training(&plain_run(), &Capabilities::default()).unwrap().objects);
}

#[test]
fn a_run_as_a_job_set() {
    let mut run = plain_run();
    run.gang = Gang::JobSet;
    run.launcher = Launcher::Mpi;
    run.environment.secrets = [(MPI_TOKEN.to_owned(), "t0ken".to_owned())].into();
    run.processes = 4;
    run.resources.gpus = Some(Gpus::Devices { resource: "nvidia.com/gpu".into(), count: 4 });
    check("run-jobset-mpi", &render_training(&run, &modern()).unwrap().objects);
}

#[test]
fn the_gateway_and_the_roles() {
    let gateway = GatewayDeployment {
        name: "slipway-gateway".into(),
        namespace: "team-a".into(),
        image: ImagePin {
            reference: pinned("slipway"),
            run_as: RunAs::User { uid: 65532, gid: 65532 },
            architectures: vec![],
        },
        replicas: 2,
        exposure: Exposure::LoadBalancer { port: 80 },
        resources: PodResources::default(),
        placement: Placement::default(),
        service_annotations: Default::default(),
    };
    check("gateway", &render_gateway(&gateway, &modern()).unwrap().objects);
    let subject = Subject::ServiceAccount { namespace: "ci".into(), name: "slipway".into() };
    let mut objects =
        render_engine_role("team-a", "slipway-engine", Some(&subject), &modern()).unwrap().objects;
    let set = ApplySet::new("team-a", "0a1b2c3d").unwrap();
    let keys: Vec<_> = objects.iter().map(Object::key).collect();
    set.adopt(&mut objects);
    objects.push(set.parent(&keys));
    check("engine-role", &objects);
}
