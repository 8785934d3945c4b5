//! `slipway deploy`

use slipway_types::name::argument;
use slipway_types::service::{ServiceSpec, ServiceStatus};
use slipway_types::size::parse_bytes;

use super::Context;
use super::autoscale::AutoscaleArgs;
use super::dry_run::{self, DryRun};
use super::pull::transferred;
use super::services::{print_address, wait_until_ready};
use crate::client::Client;
use crate::failure::{Failure, exit};
use crate::project_file::limits;
use crate::query;

/// Serve a model version as replicas of a service, or change a service that runs
///
/// Where no model has the name, and an image is named, a cluster runs what the image itself runs: `slipway deploy web
/// --image nginx --port 80`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the service [default: the model's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Image that has the model's framework, or that is run as it is [default: the one the model was trained in, or as it
    /// is]; pulled if it is not here
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// How many replicas run [default: as it is, else 1]
    #[arg(long, value_name = "COUNT")]
    replicas: Option<u32>,
    #[command(flatten)]
    autoscale: AutoscaleArgs,
    /// Class of yours for the formats `python` and `torch`, as `module:Class` [default: the model's]
    #[arg(long, value_name = "MODULE:CLASS")]
    entry: Option<String>,
    /// Most rows in one batch [default: as it is, else 32]
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<u32>,
    /// How long an idle worker waits for more rows, in microseconds [default: as it is, else 0]
    #[arg(long, value_name = "MICROSECONDS")]
    batch_delay: Option<u64>,
    /// Memory limit of each replica, such as `2g` [default: as it is, else none]
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// CPU limit of each replica [default: as it is, else none]
    #[arg(long, value_name = "COUNT")]
    cpus: Option<f64>,
    /// Set an environment variable (repeatable); those that a service has stay
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Largest request body, such as `32m` [default: as it is, else 32m]
    #[arg(long, value_name = "SIZE")]
    max_body: Option<String>,
    /// Run what the image itself runs, though there is a model of this name, or the image is one for models
    #[arg(long)]
    no_model: bool,
    /// Port that an image which is run as it is listens on [default: as it is, else the only one that it exposes]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only show what would be done on a cluster; an image must be here then
    #[arg(long, value_enum, value_name = "WHERE", conflicts_with = "detach")]
    dry_run: Option<DryRun>,
    /// Take over what others, such as `kubectl edit`, own of its objects in a cluster; that is an error otherwise
    #[arg(long, conflicts_with = "dry_run")]
    take_over: bool,
    /// Do not wait until it answers
    #[arg(short, long)]
    detach: bool,
    /// Model version, or name of the service of an image
    #[arg(value_name = "MODEL[@VERSION|@ALIAS]")]
    model: String,
}

/// Deploys.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let reference: slipway_types::model::ModelRef =
        args.model.parse().map_err(|reason: String| Failure::usage(reason))?;
    let limits = limits(args.memory.as_deref(), args.cpus, "--memory", "--cpus")
        .map_err(|(flag, reason)| Failure::usage(format!("{flag}: {reason}")))?;
    let max_body = args.max_body.as_deref().map(parse_bytes).transpose();
    let spec = ServiceSpec {
        name: args.name.unwrap_or_else(|| reference.model.clone()),
        image: args.image.unwrap_or_default(),
        model: args.model,
        version: 0,
        replicas: args.replicas.unwrap_or(0),
        entry: args.entry,
        autoscale: args.autoscale.autoscale(),
        ..ServiceSpec::default()
    };
    let change = serde_json::json!({
        "batch_size": args.batch_size,
        "batch_delay_us": args.batch_delay,
        "memory": limits.memory,
        "cpu_millis": limits.cpu_millis,
        "env": args.env,
        "port": args.port,
        "max_body": max_body.map_err(|e| Failure::usage(format!("--max-body: {e}")))?,
    });
    let body = serde_json::json!({ "spec": spec, "keep_replicas": args.replicas.is_none(), "change": change,
        "engine": context.engine, "no_model": args.no_model, "take_over": args.take_over });
    let image_alone = |image: &str| {
        if !args.no_model {
            let model = &reference.model;
            context
                .printer
                .note(format!("no model is called `{model}`: serving what the image {image} itself runs"));
        }
    };
    if let Some(dry_run) = args.dry_run {
        let (code, preview) = dry_run::show(context, dry_run, &body)?;
        if !preview.has_model {
            image_alone(&preview.content);
        }
        return Ok(code);
    }
    let client = context.client()?;
    let mut status = declare(context, &client, &spec.image, &body)?;
    if let Some(note) = status.unscaled() {
        context.printer.note(note);
    }
    if !status.spec.has_model() {
        image_alone(&status.spec.image);
    }
    if !args.detach {
        status = wait_until_ready(context, &client, &status.spec.name)?;
    }
    if status.reachable.is_none() && !args.detach {
        context.printer.note(format!(
            "it offers no port: `slipway expose {} --port PORT` lets it be reached",
            argument(&status.spec.name)
        ));
    } else {
        print_address(context, &status);
    }
    Ok(0)
}

/// Declares; an image that is missing is pulled first, as `run` does.
fn declare(
    context: &Context,
    client: &Client,
    image: &str,
    body: &serde_json::Value,
) -> Result<ServiceStatus, Failure> {
    let outcome = client.post("/v1/services", body);
    let not_found = matches!(&outcome, Err(failure) if failure.exit_code == exit::NOT_FOUND);
    if !not_found || image.parse::<slipway_types::Reference>().is_err() {
        return outcome;
    }
    let known: Result<serde_json::Value, Failure> = client.get(&query::path("/v1/image", &[("name", image)]));
    if !matches!(known, Err(failure) if failure.exit_code == exit::NOT_FOUND) {
        return outcome;
    }
    context.printer.note(format!("{image} is not here: pulling it"));
    let request = serde_json::json!({ "reference": image });
    transferred(context, "/v1/images/pull", &request, "pulled", false)?;
    client.post("/v1/services", body)
}
