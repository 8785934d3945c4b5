//! A cluster does what the product's tests need from it: pods, services, names, gangs, probes, volumes, logs, exec.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::Error;
use super::kubectl::Kubectl;
use super::programs;
use super::state::State;
use super::up::NODE;
use crate::error::Common;
use crate::workspace::root;

const NAMESPACE: &str = "slipway-smoke";
const FULL_NAME: &str = "web.slipway-smoke.svc.cluster.local";
const LIMIT: Duration = Duration::from_secs(60);
/// The kubelet removes logs of pods that are gone once a minute.
const REMOVAL_LIMIT: Duration = Duration::from_secs(120);
/// Programs of busybox that the pods call.
const APPLETS: &[&str] = &[
    "sh", "cat", "df", "head", "hostname", "httpd", "id", "ls", "mkdir", "mv", "nslookup", "sed", "sleep",
    "touch", "wget",
];

/// Runs all steps. A failed one leaves its objects for a look; the next run removes them first.
pub fn smoke(state: &State) -> Result<(), Error> {
    if !state.running()?.kubelet {
        return Err(Error::NodeNotReady("the cluster was started without one".into()));
    }
    let kubectl = Kubectl::new(state)?;
    kubectl.get(&["wait", "--for=condition=Ready", "--timeout=10s", &format!("node/{NODE}")])?;
    kubectl.get(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait"])?;
    let image = push(&kubectl)?;
    let manifest = manifest(state, &image)?;
    let smoke = Smoke { state, kubectl, manifest };
    smoke.deployment()?;
    smoke.service()?;
    smoke.readiness()?;
    smoke.volumes()?;
    smoke.security()?;
    smoke.gang()?;
    smoke.deletion()
}

struct Smoke<'a> {
    state: &'a State,
    kubectl: Kubectl,
    manifest: PathBuf,
}

