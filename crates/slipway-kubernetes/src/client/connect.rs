//! From a kubeconfig, or from inside a pod, to a client. Paths and proxies are arguments: nothing here looks for them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{AuthInfo, Config, ExecInteractiveMode, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::{Cluster, Limiter, Retry};

/// Time to connect. The API server of a cluster that is up answers at once.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Where a pod finds its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Which cluster, as whom, and in which namespace.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Files of the kubeconfig; the first that sets a value wins. Ignored inside a cluster.
    pub kubeconfig: Vec<PathBuf>,
    /// Context; the current one when absent.
    pub context: Option<String>,
    /// Namespace; the context's, else `default`, when absent.
    pub namespace: Option<String>,
    /// The pod's own account in place of a kubeconfig.
    pub in_cluster: Option<InCluster>,
    /// Proxy for clusters that name none: `http://`, `https://` or `socks5://`. Whoever reads it from an environment
    /// looks at the exceptions there, too.
    pub proxy: Option<String>,
    /// Whether there is a terminal that a credential plugin may ask questions on.
    pub interactive: bool,
    /// Repeated requests.
    pub retry: Option<Retry>,
}

/// The account of the pod that this runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InCluster {
    /// Address of the API server, such as `https://10.0.0.1:443`.
    pub server: String,
    /// Folder with `token`, `ca.crt` and `namespace`.
    pub account: PathBuf,
}

