//! HTTP clients.

use reqwest::ClientBuilder;

/// Makes clients of what is at `url`.
///
/// The machine's certificates are read, and its proxies heeded, only for what is encrypted: everything else is on this
/// machine. Reading them takes milliseconds, and not every machine has any.
pub fn client(url: &str) -> ClientBuilder {
    let builder = reqwest::Client::builder();
    if url.starts_with("https:") { builder } else { builder.no_proxy().tls_certs_only([]) }
}
