//! Our own rules over the whole corpus, and what must hold of every pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use slipway_kubernetes::Capabilities;
use slipway_kubernetes::names::NAME_ANNOTATION;
use slipway_kubernetes::object::Object;
use slipway_kubernetes::render::{MPI_TOKEN, RenderError, render_service, render_training};
use slipway_kubernetes::spec::*;
use slipway_kubernetes::validate::check_object;

use super::corpus::{Random, corpus, service, training};

fn pods(object: &Object) -> Option<&Value> {
    let json = object.json();
    match object.kind() {
        "Deployment" | "Job" => json.pointer("/spec/template/spec"),
        "JobSet" => json.pointer("/spec/replicatedJobs/0/template/spec/template/spec"),
        _ => None,
    }
}

fn find<'a>(objects: &'a [Object], kind: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object.kind() == kind).map(Object::json)
}

#[test]
fn every_object_keeps_the_rules_that_schemas_do_not_tell() {
    for case in corpus() {
        for object in &case.rendered.objects {
            let problems = check_object(object.json());
            assert!(problems.is_empty(), "{}\n{problems:#?}\n{:#}", case.what, object.json());
            assert!(!object.why().is_empty(), "{}", case.what);
        }
        let keys: BTreeSet<_> = case.rendered.objects.iter().map(Object::key).collect();
        assert_eq!(keys.len(), case.rendered.objects.len(), "an object twice: {}", case.what);
    }
}

#[test]
fn the_same_specification_gives_the_same_objects() {
    for (one, two) in corpus().iter().zip(corpus()) {
        assert_eq!(one.rendered, two.rendered, "{}", one.what);
    }
}

#[test]
fn every_pod_is_confined() {
    let (mut seen, mut as_they_are) = (0, 0);
    for case in corpus() {
        for object in &case.rendered.objects {
            let Some(pod) = pods(object) else { continue };
            seen += 1;
            assert_eq!(pod["automountServiceAccountToken"], false, "{}", case.what);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            let lists = [&pod["initContainers"], &pod["containers"]];
            for container in lists.into_iter().flat_map(|list| list.as_array().into_iter().flatten()) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false);
                if container["name"] == "server" && container.get("command").is_none() {
                    // What the image itself runs needs what a runtime gives by default.
                    as_they_are += 1;
                    assert_eq!(security.as_object().unwrap().len(), 1, "{security}");
                } else {
                    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
                    assert!(security["readOnlyRootFilesystem"] == true || container["name"] == "rank");
                }
                assert!(container["image"].as_str().unwrap().contains("@sha256:"), "{container:#}");
            }
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"] == true, context["runAsUser"].as_u64().is_some_and(|u| u > 0));
        }
    }
    assert!(seen > 150 && (15..50).contains(&as_they_are), "{seen} {as_they_are}");
}

/// Names that differ give objects that differ, and so do a service and a run of one name.
#[test]
fn no_two_names_share_an_object() {
    let names =
        ["a", "A", "a_", "a.", "a-pods", "a-public", "模", "型", "x", "a-535d4cfe", "a-runner", "my_model"];
    let mut owners: BTreeMap<_, String> = BTreeMap::new();
    for name in names {
        let mut random = Random::new(3);
        let caps = Capabilities::default();
        let mut spec = service(&mut random, &caps);
        spec.spec.name = name.to_owned();
        spec.gateway = Some(GatewayRef { name: "gate".into() });
        spec.environment.secrets = [("A".to_owned(), "b".to_owned())].into();
        spec.resources.gpus = None;
        let objects = render_service(&spec, &caps).unwrap().objects.into_iter().map(|o| ("service", o));
        let run_of = |owner: Option<&str>| {
            let mut run = plain_run();
            run.run = name.to_owned();
            run.owner = owner.map(str::to_owned);
            run.environment = spec.environment.clone();
            run.environment.secrets.insert(MPI_TOKEN.to_owned(), "t0ken".to_owned());
            run.launcher = Launcher::Mpi;
            render_training(&run, &caps).unwrap().objects.into_iter().map(|o| ("run", o))
        };
        let of_runs = [None, Some("0a1b2c3d"), Some("4e5f6071")].into_iter().flat_map(run_of);
        for (what, object) in objects.chain(of_runs) {
            assert_eq!(object.json()["metadata"]["annotations"][NAME_ANNOTATION], name);
            if let Some(other) = owners.insert(object.key(), format!("{what} {name}")) {
                panic!("{what} {name} and {other} share {:?}", object.key());
            }
        }
    }
}

