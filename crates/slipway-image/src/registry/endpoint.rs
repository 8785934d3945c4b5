//! Which hosts are asked for a registry's content, and how.

use std::net::IpAddr;
use std::path::PathBuf;

use slipway_types::image::RegistrySettings;
use slipway_types::reference::DEFAULT_REGISTRY;

use super::error::RequestError;

/// Docker Hub's registry answers under another name than references have.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// One host that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The name that settings and credentials know: `docker.io`, `127.0.0.1:5000`.
    pub name: String,
    /// Host and port of its address.
    pub authority: String,
    /// Path in front of repository names, empty or ending in `/`.
    pub prefix: String,
    pub plain_http: bool,
    pub ca_file: Option<PathBuf>,
}

impl Endpoint {
    /// A registry itself.
    pub fn registry(settings: &RegistrySettings, name: &str) -> Result<Self, RequestError> {
        Self::new(settings, name, String::new())
    }

    /// Who is asked for content of `registry`: its mirrors in order, then itself.
    pub fn for_pull(settings: &RegistrySettings, registry: &str) -> Result<Vec<Self>, RequestError> {
        let mirrors = settings.registries.get(registry).map_or(&[][..], |r| &r.mirrors);
        let mut endpoints = Vec::with_capacity(mirrors.len() + 1);
        for mirror in mirrors {
            let (name, prefix) = mirror.split_once('/').unwrap_or((mirror, ""));
            let prefix = prefix.trim_end_matches('/');
            let odd =
                |part: &str| matches!(part, "" | "." | "..") || part.contains(['?', '#', '%', ' ', '\\']);
            if !prefix.is_empty() && prefix.split('/').any(odd) {
                return Err(RequestError::Address { address: mirror.clone() });
            }
            let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            endpoints.push(
                Self::new(settings, name, prefix)
                    .map_err(|_| RequestError::Address { address: mirror.clone() })?,
            );
        }
        endpoints.push(Self::registry(settings, registry)?);
        Ok(endpoints)
    }

    fn new(settings: &RegistrySettings, name: &str, prefix: String) -> Result<Self, RequestError> {
        let authority = if name == DEFAULT_REGISTRY { DOCKER_HUB } else { name };
        let parsed = reqwest::Url::parse(&format!("https://{authority}/v2/")).ok();
        let plain = parsed.is_some_and(|url| {
            url.path() == "/v2/" && url.username().is_empty() && url.query().is_none() && url.host().is_some()
        });
        if !plain || authority.ends_with(':') || authority.contains(['/', '\\', '@', '?', '#', ' ']) {
            return Err(RequestError::Address { address: name.to_owned() });
        }
        let own = settings.registries.get(name);
        Ok(Self {
            name: name.to_owned(),
            authority: authority.to_owned(),
            prefix,
            plain_http: own.is_some_and(|r| r.plain_http),
            ca_file: own.and_then(|r| r.ca_file.clone()),
        })
    }

    /// Whether the host is this machine, where HTTP is tried when HTTPS is not spoken.
    pub fn is_loopback(&self) -> bool {
        let host = match self.authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host),
        };
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_types::image::Registry;

    fn settings(registry: &str, mirrors: &[&str]) -> RegistrySettings {
        let mut settings = RegistrySettings::default();
        let own =
            Registry { mirrors: mirrors.iter().map(|m| (*m).to_owned()).collect(), ..Registry::default() };
        settings.registries.insert(registry.to_owned(), own);
        settings
    }

    #[test]
    fn mirrors_come_first_and_docker_hub_has_its_own_host() {
        let mut settings = settings("docker.io", &["127.0.0.1:5000", "mirror.example/hub/"]);
        settings
            .registries
            .insert("mirror.example".into(), Registry { plain_http: true, ..Registry::default() });
        let endpoints = Endpoint::for_pull(&settings, "docker.io").unwrap();
        let shown: Vec<_> = endpoints
            .iter()
            .map(|e| (e.name.as_str(), e.authority.as_str(), e.prefix.as_str(), e.plain_http))
            .collect();
        assert_eq!(
            shown,
            [
                ("127.0.0.1:5000", "127.0.0.1:5000", "", false),
                ("mirror.example", "mirror.example", "hub/", true),
                ("docker.io", "registry-1.docker.io", "", false),
            ]
        );
    }

    #[test]
    fn refuses_mirrors_that_are_no_hosts() {
        for bad in ["http://a", "", "a b", "a/../b", "user@host", "a/b?c", "host:port", "a:", "a//b"] {
            assert!(Endpoint::for_pull(&settings("docker.io", &[bad]), "docker.io").is_err(), "{bad}");
        }
    }

    #[test]
    fn knows_this_machine() {
        for (name, loopback) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.3.2.1:5000", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("localhost.example", false),
            ("127.0.0.1.example:5000", false),
            ("10.0.0.1", false),
        ] {
            let endpoint = Endpoint::registry(&RegistrySettings::default(), name).unwrap();
            assert_eq!(endpoint.is_loopback(), loopback, "{name}");
        }
    }
}
