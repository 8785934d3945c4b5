//! The HTTP client of everything that images come from.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A client that trusts what the machine trusts, and `extra`. `redirect` makes the same policy every time.
///
/// # Errors
/// A certificate of `extra` cannot be trusted.
pub(crate) fn client(extra: Vec<Certificate>, redirect: impl Fn() -> Policy) -> reqwest::Result<Client> {
    // The program installs the provider; tests and other users of this library may not have.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let builder = || {
        Client::builder()
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // Proxies would be read from the environment, which libraries here never do.
            .no_proxy()
            .redirect(redirect())
            .referer(false)
    };
    let only_system = extra.is_empty();
    match builder().tls_certs_merge(extra).build() {
        // A machine without a bundle of certificates still reaches servers over plain HTTP.
        Err(_) if only_system => builder().tls_certs_only([]).build(),
        client => client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_trusted_is_an_error() {
        let none = || Policy::none();
        client(Vec::new(), none).unwrap();
        let torn = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let torn = Certificate::from_pem_bundle(torn.as_bytes()).unwrap();
        assert_eq!(torn.len(), 1);
        assert!(client(torn, none).unwrap_err().is_builder());
    }
}