fn one_service(change: impl FnOnce(&mut ServiceDeployment), caps: &Capabilities) -> Vec<Object> {
    let mut spec = plain_service();
    change(&mut spec);
    render_service(&spec, caps).unwrap().objects
}

pub fn plain_service() -> ServiceDeployment {
    let mut spec = service(&mut Random::new(7), &Capabilities::default());
    spec.spec.name = "digits".into();
    spec.spec.model = "digits".into();
    spec.spec.version = 3;
    spec.revision = 7;
    spec.spec.replicas = 2;
    spec.spec.env = vec!["LEVEL=info".into()];
    spec.spec.limits = Default::default();
    spec.spec.entry = None;
    spec.spec.max_body = None;
    spec.exposure = Exposure::ClusterIp;
    spec.gateway = None;
    spec.autoscaling = None;
    spec.resources = PodResources::default();
    spec.placement = Placement::default();
    spec.environment = Environment::default();
    spec.image.run_as = RunAs::User { uid: 1000, gid: 1000 };
    spec.image.architectures = vec!["amd64".into()];
    spec.workload = Workload::Model {
        content: ModelContent {
            reference: super::corpus::pinned("model"),
            format: slipway_types::model::ModelFormat::Sklearn,
            labels: vec!["champion".into()],
            delivery: ModelDelivery::Auto,
        },
        tools: super::corpus::pinned("tools"),
    };
    spec.egress = false;
    spec.scrape_from = None;
    spec
}

pub fn plain_run() -> TrainingRun {
    let mut run = training(&mut Random::new(7), &Capabilities::default());
    run.run = "digits-7".into();
    run.owner = None;
    run.project = "digits".into();
    run.attempt = 1;
    run.command = vec!["python".into(), "train.py".into()];
    run.ranks = 2;
    run.min_ranks = None;
    run.processes = 1;
    run.launcher = Launcher::Torchrun;
    run.env = vec!["EPOCHS=3".into()];
    run.environment = Environment::default();
    run.resources = PodResources::default();
    run.placement = Placement::default();
    run.image.run_as = RunAs::User { uid: 1000, gid: 1000 };
    run.image.architectures = vec!["amd64".into(), "arm64".into()];
    run.workspace =
        VolumeSource::Image { reference: super::corpus::pinned("workspace"), folder: "/workspace".into() };
    run.data = Some(VolumeSource::Claim { name: "data".into(), sub_path: None, read_only: true });
    run.output = Storage::New { size: 10 << 30, class: None, shared: true };
    run.deadline = None;
    run.gang = Gang::Emulated;
    run.egress = false;
    run
}

#[test]
fn replicas_belong_to_one_owner() {
    let metrics = Capabilities { metrics_api: true, ..Capabilities::default() };
    let scaled = |spec: &mut ServiceDeployment| {
        spec.autoscaling = Some(Autoscaling { min: 2, max: 5, ..Autoscaling::default() });
    };
    let fixed = one_service(|_| {}, &metrics);
    assert_eq!(find(&fixed, "Deployment").unwrap()["spec"]["replicas"], 2);
    let auto = one_service(scaled, &metrics);
    assert!(find(&auto, "Deployment").unwrap()["spec"].get("replicas").is_none());
    let scaler = find(&auto, "HorizontalPodAutoscaler").unwrap();
    assert_eq!(scaler["spec"]["metrics"][0]["resource"]["name"], "cpu");
    let container = find(&auto, "Deployment").unwrap().pointer("/spec/template/spec/containers/0").unwrap();
    assert_eq!(container["resources"]["requests"]["cpu"], "250m", "the autoscaler needs a request");
    // Without a metrics API nothing would ever scale: the declared number runs.
    let blind = one_service(scaled, &Capabilities::default());
    assert!(find(&blind, "HorizontalPodAutoscaler").is_none());
    assert_eq!(find(&blind, "Deployment").unwrap()["spec"]["replicas"], 2);
}

