//! Servers that the user has already, in place of those that tasks would start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskrun_engine::graph::Fault;
use taskrun_engine::secret::SecretSource;
use url::{Host, Url};

use super::LoginConfig;
use crate::platform::launch::encoded;

/// Servers that are there already. They are used and proved like those that tasks start, and nothing of theirs is ever
/// stopped or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExternalConfig {
    /// A PostgreSQL database in place of CLOUD-3.2's.
    pub database: Option<ExternalDatabaseConfig>,
    /// An S3 server in place of CLOUD-3.1's MinIO.
    pub object_store: Option<ExternalObjectStoreConfig>,
    /// A Prometheus in place of CLOUD-4.1's.
    pub prometheus: Option<ExternalPrometheusConfig>,
}

/// A PostgreSQL database that is there already, version 12 or newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalDatabaseConfig {
    /// The server's host: a name or an address.
    pub host: String,
    /// Its port.
    #[serde(default = "database_port")]
    pub port: u16,
    /// The database.
    pub name: String,
    /// The user, who must own the database.
    pub user: String,
    /// The user's password: the name of one of `secrets`.
    pub password: String,
    /// The certificates of the authorities that vouch for the server, a PEM file: with it connections are encrypted and
    /// the server's name is checked. Without it they are not, so the server must be on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// An S3 server that is there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalObjectStoreConfig {
    /// Where it is: `https://s3.example.org`. Buckets are named in the path, not in the host.
    pub endpoint: String,
    /// The region that requests are signed for.
    #[serde(default = "region")]
    pub region: String,
    /// The public part of the key that all applications use.
    pub access_key: String,
    /// Its secret part: the name of one of `secrets`.
    pub secret_key: String,
    /// The certificates of the authorities that vouch for the server, a PEM file; by default those that this machine
    /// trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// A Prometheus that is there already, and runs on this machine, since it has to reach what is scraped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalPrometheusConfig {
    /// Where it is: `http://127.0.0.1:9090`.
    pub url: String,
    /// The Alertmanager that it sends alerts to: `http://127.0.0.1:9093`.
    pub alertmanager: String,
    /// The login at both, if they want one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginConfig>,
}

impl ExternalDatabaseConfig {
    /// The database as a URL for PostgreSQL's libraries, with `{}` in the place of the password.
    pub fn url(&self) -> String {
        let Self { host, port, name, user, ca, .. } = self;
        database_url("postgresql", host, *port, user, name, ca.as_deref())
    }
}

/// A database as a URL for PostgreSQL's libraries, with `{}` in the place of the password; see
/// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>.
pub(crate) fn database_url(
    scheme: &str,
    host: &str,
    port: u16,
    user: &str,
    database: &str,
    ca: Option<&Path>,
) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = format!("{scheme}://{}:{{}}@{host}:{port}/{}", encoded(user), encoded(database));
    match ca {
        None => format!("{url}?sslmode=disable"),
        Some(ca) => format!("{url}?sslmode=verify-full&sslrootcert={}", encoded(&ca.display().to_string())),
    }
}

fn database_port() -> u16 {
    5432
}

fn region() -> String {
    "us-east-1".to_owned()
}

/// What is wrong with a URL; `with_secret` if a secret goes over it.
pub(super) fn url_fault(url: &str, with_secret: bool) -> Option<&'static str> {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    let Some(parsed) = parsed else { return Some("it is not a URL that begins with http:// or https://") };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Some("a login does not stand in the URL: see the other fields");
    }
    let here = parsed.host().is_some_and(|host| is_loopback(&host));
    (with_secret && parsed.scheme() == "http" && !here).then_some("a password does not go over http://: use https://")
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

