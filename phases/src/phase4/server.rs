//! Prometheus as a service: the one of the cloud side, and the embedded one of the HPC side.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::secret::SecretRef;

use crate::config::{AlertsConfig, MonitoringConfig};
use crate::outputs::{MonitoringPrograms, ServiceUser};
use crate::platform::{Health, Local, Metrics, SecretFiles, Service};
use crate::tools::files;
use crate::tools::prometheus::{Prometheus, PrometheusError, metric};
use crate::tools::scratch::Scratch;
use crate::tools::template::{fill, fill_angled};

/// How long `promtool` may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// How long reading a configuration again may take.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one that is there already may take to show what it has read; it looks for files of targets every 30 s.
const TAKE_TIMEOUT: Duration = Duration::from_secs(45);

/// The same where it was not asked to read anything: somebody may just have done so.
const UNASKED_TIMEOUT: Duration = Duration::from_secs(8);

pub(crate) const CONFIGURATION: &str = include_str!("../../assets/monitoring/prometheus.yml");
pub(crate) const RECORDING: &str = include_str!("../../assets/monitoring/recording.yml");
pub(crate) const ALERTS: &str = include_str!("../../assets/monitoring/alerts.yml");

/// A Prometheus server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// The service's name.
    pub(crate) name: &'static str,
    /// The value of the label `cluster` of what it scrapes itself.
    pub(crate) cluster: &'static str,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Its loopback port.
    pub(crate) port: u16,
    /// The folder of files with what it scrapes.
    pub(crate) targets: PathBuf,
    /// Where it sends alerts, as `host:port`; nowhere, and it has no rules.
    pub(crate) alertmanager: Option<String>,
    /// How often, for how long, and what is worth an alert.
    pub(crate) monitoring: MonitoringConfig,
    /// The programs.
    pub(crate) programs: MonitoringPrograms,
    /// The password that it scrapes another Prometheus with; it is [at this path](Self::PASSWORD_FILE) for it.
    pub(crate) password: Option<SecretRef>,
    /// One that is there already and is only told what to do: nothing of it is started or stopped.
    pub(crate) external: Option<Prometheus>,
}

/// What the template of the configuration is filled with.
#[derive(Serialize)]
struct Values<'a> {
    cluster: &'a str,
    interval: u32,
    folder: String,
    targets: String,
    alertmanager: Option<&'a str>,
}