#[test]
fn a_budget_only_where_there_is_a_choice() {
    let caps = Capabilities::default();
    assert!(find(&one_service(|s| s.spec.replicas = 1, &caps), "PodDisruptionBudget").is_none());
    let budget = one_service(|s| s.spec.replicas = 2, &caps);
    let budget = find(&budget, "PodDisruptionBudget").unwrap();
    assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
}

#[test]
fn gpus_roll_without_a_spare_one() {
    let caps = Capabilities::default();
    let rolling = |objects: &[Object]| {
        find(objects, "Deployment").unwrap().pointer("/spec/strategy/rollingUpdate").unwrap().clone()
    };
    assert_eq!(rolling(&one_service(|_| {}, &caps)), json!({"maxSurge": 1, "maxUnavailable": 0}));
    let gpus = one_service(
        |s| s.resources.gpus = Some(Gpus::Devices { resource: "nvidia.com/gpu".into(), count: 1 }),
        &caps,
    );
    assert_eq!(rolling(&gpus), json!({"maxSurge": 0, "maxUnavailable": 1}));
    let pod = find(&gpus, "Deployment").unwrap().pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], "1");
    assert_eq!(pod["tolerations"][0]["key"], "nvidia.com/gpu");
}

#[test]
fn the_model_comes_by_the_best_way_that_there_is() {
    let volumes = Capabilities { image_volumes: true, ..Capabilities::default() };
    let config = |objects: &[Object]| -> Value {
        let text = find(objects, "ConfigMap").unwrap()["data"]["runner.json"].as_str().unwrap().to_owned();
        serde_json::from_str(&text).unwrap()
    };
    let pod = |objects: &[Object]| {
        find(objects, "Deployment").unwrap().pointer("/spec/template/spec").unwrap().clone()
    };
    let names = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let mounted = one_service(|_| {}, &volumes);
    assert_eq!(names(&pod(&mounted)["initContainers"]), ["install-tools"]);
    assert_eq!(config(&mounted)["model_dir"], "/mnt/model/model");
    let copied = one_service(|_| {}, &Capabilities::default());
    assert_eq!(names(&pod(&copied)["initContainers"]), ["install-tools", "copy-model"]);
    assert_eq!(config(&copied)["model_dir"], "/model");
    let bundle = |spec: &mut ServiceDeployment| {
        let Workload::Model { content, .. } = &mut spec.workload else { panic!("a model") };
        content.delivery = ModelDelivery::Bundled;
    };
    let bundled = one_service(bundle, &volumes);
    assert!(!names(&pod(&bundled)["volumes"]).contains(&"model".to_owned()));
    assert_eq!(config(&bundled)["listen"], "0.0.0.0:8080");
    // The runner's own type reads it.
    let _: slipway_types::service::RunnerConfig = serde_json::from_value(config(&bundled)).unwrap();
}

#[test]
fn secrets_stay_in_their_secret() {
    let mut spec = plain_service();
    spec.environment.secrets = [("API_KEY".to_owned(), "hunter2".to_owned())].into();
    assert!(!format!("{spec:?}").contains("hunter2"));
    let rendered = render_service(&spec, &Capabilities::default()).unwrap();
    for object in rendered.objects.iter().filter(|object| object.kind() != "Secret") {
        assert!(
            !object.json().to_string().contains("hunter2")
                && !object.json().to_string().contains("aHVudGVyMg")
        );
    }
    let secret = find(&rendered.objects, "Secret").unwrap();
    assert_eq!((&secret["data"]["API_KEY"], &secret["immutable"]), (&json!("aHVudGVyMg=="), &json!(true)));
    let env = find(&rendered.objects, "Deployment")
        .unwrap()
        .pointer("/spec/template/spec/containers/0/env/1")
        .unwrap();
    assert_eq!(env["valueFrom"]["secretKeyRef"]["name"], secret["metadata"]["name"]);
}