impl InCluster {
    /// The account at its usual place. `host` and `port` are what `KUBERNETES_SERVICE_HOST` and `…_PORT` say.
    pub fn new(host: &str, port: &str) -> Self {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self { server: format!("https://{host}:{port}"), account: ACCOUNT.into() }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No file was named.
    #[error("no kubeconfig: name one, or set the engine's `kubeconfig`")]
    NoFile,
    /// None of the files is there.
    #[error("there is no kubeconfig at {}: copy the cluster's there, or name another file", paths(.0))]
    Missing(Vec<PathBuf>),
    /// A file cannot be read.
    #[error("cannot read the kubeconfig {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// Two files contradict each other.
    #[error("the kubeconfigs {} cannot be merged", paths(.files))]
    Merge {
        /// Which.
        files: Vec<PathBuf>,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// No context is chosen.
    #[error("{} has no current context: choose one of {} with `--context`", paths(.files), list(.known))]
    NoCurrent {
        /// Which files.
        files: Vec<PathBuf>,
        /// Contexts that there are.
        known: Vec<String>,
    },
    /// The chosen context is not there.
    #[error("{} has no context `{context}`; it has {}", paths(.files), list(.known))]
    UnknownContext {
        /// Which files.
        files: Vec<PathBuf>,
        /// What was chosen.
        context: String,
        /// Contexts that there are.
        known: Vec<String>,
    },
    /// The context names something that is not there, or a certificate cannot be read.
    #[error("context `{context}` of {} cannot be used", paths(.files))]
    Context {
        /// Which files.
        files: Vec<PathBuf>,
        /// Which context.
        context: String,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// A plugin wants to ask and there is no one to answer.
    #[error(
        "context `{context}` of {} gets its credentials from `{plugin}`, which wants to ask questions on a terminal: log in with it first, or use a token",
        paths(.files)
    )]
    Interactive {
        /// Which files.
        files: Vec<PathBuf>,
        /// Which context.
        context: String,
        /// The plugin.
        plugin: String,
    },
    /// The pod's account cannot be read.
    #[error("cannot read the pod's account: {}", .path.display())]
    Account {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An address is none.
    #[error("`{text}` is no address of {what}")]
    Address {
        /// The text.
        text: String,
        /// Of what.
        what: &'static str,
    },
    /// The namespace's name is none.
    #[error("`{name}` cannot be a namespace")]
    Namespace {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: crate::validate::Invalid,
    },
    /// Certificates, keys or the proxy cannot be used.
    #[error("no connection to {server} can be made ({origin})")]
    Client {
        /// The API server.
        server: String,
        /// Where the settings come from.
        origin: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn paths(paths: &[PathBuf]) -> String {
    let all: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    all.join(", ")
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "no context at all".to_owned();
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// Connects: reads what the options name and makes the client. Nothing is sent yet.
pub async fn connect(options: &ConnectOptions) -> Result<Cluster, ConnectError> {
    let (mut config, origin) = match &options.in_cluster {
        Some(account) => (in_cluster(account)?, "the pod's account".to_owned()),
        None => from_files(options).await?,
    };
    if let Some(namespace) = &options.namespace {
        config.default_namespace.clone_from(namespace);
    }
    let namespace = config.default_namespace.clone();
    crate::validate::dns_1123_label(&namespace)
        .map_err(|source| ConnectError::Namespace { name: namespace.clone(), source })?;
    config.connect_timeout = Some(CONNECT_TIME);
    // Requests are repeated here, with what the server says of when.
    config.default_retry = false;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = kube::Client::try_from(config).map_err(|source| ConnectError::Client {
        server: server.clone(),
        origin,
        source: match source {
            kube::Error::Auth(error) => super::error::discreet(error),
            other => Box::new(other),
        },
    })?;
    let retry = options.retry.unwrap_or_default();
    Ok(Cluster::with_limits(client, server, namespace, retry, Limiter::default()))
}

async fn from_files(options: &ConnectOptions) -> Result<(Config, String), ConnectError> {
    let files: Vec<PathBuf> = options.kubeconfig.iter().filter(|path| path.exists()).cloned().collect();
    if options.kubeconfig.is_empty() {
        return Err(ConnectError::NoFile);
    }
    if files.is_empty() {
        return Err(ConnectError::Missing(options.kubeconfig.clone()));
    }
    let mut kubeconfig = merged(&files)?;
    let mut known: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    known.sort();
    let context = options
        .context
        .clone()
        .or_else(|| kubeconfig.current_context.clone().filter(|name| !name.is_empty()))
        .ok_or_else(|| ConnectError::NoCurrent { files: files.clone(), known: known.clone() })?;
    let Some(named) = kubeconfig.contexts.iter().find(|one| one.name == context) else {
        return Err(ConnectError::UnknownContext { files, context, known });
    };
    let chosen = named.context.clone();
    let user = chosen.as_ref().and_then(|context| context.user.clone()).unwrap_or_default();
    let cluster = chosen.map(|context| context.cluster).unwrap_or_default();
    if let Some(info) = kubeconfig.auth_infos.iter_mut().find(|info| info.name == user)
        && let Some(plugin) = info.auth_info.as_mut().and_then(|info| quieten(info, options.interactive))
    {
        return Err(ConnectError::Interactive { files, context, plugin });
    }
    let own_proxy = kubeconfig
        .clusters
        .iter()
        .find(|one| one.name == cluster)
        .and_then(|one| one.cluster.as_ref()?.proxy_url.clone())
        .filter(|url| !url.is_empty());
    let chosen = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &chosen).await.map_err(|source| {
        ConnectError::Context { files: files.clone(), context: context.clone(), source: Box::new(source) }
    })?;
    // `kube` takes a proxy from the environment where none is named, whatever its exceptions say of the cluster.
    config.proxy_url = match own_proxy.or_else(|| options.proxy.clone()) {
        Some(text) => Some(text.parse().map_err(|_| ConnectError::Address { text, what: "a proxy" })?),
        None => None,
    };
    let origin = format!("context `{context}` of {}", paths(&files));
    Ok((config, origin))
}

fn merged(files: &[PathBuf]) -> Result<Kubeconfig, ConnectError> {
    let mut whole: Option<Kubeconfig> = None;
    for path in files {
        let next = Kubeconfig::read_from(path)
            .map_err(|source| ConnectError::Read { path: path.clone(), source: Box::new(source) })?;
        whole = Some(match whole {
            None => next,
            Some(before) => before
                .merge(next)
                .map_err(|source| ConnectError::Merge { files: files.to_vec(), source: Box::new(source) })?,
        });
    }
    Ok(whole.unwrap_or_default())
}

/// Without a terminal a plugin may not ask. Returns its name where it insists.
fn quieten(info: &mut AuthInfo, interactive: bool) -> Option<String> {
    let exec = info.exec.as_mut()?;
    if interactive {
        return None;
    }
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Some(exec.command.clone().unwrap_or_default());
    }
    exec.interactive_mode = Some(ExecInteractiveMode::Never);
    None
}

fn in_cluster(pod: &InCluster) -> Result<Config, ConnectError> {
    let url = pod
        .server
        .parse()
        .map_err(|_| ConnectError::Address { text: pod.server.clone(), what: "an API server" })?;
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|source| ConnectError::Account { path: path.to_owned(), source })
    };
    let (token, certificate) = (pod.account.join("token"), pod.account.join("ca.crt"));
    read(&token)?;
    read(&certificate)?;
    let mut config = Config::new(url);
    config.default_namespace = read(&pod.account.join("namespace"))?.trim().to_owned();
    // Both are read again while the client lives: the kubelet renews them.
    config.root_cert_file = Some(certificate);
    // Only the file is believed. Without a list, `kube` first loads this system's authorities, which a pod may not have.
    config.root_cert = Some(Vec::new());
    config.auth_info.token_file = Some(token.to_string_lossy().into_owned());
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
apiVersion: v1
kind: Config
current-context: one
clusters:
- name: c
  cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}
users:
- name: token
  user: {token: abc}
- name: asks
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: ask-me, interactiveMode: Always}
- name: missing
  user: {client-certificate: nowhere.pem, client-key: nowhere.key}