impl Server {
    /// The path of the password, for the server itself.
    pub(crate) const PASSWORD_FILE: &str = "/proc/self/fd/100";

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        match &self.external {
            None => format!("http://127.0.0.1:{}", self.port),
            Some(external) => external.url().to_owned(),
        }
    }

    /// The folder of its samples.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder of its rules; every file in it counts.
    pub(crate) fn rules(&self) -> PathBuf {
        self.folder.join("rules")
    }

    /// The folder of further scrape configurations: lists to be added to `scrape_configs`.
    pub(crate) fn scrapes(&self) -> PathBuf {
        self.folder.join("scrapes")
    }

    fn file(&self) -> PathBuf {
        self.folder.join("prometheus.yml")
    }

    /// The service.
    pub(crate) fn service(&self) -> Service {
        let mut command = vec![
            self.programs.prometheus.display().to_string(),
            format!("--config.file={}", self.file().display()),
            format!("--storage.tsdb.path={}", self.data().display()),
            format!("--storage.tsdb.retention.time={}", self.monitoring.retention),
            format!("--storage.tsdb.retention.size={}", self.monitoring.retention_size),
            format!("--web.listen-address=127.0.0.1:{}", self.port),
            // An alert that went out before Alertmanager was found is not long in coming.
            "--rules.alert.resend-delay=15s".to_owned(),
        ];
        if let Some(assets) = &self.programs.web_assets {
            command.push(format!("--web.local-assets={}", assets.display()));
        }
        let mut secret_files = SecretFiles::default();
        if let Some(password) = &self.password {
            secret_files.add(password.clone());
        }
        Service {
            name: self.name.to_owned(),
            command,
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            secret_files,
            dir: self.folder.clone(),
            endpoints: [("web".to_owned(), self.url())].into(),
            health: Health::Http(format!("{}/-/ready", self.url())),
            metrics: vec![Metrics::of_port(self.name, self.port)],
            login: None,
            stop_signal: "TERM".to_owned(),
            stop_seconds: 60,
        }
    }

    /// Makes its folders and writes its configuration, and its own rules if it has somewhere to send alerts.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn write(&self, user: &ServiceUser) -> Result<(), Failure> {
        let mode = if self.external.is_some() { 0o755 } else { 0o711 };
        for folder in [self.folder.clone(), self.rules(), self.scrapes()] {
            files::service_folder(&folder, user, mode)?;
        }
        if self.alertmanager.is_some() {
            self.add(&self.rules().join("recording.yml"), user, RECORDING)?;
            self.add(&self.rules().join("alerts.yml"), user, &alert_rules(&self.monitoring.alerts))?;
        }
        if self.external.is_none() {
            files::service_folder(&self.data(), user, 0o711)?;
        }
        self.add(&self.file(), user, &self.configuration()?)
    }

    /// Writes a file that the server reads.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn add(&self, file: &Path, user: &ServiceUser, text: &str) -> Result<(), Failure> {
        match self.external {
            None => files::service_file(file, user, text),
            // It runs as a user of its own, and what it has read since the last change it need not read again.
            Some(_) if fs::read_to_string(file).is_ok_and(|present| present == text) => files::open_up(file),
            Some(_) => files::public_file(file, text),
        }
    }

    /// The configuration, with what lies in [`scrapes`](Self::scrapes).
    fn configuration(&self) -> Result<String, Failure> {
        let values = Values {
            cluster: self.cluster,
            interval: self.monitoring.interval,
            folder: self.folder.display().to_string(),
            targets: self.targets.display().to_string(),
            alertmanager: self.alertmanager.as_deref(),
        };
        let mut text = fill(CONFIGURATION, &values);
        let folder = self.scrapes();
        let entries = fs::read_dir(&folder).map_err(|error| files::failure("read", &folder, &error))?;
        let mut more: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        more.sort();
        for file in more {
            let scrape = fs::read_to_string(&file).map_err(|error| files::failure("read", &file, &error))?;
            text.push_str(&scrape);
        }
        Ok(text)
    }

    /// Lets a running server read its configuration and rules again, and waits until it goes by them.
    ///
    /// # Errors
    /// It refuses them: they are wrong.
    pub(crate) async fn reload(&self, view: &View, local: &Local) -> Result<(), Failure> {
        match &self.external {
            None => reload(view, local, self.name, &self.url(), "prometheus").await,
            Some(external) => self.reload_external(view, external).await,
        }
    }

    /// Asks one that is there already to read its configuration again, and waits until it has our rules and targets.
    async fn reload_external(&self, view: &View, external: &Prometheus) -> Result<(), Failure> {
        let took = external.reload().await.map_err(PrometheusError::into_failure)?;
        let rules = || async { self.missing_rules(external).await };
        let targets = || async {
            let files = external.target_files().await.map_err(|error| error.to_string())?;
            match files.iter().any(|file| file.starts_with(&self.targets)) {
                true => Ok(()),
                false => Err(format!("it reads no file in {}", self.targets.display())),
            }
        };
        let how = match took {
            true => "",
            false => " Then let it read its configuration again, for instance: systemctl reload prometheus",
        };
        let hint = format!(
            "add to its configuration the `rule_files`, and of the `scrape_configs` all, that stand in {}.{how}",
            self.file().display()
        );
        let permanent = |failure: Failure| match failure.persistence {
            Persistence::Transient => {
                Failure { persistence: Persistence::Permanent, ..failure }.with_hint(hint.clone())
            }
            _ => failure,
        };
        // Without being asked it takes nothing soon.
        let patience = if took { TAKE_TIMEOUT } else { UNASKED_TIMEOUT };
        view.wait_until("the Prometheus to take the rules", patience, rules).await.map_err(permanent)?;
        view.wait_until("the Prometheus to take the targets", patience, targets).await.map_err(permanent)
    }

    /// Why one that is there already does not go by all of our rules as they are written now.
    async fn missing_rules(&self, external: &Prometheus) -> Result<(), String> {
        const READ: &str = "prometheus_config_last_reload_success_timestamp_seconds";
        let loaded = external.rules().await.map_err(|error| error.to_string())?;
        let read = external.metric(READ).await.map_err(|error| error.to_string())?;
        let folder = self.rules();
        for entry in fs::read_dir(&folder).map_err(|error| format!("read {}: {error}", folder.display()))?.flatten() {
            let file = entry.path();
            let text = fs::read_to_string(&file).map_err(|error| format!("read {}: {error}", file.display()))?;
            let (known, wanted) = (loaded.iter().filter(|rule| rule.file == file).count(), rules_in(&text));
            if known != wanted {
                return Err(format!("it has {known} of the {wanted} rules in {}", file.display()));
            }
            let written = fs::metadata(&file).and_then(|found| found.modified()).ok();
            let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs_f64());
            if read.zip(written).is_some_and(|(read, written)| read < written.floor()) {
                return Err(format!("it has not read {} since it was changed", file.display()));
            }
        }
        Ok(())
    }

    /// Lets `promtool` check the configuration and the rules that it names.
    ///
    /// # Errors
    /// They are wrong.
    pub(crate) async fn check(&self, view: &View) -> Result<(), Failure> {
        let check = Command::new(&self.programs.promtool).args(["check", "config"]);
        // The password is there for the server only.
        let check = if self.password.is_some() { check.arg("--syntax-only") } else { check };
        view.command(check.arg(self.file()).dir(&self.folder).timeout(CHECK_TIMEOUT)).await.map(|_| ())
    }
}