#[test]
fn what_the_cluster_lacks_is_said() {
    let mut spec = plain_service();
    spec.image.run_as = RunAs::Root;
    spec.spec.limits.pids = Some(10);
    spec.autoscaling = Some(Autoscaling { min: 0, max: 2, ..Default::default() });
    let warnings = render_service(&spec, &Capabilities::default()).unwrap().warnings.join("\n");
    for expected in ["runs as root", "limit of processes", "no metrics API", "2 replicas run"] {
        assert!(warnings.contains(expected), "{expected}: {warnings}");
    }
    let metrics = Capabilities { metrics_api: true, ..Capabilities::default() };
    let warnings = render_service(&spec, &metrics).unwrap().warnings.join("\n");
    assert!(warnings.contains("needs the gateway") && !warnings.contains("replicas run"), "{warnings}");
    assert_eq!(render_service(&plain_service(), &Capabilities::default()).unwrap().warnings, [""; 0]);
}

#[test]
fn a_change_of_configuration_makes_another_object() {
    let caps = Capabilities::default();
    let name = |objects: &[Object]| find(objects, "ConfigMap").unwrap()["metadata"]["name"].clone();
    let one = one_service(|_| {}, &caps);
    let other = one_service(|s| s.spec.batch.max_size = 7, &caps);
    assert_ne!(name(&one), name(&other));
    let volumes = find(&one, "Deployment").unwrap().pointer("/spec/template/spec/volumes").unwrap();
    assert!(volumes.as_array().unwrap().iter().any(|v| v["configMap"]["name"] == name(&one)));
}

#[test]
fn routes_by_what_the_cluster_has() {
    let host = |s: &mut ServiceDeployment| {
        s.exposure = Exposure::Host {
            host: "digits.example.com".into(),
            parent: Some(RouteParent { name: "public".into(), namespace: None, section: None }),
            ingress_class: None,
            tls_secret: None,
        };
    };
    let with = Capabilities { gateway_api: Some("v1".into()), ..Capabilities::default() };
    assert!(find(&one_service(host, &with), "HTTPRoute").is_some());
    let without = one_service(host, &Capabilities::default());
    assert!(find(&without, "HTTPRoute").is_none() && find(&without, "Ingress").is_some());
    let balanced = one_service(|s| s.exposure = Exposure::LoadBalancer { port: 8080 }, &with);
    let service = find(&balanced, "Service").unwrap();
    assert_eq!(
        (&service["spec"]["type"], &service["spec"]["ports"][0]["port"]),
        (&json!("LoadBalancer"), &json!(8080))
    );
}

#[test]
fn behind_the_gateway_only_the_gateway_reaches_pods() {
    let objects = one_service(
        |s| s.gateway = Some(GatewayRef { name: "slipway-gateway".into() }),
        &Capabilities::default(),
    );
    let services: Vec<&Value> = objects.iter().filter(|o| o.kind() == "Service").map(Object::json).collect();
    assert_eq!(services.len(), 2);
    let clients = services.iter().find(|s| s["metadata"]["name"] == "digits").unwrap();
    assert_eq!(clients["spec"]["selector"], json!({"slipway.dev/gateway": "slipway-gateway"}));
    let pods = services.iter().find(|s| s["spec"]["clusterIP"] == "None").unwrap();
    let route: Value =
        serde_json::from_str(pods["metadata"]["annotations"]["slipway.dev/route"].as_str().unwrap()).unwrap();
    assert_eq!(route["service"], "digits");
    assert!(route["hosts"].as_array().unwrap().contains(&json!("digits.team-a.svc.cluster.local")));
    let policy = find(&objects, "NetworkPolicy").unwrap();
    assert_eq!(
        policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]["slipway.dev/gateway"],
        "slipway-gateway"
    );
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(policy["spec"].get("egress").is_none(), "as on one host, replicas reach nothing");
}

