//! The table of `docs/scale.md`: which objects a service and a run are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use slipway_kubernetes::Capabilities;
use slipway_kubernetes::object::Object;
use slipway_kubernetes::render::inventory::ApplySet;
use slipway_kubernetes::render::{render_gateway, render_service, render_training};
use slipway_kubernetes::spec::*;

use super::checks::{plain_image, plain_run, plain_service};
use super::corpus::pinned;

const BEGIN: &str = "<!-- objects: a test of slipway-kubernetes renders this table -->\n";
const END: &str = "<!-- /objects -->\n";

fn doc() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scale.md")
}

fn row(what: &str, objects: &[Object]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for object in objects {
        *kinds.entry(object.kind()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds
        .into_iter()
        .map(|(kind, count)| if count == 1 { kind.to_owned() } else { format!("{count} × {kind}") })
        .collect();
    format!("| {what} | {} | {} |\n", objects.len(), kinds.join(", "))
}

fn service(change: impl FnOnce(&mut ServiceDeployment), spec: ServiceDeployment) -> Vec<Object> {
    let mut spec = spec;
    change(&mut spec);
    render_service(&spec, &Capabilities::default()).unwrap().objects
}

fn run(ranks: u32) -> Vec<Object> {
    let mut run = plain_run();
    run.ranks = ranks;
    render_training(&run, &Capabilities::default()).unwrap().objects
}

fn gateway() -> Vec<Object> {
    let gateway = GatewayDeployment {
        name: "slipway-gateway".into(),
        namespace: "team-a".into(),
        image: ImagePin {
            reference: pinned("slipway"),
            run_as: RunAs::User { uid: 65532, gid: 65532 },
            architectures: vec![],
        },
        replicas: 2,
        exposure: Exposure::ClusterIp,
        resources: PodResources::default(),
        placement: Placement::default(),
        service_annotations: Default::default(),
    };
    render_gateway(&gateway, &Capabilities::default()).unwrap().objects
}

fn table() -> String {
    let one = |spec: &mut ServiceDeployment| spec.spec.replicas = 1;
    let two = |spec: &mut ServiceDeployment| spec.spec.replicas = 2;
    let hosted = |spec: &mut ServiceDeployment| {
        spec.spec.replicas = 2;
        spec.exposure = Exposure::Host {
            host: "a.example.com".into(),
            parent: None,
            ingress_class: None,
            tls_secret: None,
        };
    };
    let mut text = "| what | objects | kinds |\n|---|---|---|\n".to_owned();
    text.push_str(&row("service of an image alone, 1 replica", &service(one, plain_image(Some(8080)))));
    text.push_str(&row(
        "service of an image alone, 2 replicas or more",
        &service(two, plain_image(Some(8080))),
    ));
    text.push_str(&row("service of a model, 1 replica", &service(one, plain_service())));
    text.push_str(&row("service of a model, 2 replicas or more", &service(two, plain_service())));
    text.push_str(&row("the same, reached by a host name", &service(hosted, plain_service())));
    text.push_str(&row("run of 1 rank", &run(1)));
    text.push_str(&row("run of 1,000 ranks", &run(1000)));
    text.push_str(&row("gateway of a namespace", &gateway()));
    text
}

#[test]
fn the_table_of_objects_is_what_is_rendered() {
    let text = std::fs::read_to_string(doc()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (old, after) = rest.split_once(END).expect("the table has an end");
    let new = table();
    if std::env::var_os("SLIPWAY_BLESS").is_some() {
        std::fs::write(doc(), format!("{before}{BEGIN}{new}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(old, new, "docs/scale.md; SLIPWAY_BLESS=1 takes it");
}

/// A ConfigMap ends at 1 MiB: the inventory names kinds, and its members are found by their label.
#[test]
fn the_inventory_does_not_grow_with_what_it_holds() {
    let set = ApplySet::new("team-a", "0a1b2c3d").unwrap();
    let keys = |services: u32| {
        let mut keys = Vec::new();
        for number in 0..services {
            let named = |spec: &mut ServiceDeployment| spec.spec.name = format!("web-{number:05}");
            keys.extend(service(named, plain_service()).iter().map(Object::key));
        }
        keys
    };
    let (few, many) = (keys(1), keys(1000));
    assert!(many.len() >= 1000 * few.len());
    let size = |keys| set.parent(keys).json().to_string().len();
    assert_eq!(size(&few), size(&many));
    assert!(size(&many) < 2048, "{}", size(&many));
}
