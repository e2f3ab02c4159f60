//! HTTP clients.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder};

/// Makes clients of what is at `url`.
///
/// The machine's certificates are read, and its proxies heeded, only for what is encrypted: everything else is on this
/// machine. Reading them takes milliseconds, and not every machine has any.
pub fn client(url: &str) -> ClientBuilder {
    let builder = reqwest::Client::builder();
    if url.starts_with("https:") { builder } else { builder.no_proxy().tls_certs_only([]) }
}

/// Makes clients that, if `ca` is given, trust in the authorities with the certificates in this PEM file and no others.
///
/// # Errors
/// The file cannot be read, or holds no certificates; in words.
pub fn client_trusting(url: &str, ca: Option<&Path>) -> Result<ClientBuilder, String> {
    let Some(ca) = ca else { return Ok(client(url)) };
    let told = |error: String| format!("read the certificates in {}: {error}", ca.display());
    let pem = std::fs::read(ca).map_err(|error| told(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| told(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(told("there is none in it".to_owned())),
        false => Ok(client(url).tls_certs_only(certificates)),
    }
}