/// A service of the image alone.
pub fn plain_image(port: Option<u16>) -> ServiceDeployment {
    let mut spec = plain_service();
    spec.spec.name = "my_model".into();
    spec.spec.model.clear();
    spec.spec.version = 0;
    spec.workload = Workload::Image { port };
    spec.gateway = Some(GatewayRef { name: "slipway-gateway".into() });
    spec
}

#[test]
fn an_image_alone_runs_as_it_is() {
    let caps = Capabilities::default();
    let render = |port, exposure| {
        let mut spec = plain_image(port);
        spec.exposure = exposure;
        render_service(&spec, &caps).map(|rendered| rendered.objects)
    };
    let kinds = |objects: &[Object]| objects.iter().map(|o| o.kind().to_owned()).collect::<Vec<_>>();
    let front = |objects: &[Object]| find(objects, "Service").unwrap()["spec"].clone();

    let objects = render(Some(9000), Exposure::ClusterIp).unwrap();
    assert_eq!(kinds(&objects), ["ServiceAccount", "Deployment", "Service", "PodDisruptionBudget"]);
    let deployment = find(&objects, "Deployment").unwrap();
    assert_eq!(deployment["metadata"]["annotations"][NAME_ANNOTATION], "my_model");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    for left_to_the_image in ["command", "args", "workingDir"] {
        assert!(container.get(left_to_the_image).is_none(), "{container:#}");
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(container[probe]["tcpSocket"], json!({"port": 9000}));
    }
    assert!(pod.get("initContainers").is_none() && container.get("lifecycle").is_none());
    assert_eq!(pod["securityContext"]["runAsUser"], 1000);
    assert_eq!(
        front(&objects)["selector"],
        deployment["spec"]["selector"]["matchLabels"],
        "straight to the pods"
    );
    assert_eq!(front(&objects)["ports"], json!([{"port": 9000, "targetPort": 9000}]));

    let exposed = render(Some(9000), Exposure::LoadBalancer { port: 8080 }).unwrap();
    assert_eq!(front(&exposed)["type"], "LoadBalancer");
    assert_eq!(front(&exposed)["ports"], json!([{"port": 8080, "targetPort": 9000}]));
    let host =
        Exposure::Host { host: "a.example".into(), parent: None, ingress_class: None, tls_secret: None };
    let host = render(Some(9000), host).unwrap();
    assert_eq!(front(&host)["ports"], json!([{"name": "http", "port": 80, "targetPort": 9000}]));
    assert!(find(&host, "Ingress").is_some());

    // Nobody knows a port: as `kubectl create deployment` does.
    let silent = render(None, Exposure::ClusterIp).unwrap();
    assert_eq!(kinds(&silent), ["ServiceAccount", "Deployment", "PodDisruptionBudget"]);
    let container = &find(&silent, "Deployment").unwrap()["spec"]["template"]["spec"]["containers"][0];
    assert!(container.get("ports").is_none() && container.get("readinessProbe").is_none(), "{container:#}");
    for wrong in [render(None, Exposure::LoadBalancer { port: 80 }), render(Some(0), Exposure::ClusterIp)] {
        assert!(matches!(wrong, Err(RenderError::Contradiction { what: "port", .. })), "{wrong:?}");
    }
}

#[test]
fn nothing_of_a_users_is_expanded() {
    let objects = one_service(
        |s| s.spec.env = vec!["A=$(B) $$ 5$".into(), "B=plain $5".into(), "A=$(C)".into()],
        &Capabilities::default(),
    );
    let env = find(&objects, "Deployment").unwrap().pointer("/spec/template/spec/containers/0/env").unwrap();
    assert_eq!(env, &json!([{"name": "A", "value": "$$(C)"}, {"name": "B", "value": "plain $5"}]));
    let mut run = plain_run();
    run.command.push("$(date)".into());
    let objects = render_training(&run, &Capabilities::default()).unwrap().objects;
    assert_eq!(
        find(&objects, "Job").unwrap().pointer("/spec/template/spec/containers/0/command/2").unwrap(),
        "$$(date)"
    );
}

