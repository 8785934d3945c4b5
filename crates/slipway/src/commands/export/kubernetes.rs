//! `slipway export kubernetes`

use std::path::{Path, PathBuf};

use hyper::Method;
use slipway_kubernetes::capabilities::{InvalidVersion, Version};
use slipway_kubernetes::export::{ChartName, ExportedFile, helm, kustomize, plain, stream};
use slipway_kubernetes::names;
use slipway_kubernetes::render::{RenderError, Rendered, render_gateway, render_service};
use slipway_kubernetes::spec::{Autoscaling, ServiceDeployment};
use slipway_types::image::TransferEvent;
use slipway_types::publish::{PublishEvent, PublishRequest, PublishedService};
use slipway_types::{ApiError, ErrorCode};

use super::super::Context;
use super::super::exposure::ExposureArgs;
use super::target::Target;
use crate::cluster;
use crate::failure::Failure;
use crate::owned_folder::OwnedFolder;
use crate::progress::TransferProgress;
use crate::project_file::LoadedProject;

/// Push what a service needs to a registry and write it as YAML for `kubectl apply`; no operator is needed in the cluster
///
/// Of a service that runs on a cluster, what is written without flags is what Slipway applies there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Registry that the cluster pulls from, with a path if need be [default: that of the cluster on which the service runs]
    #[arg(long, value_name = "HOST[:PORT][/PATH]")]
    pub(super) registry: Option<String>,
    /// Namespace of the objects [default: that of the service's cluster, else `default`]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// Write one file for each object into this folder [default: all to standard output]
    #[arg(short, long, value_name = "FOLDER", group = "form")]
    output: Option<PathBuf>,
    /// Write a kustomization into this folder
    #[arg(long, value_name = "FOLDER", group = "form")]
    kustomize: Option<PathBuf>,
    /// Write a Helm chart into this folder
    #[arg(long, value_name = "FOLDER", group = "form")]
    helm: Option<PathBuf>,
    /// Replace files in the folder that an export did not write, or that were changed since
    #[arg(long, requires = "form")]
    force: bool,
    #[command(flatten)]
    pub(super) exposure: ExposureArgs,
    /// Put Slipway's gateway before it, which retries, limits and measures as on one host; a namespace has one for all services
    #[arg(long)]
    pub(super) gateway: bool,
    /// How many pods the gateway has [default: 2]
    #[arg(long, value_name = "COUNT", requires = "gateway", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) gateway_replicas: Option<u32>,
    /// Oldest version of Kubernetes that shall take the objects [default: 1.29]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    pub(super) kubernetes_version: Option<Version>,
    /// Mount the model's image instead of copying it: needs the feature ImageVolume (from 1.35 by default) and containerd 2.1
    #[arg(long)]
    pub(super) image_volumes: bool,
    /// How many pods run [default: as many as replicas here]
    #[arg(long, value_name = "COUNT", conflicts_with = "autoscale")]
    replicas: Option<u32>,
    /// Fewest and most pods, by load: needs metrics-server in the cluster
    #[arg(long, value_name = "MIN:MAX", value_parser = range)]
    pub(super) autoscale: Option<(u32, u32)>,
    /// Mean use of the requested CPU that autoscaling holds, in percent
    #[arg(long, value_name = "PERCENT", requires = "autoscale", value_parser = clap::value_parser!(u32).range(1..))]
    cpu_target: Option<u32>,
    /// Secret of the namespace with the registry's credentials (repeatable)
    #[arg(long = "pull-secret", value_name = "SECRET")]
    pub(super) pull_secrets: Vec<String>,
    /// Compression of layers that no registry has yet
    #[arg(long, value_parser = ["gzip", "zstd"], default_value = "gzip", value_name = "KIND")]
    compression: String,
    /// Write the files without sending anything: the registry must have the images, or get them later
    #[arg(long)]
    no_push: bool,
    /// Print no progress
    #[arg(short, long)]
    quiet: bool,
    /// The declared service [default: that of the project in this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

fn version(text: &str) -> Result<Version, InvalidVersion> {
    text.parse()
}

fn range(text: &str) -> Result<(u32, u32), String> {
    let bounds = text.split_once(':').and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    bounds
        .filter(|(min, max)| *max > 0 && min <= max)
        .ok_or_else(|| format!("`{text}` is no range: expected the fewest and the most pods, such as `2:8`"))
}

