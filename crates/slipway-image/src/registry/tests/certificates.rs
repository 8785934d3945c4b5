//! What is said of certificates that servers present.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::registry::error::{NetworkCause, RequestError};
use crate::registry::http::innermost;

/// What `openssl req -x509` makes for `registry.example`: an authority.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBmjCCAUCgAwIBAgIURBeRLKBe3z6EhU2/vfc6dHS8rjYwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIcmVnaXN0cnkwIBcNMjYxMTI1MDQwNzM1WhgPMjEyNjExMDEw
NDA3MzVaMBMxETAPBgNVBAMMCHJlZ2lzdHJ5MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEubelhWafMxvXwFqg5KXPLXGZeBJXVAIXgIoqzfg4HGL7m4t48EG/zYm+
HgnB202xKepaffyn3EAp9zYDy4sboKNwMG4wHQYDVR0OBBYEFIEc4scUtuMnlPS8
cWL6bcD4MpBqMB8GA1UdIwQYMBaAFIEc4scUtuMnlPS8cWL6bcD4MpBqMA8GA1Ud
EwEB/wQFMAMBAf8wGwYDVR0RBBQwEoIQcmVnaXN0cnkuZXhhbXBsZTAKBggqhkjO
PQQDAgNIADBFAiAD8Qe5ZlpXM/Zj5ZiZ6eO3zIVznFjT70kKly8MDoXaMQIhAN7W
gAQGpRU5i4pbzzngpmynyS4u0hUkvJTomsfK/cd4
-----END CERTIFICATE-----
";

/// The same with `-addext basicConstraints=critical,CA:FALSE`.
const SERVER: &str = "\
-----BEGIN CERTIFICATE-----
MIIBlzCCAT2gAwIBAgIUOzMI+kXz1tm2y76IQjUdl8mq2QcwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIcmVnaXN0cnkwIBcNMjYxMTI1MDQwNzM1WhgPMjEyNjExMDEw
NDA3MzVaMBMxETAPBgNVBAMMCHJlZ2lzdHJ5MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEPLA8rQ+PHUwulLLrv2iaJ8mryHeSO7sW+ZOfhQWQm6lQRKrRdOO9qdOr
RbI29FilAT6M6/7N34UnEmW8hL4G3aNtMGswHQYDVR0OBBYEFJHGiHOLn5yTAOsb
pOxCbSqA7iR/MB8GA1UdIwQYMBaAFJHGiHOLn5yTAOsbpOxCbSqA7iR/MBsGA1Ud
EQQUMBKCEHJlZ2lzdHJ5LmV4YW1wbGUwDAYDVR0TAQH/BAIwADAKBggqhkjOPQQD
AgNIADBFAiBDP9qKZb0WpOLdUY7JV1sHZgsdaeFJZmuunag+3PdhAAIhALFZco3O
6BrCm/3cyv3eQrkuYb3672B2r17lLJ2zeQTp
-----END CERTIFICATE-----
";

/// A time at which both are valid.
const NOW: std::time::Duration = std::time::Duration::from_secs(1_900_000_000);

/// What a client says of a server that presents a certificate, and trusts just that one.
fn verify(pem: &str) -> Result<(), rustls::Error> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from("registry.example").unwrap();
    verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::since_unix_epoch(NOW)).map(drop)
}

#[test]
fn an_authority_that_is_presented_as_a_server_is_called_so() {
    let cause = NetworkCause(innermost(&verify(AUTHORITY).unwrap_err()));
    let error = RequestError::Certificate { host: "registry.example".into(), source: cause };
    let hint = error.hint().unwrap();
    for part in ["registry.example", "CA:TRUE", "-addext basicConstraints=critical,CA:FALSE", "ca_file"] {
        assert!(hint.contains(part), "{hint}");
    }
    // What the hint says to make is accepted.
    verify(SERVER).unwrap();

    let cause = NetworkCause("invalid peer certificate: UnknownIssuer".into());
    let other = RequestError::Certificate { host: "registry.example".into(), source: cause }.hint().unwrap();
    assert!(other.contains("ca_file") && !other.contains("CA:FALSE"), "{other}");
}