#[test]
fn a_rank_is_told_who_it_is() {
    let env = |run: &TrainingRun| -> BTreeMap<String, Value> {
        let objects = render_training(run, &Capabilities::default()).unwrap().objects;
        let job = find(&objects, "Job").unwrap();
        let list = job.pointer("/spec/template/spec/containers/0/env").unwrap().as_array().unwrap().clone();
        // A reference is expanded only when what it refers to comes before it.
        assert_eq!(list[0]["name"], "SLIPWAY_RANK");
        list.into_iter().map(|v| (v["name"].as_str().unwrap().to_owned(), v["value"].clone())).collect()
    };
    let mut run = plain_run();
    let torch = env(&run);
    assert_eq!((&torch["RANK"], &torch["WORLD_SIZE"]), (&json!("$(SLIPWAY_RANK)"), &json!("2")));
    let master = torch["MASTER_ADDR"].as_str().unwrap();
    assert!(
        master.starts_with("digits-7-a1-0.digits-7-ranks-") && master.ends_with(".team-a.svc"),
        "{master}"
    );
    assert_eq!(torch["SLIPWAY_CHECKPOINT_DIR"], "/output/checkpoints");
    // Only the first rank's model counts, so that no other may write into it.
    assert_eq!(torch["SLIPWAY_MODEL_DIR"], "/output/ranks/$(SLIPWAY_RANK)/model");
    run.launcher = Launcher::TensorFlow;
    run.env.push("SLIPWAY_MODEL_DIR=/output/other".into());
    let tensorflow = env(&run);
    assert!(
        tensorflow["TF_CONFIG"]
            .as_str()
            .unwrap()
            .ends_with(r#""task":{"type":"worker","index":$(SLIPWAY_RANK)}}"#)
    );
    assert_eq!(tensorflow["SLIPWAY_MODEL_DIR"], "/output/other");
    run.ranks = 1;
    run.launcher = Launcher::Torchrun;
    assert_eq!(env(&run)["MASTER_ADDR"], "localhost");
    assert_eq!(env(&run)["SLIPWAY_METRICS_FILE"], "/output/metrics.jsonl");
}

#[test]
fn an_attempt_fails_as_one_and_is_not_repeated_by_the_cluster() {
    let objects = render_training(&plain_run(), &Capabilities::default()).unwrap().objects;
    let job = find(&objects, "Job").unwrap();
    let spec = &job["spec"];
    assert_eq!(job["metadata"]["name"], "digits-7-a1");
    assert_eq!(
        (&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]),
        (&json!(2), &json!(2), &json!(0))
    );
    assert!(spec.get("ttlSecondsAfterFinished").is_none(), "a job that vanishes would be run again");
    let service = find(&objects, "Service").unwrap();
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    assert_eq!(spec["template"]["spec"]["subdomain"], service["metadata"]["name"]);
}

