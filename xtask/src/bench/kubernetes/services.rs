//! Services: declared all at once, until each is available.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::error::Error;
use super::super::process::pause;
use super::super::stats::Better;
use super::super::{Bench, say};
use super::audit::total;
use super::bed::{Bed, IMAGE};
use super::daemon::{ask, passes, usage};
use super::fit;

/// Who is measured.
pub const SLIPWAY: &str = "slipway";
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time for one service in the mean.
const EACH: Duration = Duration::from_secs(2);
/// How long nothing happens before what is idle is measured, and how long that takes.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);

/// What one step took.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Services after it.
    pub services: u32,
    /// Services that it added.
    pub added: u32,
    /// Time until all were available.
    pub time: Duration,
}

/// Declares services up to each count.
pub fn measure(bench: &mut Bench, bed: &Bed, counts: &[u32]) -> Result<Vec<Step>, Error> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut times, mut requests, mut memory, mut idle_passes) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut all_time, mut all_requests) = (0.0, 0);
    let base = usage(bed.pid)?;
    bench.report.add("daemon's memory (PSS), no service", "MiB", Better::Lower, SLIPWAY, base.share);
    for &services in counts {
        let before = steps.last().map_or(0, |step| step.services);
        let added = services.saturating_sub(before);
        say(format!("{services} services"));
        bed.audit.since()?;
        let cpu = usage(bed.pid)?.cpu;
        let began = Instant::now();
        for number in before..services {
            ask(&bed.socket, "POST", "/v1/services", Some(&declaration(number)))?;
        }
        let declared = began.elapsed();
        let limit = EACH * added.max(30);
        while available(bed)? < services {
            if began.elapsed() > limit {
                let got = format!("{} of {services}", available(bed)?);
                return Err(Error::unexpected(
                    format!("services are not available after {} s", limit.as_secs()),
                    got,
                ));
            }
            pause(LOOK)?;
        }
        let time = began.elapsed();
        let sent = bed.audit.since()?;
        let used = usage(bed.pid)?;
        let seconds = time.as_secs_f64();
        all_time += seconds;
        all_requests += total(&sent);
        pause(SETTLE)?;
        bed.audit.since()?;
        let (_, line) = passes(&bed.log, usize::MAX)?;
        let idle_from = usage(bed.pid)?.cpu;
        pause(IDLE)?;
        let (idle, after) = (bed.audit.since()?, usage(bed.pid)?);
        let (took, _) = passes(&bed.log, line)?;
        let pass = super::super::stats::summary(&took).map_or(f64::NAN, |summary| summary.median);
        let name = |what: &str| format!("{services} services: {what}");
        let mut add = |what: &str, unit, figure| {
            bench.report.add(&name(what), unit, Better::Lower, SLIPWAY, figure);
        };
        let each = f64::from(added.max(1));
        add("declared", "s", declared.as_secs_f64());
        add("from the first declaration to all available", "s", seconds);
        add("requests to the API server for each that is new", "", total(&sent) as f64 / each);
        add("requests to the API server meanwhile", "1/s", total(&sent) as f64 / seconds);
        add("processor time of the daemon for each that is new", "ms", (used.cpu - cpu) * 1000.0 / each);
        add("daemon's memory (RSS)", "MiB", after.memory);
        add("daemon's memory (PSS)", "MiB", after.share);
        add("idle: requests to the API server", "1/min", total(&idle) as f64 * 60.0 / IDLE.as_secs_f64());
        add("idle: processor time", "% of one", (after.cpu - idle_from) * 100.0 / IDLE.as_secs_f64());
        add("idle: one pass", "ms", pass);
        bench
            .report
            .notes
            .push(format!("Requests for services {before} to {services}: {sent:?}; idle: {idle:?}"));
        let n = f64::from(services);
        times.push((n, all_time));
        requests.push((n, all_requests as f64));
        memory.push((n, after.share - base.share));
        idle_passes.push((n, pass));
        steps.push(Step { services, added, time });
    }
    for (what, points) in [
        ("Time until all services are available", &times),
        ("The number of requests", &requests),
        ("The daemon's memory beyond that without services", &memory),
        ("The time of an idle pass", &idle_passes),
    ] {
        bench.report.notes.extend(fit::told(what, points));
    }
    Ok(steps)
}

/// Deletes them all, as fast as they go.
pub fn remove(bench: &mut Bench, bed: &Bed) -> Result<(), Error> {
    let names: Vec<String> = listed(bed)?
        .iter()
        .filter_map(|service| service["spec"]["name"].as_str().map(str::to_owned))
        .collect();
    say(format!("deleting {} services", names.len()));
    bed.audit.since()?;
    let began = Instant::now();
    for name in &names {
        ask(&bed.socket, "DELETE", &format!("/v1/service?name={name}"), None)?;
    }
    let limit = EACH * u32::try_from(names.len()).unwrap_or(u32::MAX).max(30);
    while !listed(bed)?.is_empty() {
        if began.elapsed() > limit {
            return Err(Error::unexpected("services are still there", listed(bed)?.len().to_string()));
        }
        pause(LOOK)?;
    }
    let (count, time) = (names.len(), began.elapsed().as_secs_f64());
    let each = total(&bed.audit.since()?) as f64 / count.max(1) as f64;
    let mut add = |what: &str, unit, figure| {
        bench.report.add(&format!("{count} services: {what}"), unit, Better::Lower, SLIPWAY, figure);
    };
    add("from the first deletion to none left", "s", time);
    add("requests to the API server for each that goes", "", each);
    Ok(())
}

/// Name of a service.
pub fn name(number: u32) -> String {
    format!("web-{number:05}")
}

fn declaration(number: u32) -> Value {
    let name = name(number);
    json!({
        "spec": {"name": name, "model": name, "version": 0, "image": IMAGE, "replicas": 1},
        "change": {}, "no_model": true,
    })
}

fn listed(bed: &Bed) -> Result<Vec<Value>, Error> {
    let listed = ask(&bed.socket, "GET", "/v1/services", None)?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

/// Services with a ready replica.
fn available(bed: &Bed) -> Result<u32, Error> {
    let ready = |service: &Value| {
        let replicas = service["replicas"].as_array().map_or(&[][..], Vec::as_slice);
        replicas.iter().any(|replica| replica["state"] == "ready")
    };
    Ok(u32::try_from(listed(bed)?.iter().filter(|service| ready(service)).count()).unwrap_or(u32::MAX))
}