/// Exports.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let service = match &args.service {
        Some(service) => service.clone(),
        None => {
            LoadedProject::load(Path::new("."))
                .map_err(|failure| failure.hint("name a service, or run it in the folder of a project"))?
                .project
                .name
        }
    };
    let target = Target::of(context, args, &service)?;
    let mut published = publish(context, args, &target, service)?;
    if let Some(replicas) = args.replicas {
        published.spec.replicas = replicas;
    }
    let caps = &target.capabilities;
    let mut rendered = Rendered::default();
    if let Some(image) = published.gateway.clone() {
        let gateway = cluster::gateway_on_engine(image, &target.cluster, &target.namespace);
        rendered = render_gateway(&gateway, caps).map_err(|error| render_failure(&error))?;
    }
    let spec = ServiceDeployment {
        autoscaling: args.autoscale.map(|(min, max)| Autoscaling {
            min,
            max,
            cpu_percent: args.cpu_target,
            ..Autoscaling::default()
        }),
        ..cluster::on_engine(published, target.exposure.clone(), &target.cluster, &target.namespace)
    };
    let chart = ChartName {
        name: names::map(&spec.spec.name).map_err(|e| Failure::usage(e.to_string()))?,
        version: format!("0.{}.0", spec.revision),
        app_version: spec.spec.version.to_string(),
    };
    let service = render_service(&spec, caps).map_err(|error| render_failure(&error))?;
    rendered.objects.extend(service.objects);
    rendered.warnings.extend(service.warnings);
    for warning in &rendered.warnings {
        context.printer.warning(warning);
    }
    let (folder, files) = match (&args.output, &args.kustomize, &args.helm) {
        (Some(folder), _, _) => (folder, plain(&rendered.objects)),
        (_, Some(folder), _) => (folder, kustomize(&rendered.objects)),
        (_, _, Some(folder)) => (folder, helm(&rendered.objects, &chart)),
        (None, None, None) => {
            context.printer.raw(stream(&rendered.objects).as_bytes());
            return Ok(0);
        }
    };
    write(context, args, &target.namespace, folder, &files)?;
    if !args.quiet {
        context.printer.note(match (&args.kustomize, &args.helm) {
            (Some(_), _) => format!("apply it:  kubectl apply --server-side -k {}", folder.display()),
            (_, Some(_)) => format!("install it:  helm install {} {}", chart.name, folder.display()),
            _ => format!("apply it:  kubectl apply --server-side -f {}", folder.display()),
        });
    }
    Ok(0)
}

fn publish(
    context: &Context,
    args: &Args,
    target: &Target,
    service: String,
) -> Result<PublishedService, Failure> {
    let request = PublishRequest {
        service,
        registry: target.cluster.registry.clone(),
        compression: Some(args.compression.clone()),
        no_push: args.no_push,
        gateway: target.cluster.gateway_replicas > 0,
    };
    let mut progress: Option<TransferProgress> = None;
    let mut outcome = Err(context.no_result("the transfer"));
    context.client()?.stream(
        Method::POST,
        "/v1/services/publish",
        Some(&request),
        |event: PublishEvent| {
            match event {
                PublishEvent::Image { what, reference } if !args.quiet => {
                    if let Some(before) = progress.take() {
                        before.finish();
                    }
                    context.printer.note(format!("{what}: {reference}"));
                    progress = Some(TransferProgress::new(context.printer, "pushed"));
                }
                PublishEvent::Image { .. } => {}
                PublishEvent::Transfer(event @ TransferEvent::Blob { .. }) => {
                    if let Some(progress) = &mut progress {
                        progress.show(&event);
                    }
                }
                PublishEvent::Transfer(_) => {}
                PublishEvent::Finished(done) => outcome = Ok(*done),
                PublishEvent::Failed(error) => outcome = Err(error.into()),
            }
            Ok(())
        },
    )?;
    if let Some(progress) = progress {
        progress.finish();
    }
    outcome
}

fn write(
    context: &Context,
    args: &Args,
    namespace: &str,
    folder: &Path,
    files: &[ExportedFile],
) -> Result<(), Failure> {
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|file| (file.path.as_str(), file.text.as_bytes())).collect();
    let written = OwnedFolder::open(folder)?.replace(&files, args.force)?;
    if !args.quiet {
        for path in &written.changed {
            context.printer.line(folder.join(path).display().to_string());
        }
        for path in &written.removed {
            context.printer.note(format!("removed {}", folder.join(path).display()));
            // `kubectl apply` adds and changes; helm removes by itself.
            let still =
                |object: &String| files.iter().any(|(path, _)| object_of(path).as_ref() == Some(object));
            if let Some(object) = object_of(path).filter(|object| args.helm.is_none() && !still(object)) {
                context
                    .printer
                    .note(format!("  a cluster keeps it until:  kubectl delete -n {namespace} {object}"));
            }
        }
        if written.changed.is_empty() && written.removed.is_empty() {
            context.printer.note("nothing changed");
        }
    }
    Ok(())
}

/// The object that a file of ours holds, as `kind/name`: its name says so.
fn object_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?.strip_suffix(".yaml")?;
    let (number, rest) = file.split_once('-')?;
    let (kind, name) = rest.split_once('-')?;
    number.bytes().all(|b| b.is_ascii_digit()).then(|| format!("{kind}/{name}"))
}

/// Errors of rendering are mistakes in what was asked for.
fn render_failure(error: &RenderError) -> Failure {
    ApiError::from_error(ErrorCode::InvalidArgument, error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_tell_their_objects() {
        assert_eq!(object_of("base/03-configmap-a-b-1.yaml").as_deref(), Some("configmap/a-b-1"));
        for other in ["kustomization.yaml", "base/kustomization.yaml", "Chart.yaml", "x-y-z.yaml", "01-a.txt"]
        {
            assert_eq!(object_of(other), None, "{other}");
        }
    }

    #[test]
    fn ranges_have_two_ends() {
        assert_eq!(range("2:8"), Ok((2, 8)));
        assert_eq!(range("0:1"), Ok((0, 1)));
        for bad in ["", "2", "8:2", "0:0", "a:b", "1:2:3", "-1:2"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