#[test]
fn ranks_of_mpi_reach_each_other_without_ssh() {
    let mut run = plain_run();
    run.launcher = Launcher::Mpi;
    run.processes = 4;
    run.environment.secrets.insert(MPI_TOKEN.to_owned(), "t0ken".to_owned());
    let objects = render_training(&run, &Capabilities::default()).unwrap().objects;
    let job = find(&objects, "Job").unwrap();
    assert!(!job.to_string().contains("t0ken"), "{job}");
    let pod = &job["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["command"], json!(["/slipway/slipway-runner", "mpi", "python", "train.py"]));
    let value = |name: &str| {
        let env = container["env"].as_array().unwrap();
        env.iter().find(|one| one["name"] == name).map_or(Value::Null, |one| one["value"].clone())
    };
    assert_eq!(value("OMPI_MCA_plm_rsh_agent"), "/slipway/slipway-runner mpi-shell");
    assert_eq!(value("OMPI_ALLOW_RUN_AS_ROOT"), Value::Null, "its user is not root");
    // The tools are there once, for the copies and for the rank.
    let tools = |list: &Value| list.as_array().unwrap().iter().filter(|one| one["name"] == "tools").count();
    assert_eq!((tools(&pod["volumes"]), tools(&container["volumeMounts"])), (1, 1));
    let service = find(&objects, "Service").unwrap()["metadata"]["name"].as_str().unwrap();
    let hostfile = find(&objects, "ConfigMap").unwrap()["data"]["hostfile"].as_str().unwrap();
    assert_eq!(hostfile.lines().count(), 2);
    assert!(hostfile.contains(&format!("digits-7-a1-1.{service}.team-a.svc slots=4")), "{hostfile}");
    run.image.run_as = RunAs::Root;
    let as_root = render_training(&run, &Capabilities::default()).unwrap().objects;
    assert!(find(&as_root, "Job").unwrap().to_string().contains("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"));
}

#[test]
fn gangs_need_what_starts_them() {
    let all = Capabilities {
        jobset: Some("v1alpha2".into()),
        kueue: true,
        volcano: true,
        pod_group: Some("v1beta1".into()),
        ..Capabilities::default()
    };
    for (gang, kind) in [
        (Gang::JobSet, "JobSet"),
        (Gang::Kueue { queue: "q".into() }, "Job"),
        (Gang::Volcano { queue: None }, "PodGroup"),
        (Gang::PodGroup, "PodGroup"),
    ] {
        let mut run = plain_run();
        run.gang = gang;
        assert!(matches!(
            render_training(&run, &Capabilities::default()),
            Err(RenderError::Unsupported { .. })
        ));
        assert!(find(&render_training(&run, &all).unwrap().objects, kind).is_some(), "{kind}");
    }
}

#[test]
fn refuses_what_cannot_be() {
    let caps = Capabilities::default();
    let refused = |change: fn(&mut ServiceDeployment)| {
        let mut spec = plain_service();
        change(&mut spec);
        render_service(&spec, &caps).unwrap_err().to_string()
    };
    let unpinned: fn(&mut ServiceDeployment) = |s| s.image.reference = "a:latest".parse().unwrap();
    for (change, expected) in [
        ((|s| s.spec.name = String::new()) as fn(&mut ServiceDeployment), "`` cannot be a name"),
        (|s| s.namespace = "Team".into(), "namespace cannot be used"),
        (unpinned, "not named by digest"),
        (|s| s.spec.env = vec!["1A=x".into()], "environment cannot be used"),
        (|s| s.spec.env = vec!["A".into()], "not KEY=value"),
        (|s| s.image.run_as = RunAs::User { uid: 0, gid: 0 }, "which is root"),
        (|s| s.gateway = Some(GatewayRef { name: "digits".into() }), "name of the gateway"),
        (|s| s.autoscaling = Some(Autoscaling { min: 3, max: 2, ..Default::default() }), "no range"),
        (|s| s.exposure = Exposure::LoadBalancer { port: 0 }, "0 is no port"),
        (
            |s| {
                s.resources.gpus = Some(Gpus::Claim { device_class: "a".into(), count: 1, selectors: vec![] })
            },
            "no resource.k8s.io",
        ),
        (
            |s| {
                s.exposure =
                    Exposure::Host { host: "a_b".into(), parent: None, ingress_class: None, tls_secret: None }
            },
            "host cannot be used",
        ),
    ] {
        let said = refused(change);
        assert!(said.contains(expected), "{said}");
    }
    let refused = |change: fn(&mut TrainingRun)| {
        let mut run = plain_run();
        change(&mut run);
        render_training(&run, &caps).unwrap_err().to_string()
    };
    for (change, expected) in [
        ((|r| r.command.clear()) as fn(&mut TrainingRun), "command"),
        (|r| r.ranks = 0, "at least one rank"),
        (|r| r.min_ranks = Some(3), "between 1 and the most"),
        (|r| r.output = Storage::New { size: 1, class: None, shared: false }, "several nodes"),
        (|r| r.env.push("SLIPWAY_RANK=1".into()), "SLIPWAY_RANK cannot be set"),
        (|r| r.launcher = Launcher::Mpi, "ranks of MPI know each other by it"),
        (
            |r| {
                r.ranks = 5000;
                r.launcher = Launcher::TensorFlow;
            },
            "larger than a program can be given",
        ),
    ] {
        let said = refused(change);
        assert!(said.contains(expected), "{said}");
    }
}
