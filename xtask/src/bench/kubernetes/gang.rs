//! Gangs: one Indexed Job with as many pods as ranks.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::error::Error;
use super::super::process::{pause, run};
use super::super::slipway::QUICK;
use super::super::stats::Better;
use super::super::{Bench, say};
use super::audit::total;
use super::bed::{Bed, IMAGE, NAMESPACE};
use super::daemon::usage;
use super::fit;
use super::services::SLIPWAY;

const LIMIT: Duration = Duration::from_secs(600);

/// Trains once with each count of ranks.
pub fn measure(bench: &mut Bench, bed: &Bed, counts: &[u32]) -> Result<(), Error> {
    let project = bench.scratch.folder("train")?;
    let file = project.join("slipway.toml");
    std::fs::write(
        &file,
        "name = \"gang\"\n[train]\ncommand = [\"true\"]\nstorage = \"64m\"\n[model]\nformat = \"python\"\n",
    )
    .map_err(Error::io("write", &file))?;
    let (mut times, mut requests) = (Vec::new(), Vec::new());
    for &ranks in counts {
        say(format!("a gang of {ranks} ranks"));
        bed.audit.since()?;
        let before = usage(bed.pid)?;
        let began = Instant::now();
        let mut train = bed.slipway.command();
        train.args(["train", "--detach", "--image", IMAGE, "--ranks", &ranks.to_string(), "--project"]);
        let id = run(train.arg(&project), QUICK)?.output.trim().to_owned();
        // A pod of a Job that kwok plays ends at once: what ran is counted.
        let ran = loop {
            let jobs: Value = serde_json::from_str(&bed.kubectl(&[
                "--namespace",
                NAMESPACE,
                "get",
                "jobs",
                "--output",
                "json",
            ])?)
            .unwrap_or_default();
            let jobs = jobs["items"].as_array().cloned().unwrap_or_default();
            let count = |job: &Value, key: &str| job["status"][key].as_u64().unwrap_or_default();
            let ran = jobs
                .iter()
                .filter(|job| job["spec"]["completions"] == ranks)
                .map(|job| count(job, "succeeded") + count(job, "ready"))
                .max()
                .unwrap_or_default();
            if ran >= u64::from(ranks) {
                break began.elapsed();
            }
            if began.elapsed() > LIMIT {
                return Err(Error::unexpected(format!("a gang of {ranks} does not run"), ran.to_string()));
            }
            pause(Duration::from_millis(500))?;
        };
        pause(Duration::from_secs(5))?;
        let (sent, after) = (bed.audit.since()?, usage(bed.pid)?);
        let mut add = |what: &str, unit, figure| {
            bench.report.add(&format!("{ranks} ranks: {what}"), unit, Better::Lower, SLIPWAY, figure);
        };
        add("from `train` until all ran", "s", ran.as_secs_f64());
        add("requests to the API server", "", total(&sent) as f64);
        add("processor time of the daemon", "s", after.cpu - before.cpu);
        add("daemon's memory (RSS)", "MiB", after.memory);
        bench.report.notes.push(format!("Requests for {ranks} ranks, up to 5 s after: {sent:?}"));
        times.push((f64::from(ranks), ran.as_secs_f64()));
        requests.push((f64::from(ranks), total(&sent) as f64));
        // Nothing of a rank that never ran comes back; what the cluster has of it goes with the control plane.
        let _ = run(bed.slipway.command().args(["runs", "--cancel", &id]), QUICK);
    }
    for (what, points) in
        [("Time until a gang ran", &times), ("The number of requests for a gang", &requests)]
    {
        bench.report.notes.extend(fit::told(what, points));
    }
    Ok(())
}
