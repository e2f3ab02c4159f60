//! What is reached from other machines, and how.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskrun_engine::graph::Fault;

/// What is reached from other machines: MLflow, Prometheus, Alertmanager, Grafana and the models, each at its own port of
/// `address`, by TLS, with a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExposeConfig {
    /// The address of this machine at which they are reached, such as 192.168.1.10; neither 127.0.0.1 nor 0.0.0.0.
    pub address: IpAddr,
    /// Names by which others call this machine, such as `cloud.example.org`.
    #[serde(default)]
    pub names: Vec<String>,
    /// The certificate; by default one is made that vouches for itself.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// The login.
    #[serde(default)]
    pub auth: AuthConfig,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those between it and its authority, a PEM file; an absolute path.
    pub certificate: PathBuf,
    /// Its key, a PEM file; an absolute path.
    pub key: PathBuf,
}

/// Who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The user's name: letters, digits, `-` and `_`. The password is made: `taskrun secret show gateway-password`.
    pub user: String,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { user: "operator".to_owned() }
    }
}

impl ExposeConfig {
    /// A port at the address, as it stands in URLs.
    pub fn at(&self, port: u16) -> String {
        std::net::SocketAddr::new(self.address, port).to_string()
    }

    /// The hosts that clients may name: the address and the names, each with the port.
    pub fn hosts(&self, port: u16) -> Vec<String> {
        let names = self.names.iter().map(|name| format!("{name}:{port}"));
        std::iter::once(self.at(port)).chain(names).collect()
    }

    /// What is wrong with it.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |path: &[&str], message: &str| {
            faults.push(Fault::new(["expose"].iter().chain(path).copied(), message.to_owned()));
        };
        let own = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        if self.address.is_unspecified() {
            fault(&["address"], "it stands for all addresses: name the one at which this machine is to be reached");
        } else if own.contains(&self.address) {
            fault(&["address"], "the services are there already: name an address that others reach");
        }
        let is_name = |name: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            !name.is_empty() && name.len() <= 253 && name.chars().all(plain) && !name.starts_with(['-', '.'])
        };
        for (at, _) in self.names.iter().enumerate().filter(|(_, name)| !is_name(name)) {
            fault(&["names", &at.to_string()], "it is not the name of a host");
        }
        if let Some(tls) = &self.tls {
            for (field, path) in [("certificate", &tls.certificate), ("key", &tls.key)] {
                if !path.is_absolute() {
                    fault(&["tls", field], "it is not an absolute path");
                }
            }
        }
        let user = &self.auth.user;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if user.is_empty() || user.len() > 32 || !user.chars().all(plain) {
            fault(&["auth", "user"], "it is not 1 to 32 letters, digits, `-` and `_`");
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_their_port() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut expose = ExposeConfig {
            address: address("192.0.2.1"),
            names: vec!["cloud.example.org".to_owned()],
            tls: None,
            auth: AuthConfig::default(),
        };
        assert_eq!(expose.hosts(5000), ["192.0.2.1:5000", "cloud.example.org:5000"]);
        assert!(expose.faults().is_empty());
        expose.address = address("2001:db8::1");
        assert_eq!(expose.at(5000), "[2001:db8::1]:5000");
        for nowhere in ["0.0.0.0", "::", "127.0.0.1", "::1"] {
            expose.address = address(nowhere);
            assert_eq!(expose.faults().len(), 1, "{nowhere}");
        }
    }
}
