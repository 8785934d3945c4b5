//! `slipway engine rbac`

use clap::ValueEnum;
use slipway_kubernetes::Capabilities;
use slipway_kubernetes::export::stream;
use slipway_kubernetes::render::rbac::{Subject, render_engine_role};
use slipway_types::{ApiError, ErrorCode};

use super::super::Context;
use crate::failure::Failure;

/// Print what Slipway must be allowed to do in a namespace of a Kubernetes cluster, and no more, as YAML for `kubectl apply`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace that Slipway works in
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// Name of the ServiceAccount, the Role and the RoleBinding
    #[arg(long, default_value = "slipway", value_name = "NAME")]
    name: String,
    /// Bind the Role to this user instead of a ServiceAccount
    #[arg(long, value_name = "USER", group = "subject")]
    user: Option<String>,
    /// Bind the Role to this group instead of a ServiceAccount
    #[arg(long, value_name = "GROUP", group = "subject")]
    group: Option<String>,
    /// Allow what Slipway uses of this API, too, where the cluster has it (repeatable)
    #[arg(long, value_enum, value_name = "API")]
    with: Vec<Api>,
}

/// APIs that not every cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Api {
    /// Measured CPU and memory (metrics-server), for `slipway top`
    Metrics,
    /// HTTPRoutes of the Gateway API
    Gateway,
    /// JobSet
    Jobset,
    /// Kueue
    Kueue,
    /// Volcano
    Volcano,
    /// The scheduler's own PodGroup
    PodGroup,
    /// Device claims (resource.k8s.io)
    Dra,
}

/// Prints.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let subject = match (&args.user, &args.group) {
        (Some(user), _) => Subject::User(user.clone()),
        (_, Some(group)) => Subject::Group(group.clone()),
        (None, None) => {
            Subject::ServiceAccount { namespace: args.namespace.clone(), name: args.name.clone() }
        }
    };
    let has = |api: Api| args.with.contains(&api);
    let served = |api: Api| has(api).then(String::new);
    let caps = Capabilities {
        metrics_api: has(Api::Metrics),
        gateway_api: served(Api::Gateway),
        jobset: served(Api::Jobset),
        kueue: has(Api::Kueue),
        volcano: has(Api::Volcano),
        pod_group: served(Api::PodGroup),
        dra: served(Api::Dra),
        ..Capabilities::default()
    };
    let rendered = render_engine_role(&args.namespace, &args.name, Some(&subject), &caps)
        .map_err(|error| Failure::from(ApiError::from_error(ErrorCode::InvalidArgument, &error)))?;
    context.printer.raw(stream(&rendered.objects).as_bytes());
    Ok(0)
}
