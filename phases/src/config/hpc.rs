//! The HPC side: the cluster that trains, beside the cloud side that serves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskrun_engine::graph::Fault;
use taskrun_engine::secret::SecretSource;

use super::LoginConfig;
use super::external::url_fault;

/// The HPC side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HpcConfig {
    /// Its Prometheus; by default an embedded one stands for it.
    pub prometheus: Option<HpcPrometheusConfig>,
}

/// The Prometheus of the HPC side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HpcPrometheusConfig {
    /// Where it is: `https://head.hpc.example.org:9090`.
    pub url: String,
    /// The certificate of the authority that vouches for it, a PEM file; by default those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// The login, if it wants one.
    pub login: Option<LoginConfig>,
}

impl HpcConfig {
    /// The login at the HPC side's Prometheus.
    pub fn login(&self) -> Option<&LoginConfig> {
        self.prometheus.as_ref().and_then(|prometheus| prometheus.login.as_ref())
    }

    /// What is wrong with it. `secrets` are those of the configuration.
    pub(super) fn faults(&self, secrets: &BTreeMap<String, SecretSource>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |path: &[&str], message: &str| {
            faults.push(Fault::new(["hpc", "prometheus"].iter().chain(path).copied(), message.to_owned()));
        };
        if let Some(prometheus) = &self.prometheus {
            if let Some(message) = url_fault(&prometheus.url, prometheus.login.is_some()) {
                fault(&["url"], message);
            }
            if prometheus.ca.as_ref().is_some_and(|ca| !ca.is_absolute()) {
                fault(&["ca"], "it is not an absolute path");
            }
        }
        if let Some(login) = self.login().filter(|login| !secrets.contains_key(&login.password)) {
            fault(&["login", "password"], &format!("there is no secret `{}` in `secrets`", login.password));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_go_in_clear() {
        let secrets = BTreeMap::from([("hpc".to_owned(), SecretSource::Env("HPC".to_owned()))]);
        let login = LoginConfig { user: "u".to_owned(), password: "hpc".to_owned() };
        let told = |url: &str, login: Option<LoginConfig>| {
            let prometheus = HpcPrometheusConfig { url: url.to_owned(), ca: None, login };
            let faults = HpcConfig { prometheus: Some(prometheus) }.faults(&secrets);
            faults.into_iter().map(|fault| fault.message).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(told("https://h:9090", Some(login.clone())), "");
        assert_eq!(told("http://h:9090", None), "");
        assert!(told("http://h:9090", Some(login.clone())).contains("use https://"));
        assert!(told("https://u:p@h:9090", None).contains("does not stand in the URL"));
        assert!(told("h:9090", None).contains("begins with"));
        let unknown = LoginConfig { password: "other".to_owned(), ..login };
        assert!(told("https://h", Some(unknown)).contains("no secret `other`"));
    }
}