impl Smoke<'_> {
    fn deployment(&self) -> Result<(), Error> {
        self.kubectl.get(&["create", "namespace", NAMESPACE])?;
        // Its controller makes it a moment later, and pods by themselves are refused until then.
        self.get(
            "the namespace's account",
            &["get", "serviceaccount", "default", "--output", "name"],
            |_| true,
        )?;
        let start = Instant::now();
        self.kubectl.get(&["apply", "--server-side", "--filename", &self.manifest.to_string_lossy()])?;
        self.get(
            "two pods are ready",
            &["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"],
            |text| text == "2",
        )?;
        done("deployment: two pods from the registry's image are ready", start);
        let start = Instant::now();
        let logs = self.kubectl.get(&["logs", "-n", NAMESPACE, "deployment/web"])?;
        expect("the log says that it serves", &logs, |logs| logs.contains("serving"))?;
        done("logs through the API server", start);
        Ok(())
    }

    fn service(&self) -> Result<(), Error> {
        let address = self.get(
            "a cluster IP",
            &["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"],
            |text| !text.is_empty(),
        )?;
        self.get("the client runs", &["get", "pod", "client", "-o", "jsonpath={.status.phase}"], |text| {
            text == "Running"
        })?;
        for (how, host) in
            [("its address", address.trim()), ("its name", "web"), ("its full name", FULL_NAME)]
        {
            let start = Instant::now();
            let url = format!("http://{host}/");
            let page = self.inside("client", &["fetch", &url], |text| text.starts_with("web-"))?;
            done(
                &format!("exec, and the service from a pod by {how}, {url}: {} answers", page.trim()),
                start,
            );
        }
        Ok(())
    }

    /// A pod that says it is not ready leaves the service, and comes back.
    fn readiness(&self) -> Result<(), Error> {
        let pods = self.get(
            "a pod",
            &["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"],
            |text| !text.is_empty(),
        )?;
        let ready = [
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=web",
            "-o",
            "jsonpath={.items[*].endpoints[*].conditions.ready}",
        ];
        let start = Instant::now();
        self.inside(&pods, &["mv", "/www/ready", "/www/later"], |_| true)?;
        self.get("the service lost a pod", &ready, |text| text.contains("false"))?;
        self.inside(&pods, &["mv", "/www/later", "/www/ready"], |_| true)?;
        self.get("the service has both pods", &ready, |text| text == "true true")?;
        done("readiness probe: out of the service and back", start);
        Ok(())
    }

    fn volumes(&self) -> Result<(), Error> {
        let start = Instant::now();
        self.inside("client", &["cat", "/data/file"], |text| text == "kept\n")?;
        let volumes = files_below(&self.state.folder().join("volumes"));
        if volumes.is_empty() {
            return Err(Error::Unexpected {
                what: "the claim has no file on the node".into(),
                got: String::new(),
            });
        }
        self.inside("deployment/web", &["df", "-k", "/dev/shm"], |text| {
            text.contains("tmpfs") && text.contains("32768")
        })?;
        done("a claim's volume, and memory at /dev/shm with its limit", start);
        Ok(())
    }

    fn security(&self) -> Result<(), Error> {
        let start = Instant::now();
        self.inside("deployment/web", &["cat", "/proc/self/status"], |text| {
            let has = |line: &str| {
                text.lines().any(|found| found.split_whitespace().collect::<Vec<_>>().join(" ") == line)
            };
            has("CapEff: 0000000000000000")
                && has("NoNewPrivs: 1")
                && has("Seccomp: 2")
                && has("Uid: 65534 65534 65534 65534")
        })?;
        done("security context: no capabilities, no new privileges, seccomp, not root", start);
        Ok(())
    }

    fn gang(&self) -> Result<(), Error> {
        let start = Instant::now();
        self.get(
            "both ranks succeeded",
            &["get", "job", "gang", "-o", "jsonpath={.status.completedIndexes}"],
            |text| text == "0,1",
        )?;
        for rank in ["0", "1"] {
            let selector = format!("batch.kubernetes.io/job-completion-index={rank}");
            let logs = self.kubectl.get(&["logs", "-n", NAMESPACE, "--selector", &selector])?;
            let other = if rank == "0" { "rank 1" } else { "rank 0" };
            expect("a rank heard from the other", &logs, |logs| logs.contains(other))?;
        }
        done("indexed job: two ranks found each other by name", start);
        Ok(())
    }

    /// The namespace's pods, cgroups, logs and volumes go with it.
    fn deletion(&self) -> Result<(), Error> {
        let start = Instant::now();
        self.kubectl.get(&["delete", "namespace", NAMESPACE, "--wait", "--timeout=60s"])?;
        let folders = [self.state.folder().join("volumes"), self.state.folder().join("log/pods")];
        let deadline = Instant::now() + REMOVAL_LIMIT;
        loop {
            let left: Vec<_> = folders.iter().flat_map(|folder| entries(folder)).collect();
            if left.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                return Err(Error::Unexpected { what: "left after deletion".into(), got: left.join("\n") });
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        done("deletion: no volume, no log, no object left", start);
        Ok(())
    }

    fn get(&self, what: &str, arguments: &[&str], good: impl Fn(&str) -> bool) -> Result<String, Error> {
        self.kubectl.until(what, LIMIT, &[&["--namespace", NAMESPACE], arguments].concat(), good)
    }

    /// Runs a program in a pod.
    fn inside(&self, pod: &str, program: &[&str], good: impl Fn(&str) -> bool) -> Result<String, Error> {
        let what = format!("`{}` in {pod} says what it should", program.join(" "));
        self.get(&what, &[&["exec", pod, "--"], program].concat(), good)
    }
}

fn push(kubectl: &Kubectl) -> Result<String, Error> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.ok_or_else(|| Common::missing("busybox", "busybox-static"))?;
    let start = Instant::now();
    let image = format!("{}/smoke:1", kubectl.registry());
    let mut arguments =
        vec!["--name".to_owned(), image.clone(), "--file".into(), format!("/bin/busybox={busybox}")];
    let fetch = programs::ensure()?.fetch();
    arguments.extend(["--file".into(), format!("/bin/fetch={}", fetch.display())]);
    for applet in APPLETS {
        arguments.extend(["--link".into(), format!("/bin/{applet}=busybox")]);
    }
    kubectl.image(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    done("an image in the cluster's registry", start);
    Ok(image)
}

fn manifest(state: &State, image: &str) -> Result<PathBuf, Error> {
    let from = root().join("tests/cluster/smoke.yaml");
    let text = std::fs::read_to_string(&from).map_err(Error::io("read", &from))?;
    let to = state.folder().join("tmp/smoke.yaml");
    std::fs::write(&to, text.replace("${IMAGE}", image)).map_err(Error::io("write", &to))?;
    Ok(to)
}

fn expect(what: &str, got: &str, good: impl Fn(&str) -> bool) -> Result<(), Error> {
    if good(got) {
        Ok(())
    } else {
        Err(Error::Unexpected { what: format!("not so: {what}"), got: got.into() })
    }
}

fn done(what: &str, start: Instant) {
    println!("ok {:6.2} s  {what}", start.elapsed().as_secs_f64());
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let walk = walkdir::WalkDir::new(folder).into_iter().flatten();
    walk.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}