/// How many rules a file holds.
fn rules_in(text: &str) -> usize {
    let is_rule = |line: &&str| ["- alert:", "- record:"].iter().any(|start| line.trim_start().starts_with(start));
    text.lines().filter(is_rule).count()
}

/// Lets a running server of the Prometheus family read its files again. `prefix` is that of its own metrics.
///
/// # Errors
/// It refuses them, or does not answer.
pub(crate) async fn reload(view: &View, local: &Local, name: &str, url: &str, prefix: &str) -> Result<(), Failure> {
    let now = jiff::Timestamp::now().as_second();
    local.signal(name, "HUP").await?;
    let (good, at) = ("config_last_reload_successful", "config_last_reload_success_timestamp_seconds");
    let read = || async {
        let good = metric(url, &format!("{prefix}_{good}")).await.map_err(|error| error.to_string())?;
        let at = metric(url, &format!("{prefix}_{at}")).await.map_err(|error| error.to_string())?;
        match good == Some(1.0) && at.is_some_and(|at| at >= now as f64) {
            true => Ok(()),
            false => Err("it goes on with its old one".to_owned()),
        }
    };
    let hint = format!("its log says what is wrong: {}", local.log(name).display());
    let waited = view.wait_until(&format!("{name} to take its configuration"), RELOAD_TIMEOUT, read).await;
    waited.map_err(|failure| failure.with_hint(hint))
}

/// Lets `promtool` run the unit tests `tests` of the rules `rules`, which are files by name.
///
/// # Errors
/// One fails.
pub(crate) async fn test_rules(
    view: &View,
    programs: &MonitoringPrograms,
    rules: &[(&str, &str)],
    tests: &str,
) -> Result<(), Failure> {
    let scratch = Scratch::new(view, "rules", None)?;
    for (name, text) in rules.iter().chain([&("tests.yml", tests)]) {
        let file = scratch.folder().join(name);
        fs::write(&file, text).map_err(|error| files::failure("write", &file, &error))?;
    }
    let test = Command::new(&programs.promtool).args(["test", "rules", "tests.yml"]);
    view.command(scratch.home_of(test).dir(scratch.folder()).timeout(CHECK_TIMEOUT)).await.map(|_| ())
}

/// The alert rules with these thresholds. Prometheus's own templates have the usual braces, so ours have angles.
pub(crate) fn alert_rules(alerts: &AlertsConfig) -> String {
    fill_angled(ALERTS, alerts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::snapshot;

    fn server(folder: &Path) -> Server {
        let program = PathBuf::from("/usr/bin/program");
        Server {
            name: "prometheus",
            cluster: "cloud",
            folder: folder.to_owned(),
            port: 9090,
            targets: PathBuf::from("/s/targets"),
            alertmanager: Some("127.0.0.1:9093".to_owned()),
            monitoring: MonitoringConfig::default(),
            programs: MonitoringPrograms {
                prometheus: program.clone(),
                promtool: program.clone(),
                alertmanager: program.clone(),
                amtool: program.clone(),
                node_exporter: program.clone(),
                postgres_exporter: program,
                web_assets: Some(PathBuf::from("/s/web")),
            },
            password: None,
            external: None,
        }
    }

    #[test]
    fn the_configuration_is_as_it_was_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path());
        fs::create_dir(server.scrapes()).unwrap();
        fs::write(server.scrapes().join("more.yml"), "  - job_name: more\n").unwrap();
        let text = server.configuration().unwrap() + "\n" + &server.service().command.join("\n");
        snapshot("prometheus-config", &text.replace(&folder.path().display().to_string(), "/s/prometheus"));
    }

    #[test]
    fn a_password_is_where_the_configuration_says() {
        let mut files = SecretFiles::default();
        let password: SecretRef = serde_json::from_value(serde_json::json!({"name": "hpc", "version": 1})).unwrap();
        assert_eq!(files.add(password), Path::new(Server::PASSWORD_FILE));
    }

    /// Where promtool is not installed the proofs of the tasks do this, with the one that they bring.
    #[test]
    fn the_rules_pass_their_unit_tests() {
        let Some(promtool) = crate::phase0::find_program("promtool") else { return };
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("recording.yml", RECORDING.to_owned()),
            ("alerts.yml", alert_rules(&AlertsConfig::default())),
            ("tests.yml", include_str!("../../assets/monitoring/alerts_test.yml").to_owned()),
        ];
        for (name, text) in &files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let test = std::process::Command::new(promtool)
            .args(["test", "rules", "tests.yml"])
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stderr));
    }

    #[test]
    fn thresholds_stand_in_the_rules() {
        let alerts = AlertsConfig { hold: 1, disk_free_percent: 7, latency_p95_ms: 250, ..AlertsConfig::default() };
        let rules = alert_rules(&alerts);
        for expected in ["for: 1s\n", "avail:ratio < 0.07\n", "p95_5m > 0.25\n", "GPU_TEMP > 85\n", "{{ $labels.job }}"]
        {
            assert!(rules.contains(expected), "{expected} is not in {rules}");
        }
        assert!(!rules.contains("<<"));
    }
}