contexts:
- name: one
  context: {cluster: c, user: token, namespace: team-a}
- name: asks
  context: {cluster: c, user: asks}
- name: missing
  context: {cluster: c, user: missing}
- name: broken
  context: {cluster: other, user: token}
"#;

    async fn with(text: &str, change: impl FnOnce(&mut ConnectOptions)) -> Result<Cluster, ConnectError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        let mut options = ConnectOptions { kubeconfig: vec![path], ..ConnectOptions::default() };
        change(&mut options);
        connect(&options).await
    }

    fn message(result: Result<Cluster, ConnectError>) -> String {
        result.err().expect("it should fail").to_string()
    }

    #[tokio::test]
    async fn context_and_namespace_are_chosen() {
        let cluster = with(GOOD, |_| {}).await.unwrap();
        assert_eq!((cluster.namespace(), cluster.server()), ("team-a", "https://127.0.0.1:6443"));
        let cluster = with(GOOD, |o| o.namespace = Some("team-b".into())).await.unwrap();
        assert_eq!(cluster.namespace(), "team-b");
    }

    #[tokio::test]
    async fn errors_name_the_file_and_the_context() {
        let told = message(with(GOOD, |o| o.context = Some("two".into())).await);
        assert!(
            told.contains("/config has no context `two`; it has `asks`, `broken`, `missing`, `one`"),
            "{told}"
        );
        let told = message(with(GOOD, |o| o.context = Some("broken".into())).await);
        assert!(told.contains("context `broken` of /"), "{told}");
        let told = message(with(GOOD, |o| o.context = Some("asks".into())).await);
        assert!(told.contains("`asks`") && told.contains("`ask-me`"), "{told}");
        let told = message(with(&GOOD.replace("current-context: one", ""), |_| {}).await);
        assert!(told.contains("no current context"), "{told}");
        let told = message(with("{", |_| {}).await);
        assert!(told.contains("cannot read the kubeconfig /"), "{told}");
        let told = message(with(GOOD, |o| o.kubeconfig = vec!["/nowhere/config".into()]).await);
        assert!(told.contains("no kubeconfig at /nowhere/config"), "{told}");
        let told = message(with(GOOD, |o| o.namespace = Some("No_Good".into())).await);
        assert!(told.contains("`No_Good` cannot be a namespace"), "{told}");
        let told = message(with(GOOD, |o| o.context = Some("missing".into())).await);
        assert!(told.contains("https://127.0.0.1:6443") && told.contains("`missing`"), "{told}");
    }

    #[tokio::test]
    async fn what_a_plugin_writes_is_not_told() {
        for script in ["echo token-42; echo token-43 >&2; exit 3", "echo '{\"status\": token-44'"] {
            let plugin = format!(
                "exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, {script:?}], env: [{{name: KEY, value: token-45}}], interactiveMode: Never}}"
            );
            let told = match with(&GOOD.replace("token: abc", &plugin), |_| {}).await {
                // Whoever shows such an error shows its sources as well.
                Err(error) => crate::apply::chain(&error),
                Ok(cluster) => crate::apply::chain(&cluster.get("/version").await.unwrap_err()),
            };
            assert!(told.contains("credential plugin") && !told.contains("token-4"), "{told}");
        }
    }

    #[tokio::test]
    async fn the_account_of_a_pod() {
        let folder = tempfile::tempdir().unwrap();
        let pod = InCluster { account: folder.path().to_owned(), ..InCluster::new("fd00::1", "443") };
        assert_eq!(pod.server, "https://[fd00::1]:443");
        let options = ConnectOptions { in_cluster: Some(pod), ..ConnectOptions::default() };
        let told = message(connect(&options).await);
        assert!(told.contains("/token"), "{told}");
    }
}
