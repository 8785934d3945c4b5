//! The same services by `kubectl apply --server-side` of what `slipway export kubernetes` writes of one of them.

use std::time::{Duration, Instant};

use super::super::error::Error;
use super::super::process::pause;
use super::super::slipway::QUICK;
use super::super::stats::Better;
use super::super::{Bench, say};
use super::bed::Bed;
use super::services::{SLIPWAY, Step, name};

const KUBECTL: &str = "kubectl apply --server-side";
const NAMESPACE: &str = "peer";
const LIMIT: Duration = Duration::from_secs(600);

/// Measures, beside the step that added as many.
pub fn measure(bench: &mut Bench, bed: &Bed, count: u32, steps: &[Step]) -> Result<(), Error> {
    let Some(step) = steps.iter().find(|step| step.added == count) else {
        bench.report.notes.push(format!("kubectl is not measured: no step adds {count} services"));
        return Ok(());
    };
    say(format!("{count} services by kubectl"));
    let folder = bench.scratch.folder("export")?;
    let first = name(0);
    let mut export = bed.slipway.command();
    export.args([
        "export",
        "kubernetes",
        &first,
        "--no-push",
        "--namespace",
        NAMESPACE,
        "--registry",
        "127.0.0.1:1",
        "--output",
    ]);
    super::super::process::run(export.arg(&folder), QUICK)?;
    let mut one = String::new();
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .map_err(Error::io("read", &folder))?
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    for file in files {
        one.push_str("---\n");
        one.push_str(&std::fs::read_to_string(&file).map_err(Error::io("read", &file))?);
    }
    let all: String = (0..count).map(|number| one.replace(&first, &format!("peer-{number:05}"))).collect();
    let file = bench.scratch.path().join("peer.yaml");
    std::fs::write(&file, all).map_err(Error::io("write", &file))?;
    bed.kubectl(&["create", "namespace", NAMESPACE])?;
    let path = file.to_string_lossy();
    let began = Instant::now();
    bed.kubectl(&["--namespace", NAMESPACE, "apply", "--server-side", "--filename", &path])?;
    loop {
        let text = bed.kubectl(&[
            "--namespace",
            NAMESPACE,
            "get",
            "deployments",
            "--output",
            "jsonpath={range .items[*]}{.status.availableReplicas} {end}",
        ])?;
        if text.split_whitespace().filter(|available| *available == "1").count() >= count as usize {
            break;
        }
        if began.elapsed() > LIMIT {
            return Err(Error::unexpected("what kubectl applied is not available", text));
        }
        pause(Duration::from_millis(500))?;
    }
    let time = began.elapsed().as_secs_f64();
    let metric = format!("{count} services more, until all are available");
    bench.report.add(&metric, "s", Better::Lower, SLIPWAY, step.time.as_secs_f64());
    bench.report.add(&metric, "s", Better::Lower, KUBECTL, time);
    bed.kubectl(&["delete", "namespace", NAMESPACE, "--wait=true"])?;
    Ok(())
}
