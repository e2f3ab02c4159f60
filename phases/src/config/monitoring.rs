//! Monitoring: what is kept for how long, what is worth an alert, and who hears of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taskrun_engine::graph::Fault;
use taskrun_engine::secret::SecretSource;

/// Monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MonitoringConfig {
    /// For how long samples are kept: a number and `h`, `d`, `w` or `y`; 30d by default.
    pub retention: String,
    /// How much disk samples may take, the oldest go first: a number and `MB`, `GB` or `TB`; 50GB by default.
    pub retention_size: String,
    /// The seconds between two samples of a series, and between two looks at the rules: 1 to 60, 15 by default.
    pub interval: u32,
    /// What is worth an alert.
    pub alerts: AlertsConfig,
    /// Who is told of alerts. Nobody by default: Alertmanager shows them.
    pub receivers: ReceiversConfig,
}

/// What is worth an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// How long something must be wrong, in seconds; 120 by default.
    pub hold: u32,
    /// Free disk space below this, in percent; 10 by default.
    pub disk_free_percent: u32,
    /// Memory of a GPU in use above this, in percent; 95 by default.
    pub gpu_memory_percent: u32,
    /// Temperature of a GPU above this, in degrees Celsius; 85 by default.
    pub gpu_celsius: u32,
    /// The 95th percentile of a model's latency above this, in milliseconds; 500 by default.
    pub latency_p95_ms: u32,
    /// Failed requests to a model above this, in percent of all; 5 by default.
    pub error_percent: u32,
}

/// Who is told of alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiversConfig {
    /// A URL that gets them as JSON, in the format of Alertmanager's webhooks.
    pub webhook: Option<String>,
    /// An address that gets them by e-mail.
    pub email: Option<EmailConfig>,
}

/// E-mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailConfig {
    /// Who gets them.
    pub to: String,
    /// Who sends them.
    pub from: String,
    /// The mail server, as `host:port`.
    pub smarthost: String,
    /// The login at the mail server, if it wants one.
    pub login: Option<LoginConfig>,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginConfig {
    /// The user's name.
    pub user: String,
    /// The password: the name of one of `secrets`.
    pub password: String,
}

impl Default for MonitoringConfig {
    fn default() -> Self {
        Self {
            retention: "30d".to_owned(),
            retention_size: "50GB".to_owned(),
            interval: 15,
            alerts: AlertsConfig::default(),
            receivers: ReceiversConfig::default(),
        }
    }
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            hold: 120,
            disk_free_percent: 10,
            gpu_memory_percent: 95,
            gpu_celsius: 85,
            latency_p95_ms: 500,
            error_percent: 5,
        }
    }
}

impl MonitoringConfig {
    /// What is wrong with it. `secrets` are those of the configuration.
    pub(super) fn faults(&self, secrets: &BTreeMap<String, SecretSource>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |path: &[&str], message: String| {
            faults.push(Fault::new(["monitoring"].iter().chain(path).copied(), message));
        };
        for (name, value, units) in [
            ("retention", &self.retention, &["h", "d", "w", "y"][..]),
            ("retention_size", &self.retention_size, &["MB", "GB", "TB"]),
        ] {
            if !is_quantity(value, units) {
                fault(&[name], format!("`{value}` is not a number and one of {}", units.join(", ")));
            }
        }
        if !(1..=60).contains(&self.interval) {
            fault(&["interval"], format!("{} is not between 1 and 60", self.interval));
        }
        let alerts = &self.alerts;
        for (name, percent) in [
            ("disk_free_percent", alerts.disk_free_percent),
            ("gpu_memory_percent", alerts.gpu_memory_percent),
            ("error_percent", alerts.error_percent),
        ] {
            if !(1..=100).contains(&percent) {
                fault(&["alerts", name], format!("{percent} is not between 1 and 100"));
            }
        }
        if let Some(webhook) = &self.receivers.webhook
            && !url::Url::parse(webhook).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            fault(&["receivers", "webhook"], "it is not a URL that begins with http:// or https://".to_owned());
        }
        if let Some(email) = &self.receivers.email {
            let port = email.smarthost.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                fault(&["receivers", "email", "smarthost"], format!("`{}` is not `host:port`", email.smarthost));
            }
            if let Some(login) = email.login.as_ref().filter(|login| !secrets.contains_key(&login.password)) {
                let message = format!("there is no secret `{}` in `secrets`", login.password);
                fault(&["receivers", "email", "login", "password"], message);
            }
        }
        faults
    }
}

/// Whether `text` is a positive number and one of `units`.
fn is_quantity(text: &str, units: &[&str]) -> bool {
    let number = units.iter().find_map(|unit| text.strip_suffix(unit)?.parse::<u32>().ok());
    number.is_some_and(|number| number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_a_number_and_a_unit() {
        for good in ["1d", "30d", "2w"] {
            assert!(is_quantity(good, &["d", "w"]), "{good}");
        }
        for bad in ["", "d", "0d", "-1d", "30", "1.5d", "30 d", "30s"] {
            assert!(!is_quantity(bad, &["d", "w"]), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let login = LoginConfig { user: "u".to_owned(), password: "mail".to_owned() };
        let email = EmailConfig {
            to: "a@example.org".to_owned(),
            from: "b@example.org".to_owned(),
            smarthost: "example.org".to_owned(),
            login: Some(login),
        };
        let config = MonitoringConfig {
            retention: "long".to_owned(),
            interval: 0,
            alerts: AlertsConfig { error_percent: 101, ..AlertsConfig::default() },
            receivers: ReceiversConfig { webhook: Some("example.org".to_owned()), email: Some(email) },
            ..MonitoringConfig::default()
        };
        let places: Vec<String> = config.faults(&BTreeMap::new()).iter().map(|fault| fault.path.join(".")).collect();
        let expected = [
            "retention",
            "interval",
            "alerts.error_percent",
            "receivers.webhook",
            "receivers.email.smarthost",
            "receivers.email.login.password",
        ];
        assert_eq!(places, expected.map(|place| format!("monitoring.{place}")));
        assert!(MonitoringConfig::default().faults(&BTreeMap::new()).is_empty());
    }
}
