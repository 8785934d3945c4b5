//! Every environment variable that Slipway reads, in one place.

/// Folder of all state; `/var/lib/slipway` when unset.
pub const SLIPWAY_ROOT: &str = "SLIPWAY_ROOT";
/// Settings file; `/etc/slipway/settings.toml` when unset.
pub const SLIPWAY_SETTINGS: &str = "SLIPWAY_SETTINGS";
/// Filter of the daemon's own log, such as `info` or `slipway=debug`.
pub const SLIPWAY_LOG: &str = "SLIPWAY_LOG";
/// A PEM bundle that build steps trust; `--ca-certificates` goes before it.
pub const SLIPWAY_CA_CERTIFICATES: &str = "SLIPWAY_CA_CERTIFICATES";
/// Turns colours off when set to anything but the empty text (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";
