//! `slipway up`

use std::path::PathBuf;

use hyper::Method;
use slipway_types::build::{BuildEvent, BuildRequest};
use slipway_types::name::{argument, segment};
use slipway_types::run::RunSpec;
use slipway_types::service::ServiceSpec;
use slipway_types::up::{UpEvent, UpOutcome, UpRequest};

use super::Context;
use super::build::failure_of;
use super::dry_run::{self, DryRun};
use super::train;
use crate::failure::{self, Failure, exit};
use crate::progress::BuildProgress;
use crate::project_file::LoadedProject;

/// Build, train, package and deploy the project in a folder; does only what changed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Train again though nothing changed
    #[arg(long)]
    retrain: bool,
    /// Execute every build step, whatever the cache holds
    #[arg(long)]
    no_cache: bool,
    /// Set a build argument of the Dockerfile (repeatable)
    #[arg(long = "build-arg", value_name = "KEY=VALUE")]
    build_args: Vec<String>,
    /// Only show what deploying the newest model version would do on a cluster; nothing is built or trained
    #[arg(long, value_enum, value_name = "WHERE")]
    dry_run: Option<DryRun>,
    /// Take over what others, such as `kubectl edit`, own of its objects in a cluster; that is an error otherwise
    #[arg(long, conflicts_with = "dry_run")]
    take_over: bool,
    /// PEM bundle that build steps trust besides the image's own; not kept in the image
    #[arg(long, value_name = "FILE", env = crate::env_vars::SLIPWAY_CA_CERTIFICATES)]
    ca_certificates: Option<PathBuf>,
    /// Folder of the project
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
}

/// Brings a project up.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let loaded = LoadedProject::load(&args.folder)?;
    let request = request(context, &loaded, &args)?;
    if let Some(dry_run) = args.dry_run {
        return preview(context, dry_run, &request);
    }
    let printer = context.printer;
    let dockerfile = request.build.dockerfile.clone();
    let source = slipway_image::build::read_dockerfile(&request.build).map_err(|e| {
        failure::io("read the Dockerfile", &dockerfile, &e)
            .hint("`image.dockerfile` in slipway.toml names it")
    })?;
    let mut progress = BuildProgress::new(printer, printer.is_terminal(), false, &dockerfile, source);
    let mut outcome: Result<UpOutcome, Failure> = Err(context.no_result("`up`"));
    let mut build_failure = None;
    context.client()?.stream(Method::POST, "/v1/up", Some(&request), |event: UpEvent| {
        match event {
            UpEvent::Build(event) => {
                progress.show(&event);
                if let BuildEvent::Failed(failed) = event {
                    build_failure = Some(failure_of(failed));
                }
            }
            UpEvent::Train(event) => {
                progress.finish();
                train::show(printer, &event);
            }
            UpEvent::TrainAttached { run } => {
                progress.finish();
                printer.note(format!("run {run} trains from the same files already: waiting for it"));
            }
            UpEvent::TrainSkipped { version } => {
                progress.finish();
                printer.note(format!("nothing changed since {}@{version} was trained", loaded.project.name));
            }
            UpEvent::Deploy { message } => {
                progress.finish();
                printer.note(message);
            }
            UpEvent::Finished(done) => outcome = Ok(done),
            UpEvent::Failed(error) => outcome = Err(build_failure.take().unwrap_or_else(|| error.into())),
        }
        Ok(())
    })?;
    progress.finish();
    let done = outcome?;
    if !done.changed {
        printer.line(format!("{} is up to date: nothing to do", done.service));
    }
    if done.url.is_empty() {
        printer.line(format!("{} replicas, model version {}", done.ready, done.version));
        printer.note(format!(
            "it runs, and has no address yet: `slipway services {}` says why, and shows it once there is one",
            argument(&done.service)
        ));
        return Ok(0);
    }
    printer.line(format!("{}  {} replicas, model version {}", done.url, done.ready, done.version));
    printer.line(format!("try:  curl {}/v2/models/{}", done.url, segment(&done.service)));
    let sample = loaded.folder.join("request.json");
    if sample.is_file() {
        printer.line(format!(
            "      curl -d {} {}/v1/models/{}:predict",
            argument(&format!("@{}", sample.display())),
            done.url,
            segment(&done.service)
        ));
    }
    Ok(0)
}

/// What the last step would do. The image and the version are those of the last run, as nothing is built or trained.
fn preview(context: &Context, dry_run: DryRun, request: &UpRequest) -> Result<u8, Failure> {
    let project = &request.train.project;
    let declare = serde_json::json!({ "spec": request.serve, "engine": context.engine });
    let shown = dry_run::show(context, dry_run, &declare);
    let (code, preview) = shown.map_err(|failure| {
        if failure.exit_code != exit::NOT_FOUND {
            return failure;
        }
        failure.hint(format!(
            "nothing was trained yet: `slipway up` would build, train `{project}`, and deploy it"
        ))
    })?;
    context.printer.note(format!(
        "`slipway up` would build the image, train if anything changed, and deploy: shown is the deployment of {}, revision {}",
        preview.content, preview.revision
    ));
    Ok(code)
}

fn request(context: &Context, loaded: &LoadedProject, args: &Args) -> Result<UpRequest, Failure> {
    let project = &loaded.project;
    let image = &project.image;
    let open = |path: PathBuf| path.canonicalize().map_err(|e| failure::io("open", &path, &e));
    let mut build_args = image.build_args.clone();
    for value in &args.build_args {
        let Some((key, value)) = value.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage(format!("--build-arg `{value}`: expected KEY=VALUE")));
        };
        build_args.insert(key.to_owned(), value.to_owned());
    }
    let serve = &project.serve;
    let wrong = |(key, reason): (&str, String)| Failure::usage(format!("{key}: {reason}"));
    Ok(UpRequest {
        build: BuildRequest {
            context: open(loaded.folder.join(&image.context))?,
            dockerfile: loaded.folder.join(&image.dockerfile),
            tags: vec![loaded.image_name()],
            target: image.target.clone(),
            build_args,
            no_cache: args.no_cache,
            ca_certificates: args.ca_certificates.clone().map(open).transpose()?,
            ..BuildRequest::default()
        },
        train: RunSpec { engine: context.engine.clone(), ..train::run_spec(loaded)? },
        serve: ServiceSpec {
            name: project.name.clone(),
            model: project.name.clone(),
            replicas: serve.replicas,
            batch: loaded.batch().map_err(wrong)?,
            entry: project.model.entry.clone(),
            env: serve.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            limits: loaded.serve_limits().map_err(wrong)?,
            max_body: loaded.max_body().map_err(wrong)?,
            autoscale: serve.autoscale,
            ..ServiceSpec::default()
        },
        retrain: args.retrain,
        take_over: args.take_over,
    })
}
