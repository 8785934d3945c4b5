//! Every environment variable that Slipway reads, in one place.

/// Folder of all state; `/var/lib/slipway` when unset.
pub const SLIPWAY_ROOT: &str = "SLIPWAY_ROOT";
/// Settings file; `/etc/slipway/settings.toml` when unset.
pub const SLIPWAY_SETTINGS: &str = "SLIPWAY_SETTINGS";
/// Filter of the daemon's own log, such as `info` or `slipway=debug`.
pub const SLIPWAY_LOG: &str = "SLIPWAY_LOG";
/// A PEM bundle that build steps trust; `--ca-certificates` goes before it.
pub const SLIPWAY_CA_CERTIFICATES: &str = "SLIPWAY_CA_CERTIFICATES";
/// Engine of `up`, `train` and `deploy`; `--engine` goes before it.
pub const SLIPWAY_ENGINE: &str = "SLIPWAY_ENGINE";
/// Files of the kubeconfig, separated by `:`, as `kubectl` reads it.
pub const KUBECONFIG: &str = "KUBECONFIG";
/// The user's home, for `.kube/config`.
pub const HOME: &str = "HOME";
/// Proxies to a cluster's API server, as `kubectl` reads them.
pub const HTTPS_PROXY: &str = "HTTPS_PROXY";
/// As [`HTTPS_PROXY`], in lower case.
pub const HTTPS_PROXY_LOWER: &str = "https_proxy";
/// Address of the API server, in a pod.
pub const KUBERNETES_SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
/// Port of the API server, in a pod.
pub const KUBERNETES_SERVICE_PORT: &str = "KUBERNETES_SERVICE_PORT";
/// Turns colours off when set to anything but the empty text (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";