impl ExternalConfig {
    /// What is wrong with it. `secrets` are those of the configuration.
    pub(super) fn faults(&self, secrets: &BTreeMap<String, SecretSource>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |path: &[&str], message: &str| {
            faults.push(Fault::new(["external"].iter().chain(path).copied(), message.to_owned()));
        };
        let mut names = Vec::new();
        let mut authorities = Vec::new();
        if let Some(ExternalDatabaseConfig { host, name, user, password, ca, .. }) = &self.database {
            let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            let here = host == "localhost" || address.as_ref().is_ok_and(std::net::IpAddr::is_loopback);
            let is_host = address.is_ok() || Host::parse(host).is_ok();
            if !is_host {
                fault(&["database", "host"], "it is neither a host's name nor an address");
            } else if ca.is_none() && !here {
                let message = "a password does not go to another machine in clear: name the authority of the server's \
                               certificate as `ca`, such as /etc/ssl/certs/ca-certificates.crt";
                fault(&["database", "host"], message);
            }
            for (field, value) in [("name", name), ("user", user)] {
                if value.is_empty() || value.len() > 63 || value.chars().any(char::is_control) {
                    fault(&["database", field], "it is not 1 to 63 characters");
                }
            }
            names.push((["database", "password"].as_slice(), password));
            authorities.push(("database", ca));
        }
        if let Some(ExternalObjectStoreConfig { endpoint, secret_key, ca, .. }) = &self.object_store {
            // Requests are signed: the key itself does not go over the network.
            if let Some(message) = url_fault(endpoint, false) {
                fault(&["object_store", "endpoint"], message);
            }
            names.push((&["object_store", "secret_key"], secret_key));
            authorities.push(("object_store", ca));
        }
        if let Some(ExternalPrometheusConfig { url, alertmanager, login }) = &self.prometheus {
            let host = Url::parse(url).ok();
            if host.as_ref().and_then(Url::host).is_some_and(|host| !is_loopback(&host)) {
                let message = "it is not on this machine, and what it is to scrape listens on loopback addresses only: \
                               name a Prometheus here, or let yours federate from the one that CLOUD-4.1 starts";
                fault(&["prometheus", "url"], message);
            }
            for (field, url) in [("url", url), ("alertmanager", alertmanager)] {
                if let Some(message) = url_fault(url, login.is_some()) {
                    fault(&["prometheus", field], message);
                }
            }
            if let Some(login) = login {
                names.push((&["prometheus", "login", "password"], &login.password));
            }
        }
        for (part, _) in authorities.iter().filter(|(_, ca)| ca.as_ref().is_some_and(|ca| !ca.is_absolute())) {
            fault(&[part, "ca"], "it is not an absolute path");
        }
        for (path, name) in names.into_iter().filter(|(_, name)| !secrets.contains_key(*name)) {
            fault(path, &format!("there is no secret `{name}` in `secrets`"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let secrets = BTreeMap::from([("s".to_owned(), SecretSource::Env("S".to_owned()))]);
        let external: ExternalConfig = serde_json::from_str(text).unwrap();
        let faults = external.faults(&secrets);
        faults.into_iter().map(|fault| fault.message).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_password_stays_on_this_machine_or_goes_encrypted() {
        let database = |host: &str, more: &str| {
            told(&format!(r#"{{"database": {{"host": "{host}", "name": "m", "user": "m", "password": "s"{more}}}}}"#))
        };
        for here in ["localhost", "127.0.0.1", "::1"] {
            assert_eq!(database(here, ""), "", "{here}");
        }
        assert!(database("db.example.org", "").contains("name the authority"));
        assert_eq!(database("db.example.org", r#", "ca": "/etc/ca.pem""#), "");
        assert!(database("db.example.org", r#", "ca": "ca.pem""#).contains("absolute"));
        assert!(database("a b", "").contains("neither a host's name"));
        let prometheus = |url: &str, alertmanager: &str, login: &str| {
            told(&format!(r#"{{"prometheus": {{"url": "{url}", "alertmanager": "{alertmanager}"{login}}}}}"#))
        };
        let (here, login) = ("http://127.0.0.1:9090", r#", "login": {"user": "u", "password": "s"}"#);
        assert_eq!(prometheus(here, here, login), "");
        assert_eq!(prometheus(here, "http://example.org:9093", ""), "");
        assert!(prometheus(here, "http://example.org:9093", login).contains("use https://"));
        assert!(prometheus("http://u:p@localhost", here, "").contains("does not stand in the URL"));
        assert!(prometheus("https://example.org", here, "").contains("it is not on this machine"));
    }

    #[test]
    fn a_key_is_one_of_the_secrets() {
        let store = |endpoint: &str, secret: &str| {
            let fields = format!(r#""endpoint": "{endpoint}", "access_key": "k", "secret_key": "{secret}""#);
            told(&format!(r#"{{"object_store": {{{fields}}}}}"#))
        };
        assert_eq!(store("http://10.0.0.1:9000", "s"), "");
        assert!(store("10.0.0.1:9000", "s").contains("begins with http://"));
        assert!(store("https://s3.example.org", "other").contains("no secret `other`"));
    }
}
