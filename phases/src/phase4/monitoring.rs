//! CLOUD-4.1: Prometheus, Alertmanager and the exporters.
//!
//! Prometheus scrapes what each service says of itself, so it needs none of them. Proof: every service that serves is
//! scraped; `promtool` finds configuration and rules sound, and the rules pass their unit tests; an alert arrives at
//! Alertmanager.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::task::{Applied, Earlier, Footprint, Made, Probe, Problem, Proof, Read, Task, Traces};

use super::exporters::{exporter, node_exporter, postgres_exporter, tasks_exporter};
use super::server::{self, ALERTS, CONFIGURATION, RECORDING, Server, alert_rules, test_rules};
use crate::config::{
    AlertsConfig, Config, EmailConfig, ExternalDatabaseConfig, ExternalPrometheusConfig, LoginConfig, MonitoringConfig,
};
use crate::outputs::{Credentials, Machine, Monitoring, MonitoringPrograms, Platform};
use crate::phase0::find_program;
use crate::platform::{Health, Local, SecretFiles, Service, healthy, targets};
use crate::tools::prometheus::{Alert, Prometheus, PrometheusError, Sample};
use crate::tools::secrets::reference;
use crate::tools::template::fill;
use crate::tools::{files, prometheus_programs};

/// The services' names.
const PROMETHEUS: &str = "prometheus";
const ALERTMANAGER: &str = "alertmanager";
const NODE_EXPORTER: &str = "node-exporter";
const POSTGRES_EXPORTER: &str = "postgres-exporter";
const TASK_EXPORTER: &str = "task-exporter";
const SERVICES: [&str; 5] = [PROMETHEUS, ALERTMANAGER, NODE_EXPORTER, POSTGRES_EXPORTER, TASK_EXPORTER];

/// The label `cluster` of everything on this side.
pub(crate) const CLUSTER: &str = "cloud";

/// The alert that always fires.
const WATCHDOG: &str = "Watchdog";

/// How long until something shows in the samples: some intervals of at most a minute.
const SHOW_TIMEOUT: Duration = Duration::from_secs(180);

/// How long `promtool` may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(120);

const RULE_TESTS: &str = include_str!("../../assets/monitoring/alerts_test.yml");
const RECEIVERS: &str = include_str!("../../assets/monitoring/alertmanager.yml");

/// The task.
pub struct MonitoringTask {
    settings: Settings,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    monitoring: MonitoringConfig,
    programs: Option<PathBuf>,
    #[serde(default)]
    hpc_login: Option<LoginConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database: Option<ExternalDatabaseConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external: Option<ExternalPrometheusConfig>,
}

/// What the template of Alertmanager's configuration is filled with.
#[derive(Serialize)]
struct Receivers<'a> {
    interval: u32,
    webhook: Option<&'a str>,
    email: Option<&'a EmailConfig>,
    password_file: Option<PathBuf>,
}

/// All that a verb works with.
struct Place {
    machine: Machine,
    local: Local,
    programs: MonitoringPrograms,
    alertmanager: PathBuf,
}

impl Place {
    fn new(machine: Machine, programs: MonitoringPrograms) -> Result<Self, Failure> {
        let (local, alertmanager) = (Local::new(&machine)?, machine.service_dir(ALERTMANAGER));
        Ok(Self { machine, local, programs, alertmanager })
    }

    fn alertmanager_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.machine.ports.alerts)
    }
}

/// The Prometheus of this side. `login` is the one at the HPC side's; `external` is one that is there already.
///
/// # Errors
/// There is no such secret.
pub(crate) fn cloud_server(
    view: &View,
    machine: &Machine,
    programs: &MonitoringPrograms,
    monitoring: &MonitoringConfig,
    login: Option<&LoginConfig>,
    external: Option<Prometheus>,
) -> Result<Server, Failure> {
    Ok(Server {
        name: PROMETHEUS,
        cluster: CLUSTER,
        folder: machine.service_dir(PROMETHEUS),
        port: machine.ports.monitoring,
        targets: targets::folder(&machine.home),
        alertmanager: Some(format!("127.0.0.1:{}", machine.ports.alerts)),
        monitoring: monitoring.clone(),
        programs: programs.clone(),
        password: login.map(|login| reference(view, &login.password)).transpose()?,
        external,
    })
}

impl MonitoringTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        let (monitoring, programs) = (config.monitoring.clone(), config.tools.prometheus.clone());
        let (hpc_login, database) = (config.hpc.login().cloned(), config.external.database.clone());
        let external = config.external.prometheus.clone();
        Self { settings: Settings { monitoring, programs, hpc_login, database, external } }
    }

    fn server(&self, view: &View, place: &Place) -> Result<Server, Failure> {
        let Settings { monitoring, hpc_login, .. } = &self.settings;
        let external = self.external(view, place)?;
        let external = external.map(|external| external.prometheus(view.secrets())).transpose()?;
        cloud_server(view, &place.machine, &place.programs, monitoring, hpc_login.as_ref(), external)
    }

    /// What is known of a Prometheus that is there already; not yet its version.
    fn external(&self, view: &View, place: &Place) -> Result<Option<Monitoring>, Failure> {
        let Some(external) = &self.settings.external else { return Ok(None) };
        let credentials = |login: &LoginConfig| {
            let password = reference(view, &login.password)?;
            Ok::<_, Failure>(Credentials { user: login.user.clone(), password })
        };
        Ok(Some(Monitoring {
            prometheus_url: external.url.trim_end_matches('/').to_owned(),
            alertmanager_url: external.alertmanager.trim_end_matches('/').to_owned(),
            version: String::new(),
            programs: place.programs.clone(),
            login: external.login.as_ref().map(credentials).transpose()?,
        }))
    }

    /// Alertmanager, and its configuration.
    fn alertmanager(&self, view: &View, place: &Place) -> Result<(Service, String), Failure> {
        let receivers = &self.settings.monitoring.receivers;
        let mut secret_files = SecretFiles::default();
        let password_file = match receivers.email.as_ref().and_then(|email| email.login.as_ref()) {
            None => None,
            Some(login) => Some(secret_files.add(reference(view, &login.password)?)),
        };
        let values = Receivers {
            interval: self.settings.monitoring.interval,
            webhook: receivers.webhook.as_deref(),
            email: receivers.email.as_ref(),
            password_file,
        };
        let (folder, port) = (&place.alertmanager, place.machine.ports.alerts);
        let command = vec![
            place.programs.alertmanager.display().to_string(),
            format!("--config.file={}", folder.join("alertmanager.yml").display()),
            format!("--storage.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            // It is the only one: it looks for no others.
            "--cluster.listen-address=".to_owned(),
        ];
        let url = place.alertmanager_url();
        let health = Health::Http(format!("{url}/-/ready"));
        let service = Service { secret_files, ..exporter(&place.machine, ALERTMANAGER, port, command, health) };
        let endpoints = [("api".to_owned(), url)].into();
        Ok((Service { endpoints, ..service }, fill(RECEIVERS, &values)))
    }

    /// All services, in the order in which they are started.
    fn services(&self, view: &View, place: &Place) -> Result<Vec<Service>, Failure> {
        let ports = place.machine.ports;
        let node = node_exporter(
            NODE_EXPORTER,
            ports.node_exporter,
            &place.machine.service_dir(NODE_EXPORTER),
            &place.programs,
        );
        let database = self.settings.database.as_ref();
        let database =
            database.map(|given| Ok::<_, Failure>((given, reference(view, &given.password)?))).transpose()?;
        let postgres = postgres_exporter(POSTGRES_EXPORTER, &place.machine, &place.programs, database);
        let tasks = tasks_exporter(TASK_EXPORTER, &place.machine, &place.local);
        if self.settings.external.is_some() {
            return Ok(vec![node, postgres, tasks]);
        }
        let (alertmanager, _) = self.alertmanager(view, place)?;
        Ok(vec![node, postgres, tasks, alertmanager, self.server(view, place)?.service()])
    }

    /// Waits until each service that serves is scraped without fault; ours must.
    async fn prove_scraped(&self, view: &View, output: &Monitoring) -> Result<(), Failure> {
        let (local, prometheus) = (Local::new(&view.output()?)?, output.prometheus(view.secrets())?);
        let scraped = || async {
            let up = prometheus.query("up == 1").await.map_err(|error| error.to_string())?;
            for service in local.services() {
                for metrics in &service.metrics {
                    let is = |sample: &Sample| {
                        sample.label("job") == metrics.job && sample.label("instance") == metrics.address
                    };
                    if up.iter().any(is) {
                        continue;
                    }
                    let ours = SERVICES.contains(&&*service.name);
                    if ours || healthy(&service.health).await.is_ok() {
                        return Err(format!("{} at {} is not", metrics.job, metrics.address));
                    }
                }
            }
            Ok(())
        };
        view.wait_until("every service to be scraped", SHOW_TIMEOUT, scraped).await?;
        for service in local.services().iter().filter(|service| !service.metrics.is_empty()) {
            if let Err(said) = healthy(&service.health).await {
                view.say(format!("{} does not serve, so its metrics are not proved: {said}", service.name));
            }
        }
        Ok(())
    }

    /// Runs the unit tests of the rules, which are written for the default thresholds.
    async fn prove_rules(&self, view: &View, output: &Monitoring) -> Result<(), Failure> {
        let rules = alert_rules(&AlertsConfig::default());
        test_rules(view, &output.programs, &[("recording.yml", RECORDING), ("alerts.yml", &rules)], RULE_TESTS).await
    }

    async fn prove_configuration(&self, view: &View, output: &Monitoring) -> Result<(), Failure> {
        let place = Place::new(view.output()?, output.programs.clone())?;
        self.server(view, &place)?.check(view).await?;
        if self.settings.external.is_some() {
            return Ok(());
        }
        let check = Command::new(&output.programs.amtool).arg("check-config");
        let check = check.arg(place.alertmanager.join("alertmanager.yml")).dir(&place.alertmanager);
        view.command(check.timeout(CHECK_TIMEOUT)).await.map(|_| ())
    }
}

/// The folder of this environment's rules.
fn cloud_rules(machine: &Machine) -> PathBuf {
    machine.service_dir(PROMETHEUS).join("rules")
}

#[async_trait]
impl Task for MonitoringTask {
    type Settings = Settings;
    type Output = Monitoring;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<Platform>()]
    }

    fn secrets(&self) -> Vec<String> {
        let email = self.settings.monitoring.receivers.email.as_ref();
        let logins = [email.and_then(|email| email.login.as_ref()), self.settings.hpc_login.as_ref()];
        let logins = logins.into_iter().flatten().map(|login| login.password.clone());
        let external = self.settings.external.iter().filter_map(|external| external.login.as_ref());
        let logins = logins.chain(external.map(|login| login.password.clone()));
        logins.chain(self.settings.database.iter().map(|database| database.password.clone())).collect()
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        vec![
            ("prometheus.yml", CONFIGURATION.as_bytes()),
            ("recording.yml", RECORDING.as_bytes()),
            ("alerts.yml", ALERTS.as_bytes()),
            ("alerts_test.yml", RULE_TESTS.as_bytes()),
            ("alertmanager.yml", RECEIVERS.as_bytes()),
        ]
    }

    fn footprint(&self) -> Footprint {
        let missing = prometheus_programs::missing(self.settings.programs.as_deref());
        let (packages, alertmanager) = (!missing.packages.is_empty(), missing.alertmanager);
        // As measured: what is fetched, what is unpacked, and what building leaves in the cache.
        Footprint {
            download_mib: 40 * u64::from(packages) + 50 * u64::from(alertmanager),
            disk_mib: 180 * u64::from(packages) + 600 * u64::from(alertmanager),
        }
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        let mut problems = Vec::new();
        let given = self.settings.programs.as_deref();
        if let Some(folder) = given.filter(|folder| !folder.is_dir()) {
            let message = format!("tools.prometheus: there is no folder {}", folder.display());
            problems.push(Problem::new(message, "correct the configuration"));
        }
        let missing = prometheus_programs::missing(given).packages;
        if !missing.is_empty() && find_program("apt-get").is_none() {
            let missing = missing.into_iter().collect::<Vec<_>>().join(", ");
            let hint = "install them, or name the folder of their programs as `tools.prometheus`";
            problems.push(Problem::new(format!("there is neither {missing} nor `apt-get` to fetch it"), hint));
        }
        problems
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let place = view.output().and_then(|machine| Place::new(machine, made.output.programs.clone()));
        let found =
            place.and_then(|place| Ok((self.services(view, &place)?, self.server(view, &place)?.data(), place)));
        let (services, data, place) = match found {
            Ok(found) => found,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        if self.settings.external.is_some() {
            let looked = match made.output.prometheus(view.secrets()) {
                Ok(prometheus) => prometheus.version().await.map_err(PrometheusError::into_failure),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = looked {
                return Probe::Stopped(failure.to_string());
            }
        } else if !data.is_dir() {
            return Probe::DataLost(format!("there are no samples in {}", data.display()));
        }
        for service in services {
            match place.local.probe(&service).await {
                Probe::Holds => {}
                other => return other,
            }
        }
        Probe::Holds
    }

    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<Monitoring>, Failure> {
        let machine: Machine = context.output()?;
        let target = machine.runtime_dir().join(PROMETHEUS);
        let programs = prometheus_programs::ensure(context, self.settings.programs.as_deref(), &target).await?;
        let place = Place::new(machine, programs)?;
        let (server, user) = (self.server(context, &place)?, &place.machine.service_user);
        let embedded = earlier.made.as_ref().is_some_and(|made| made.settings.external.is_none());
        if embedded && server.external.is_none() && !server.data().is_dir() && !context.accepts_data_loss() {
            return Err(Failure::permanent(format!("find the samples in {}: they are gone", server.data().display()))
                .with_hint("restore them, or begin anew: taskrun run --accept-data-loss"));
        }
        server.write(user)?;
        let external = self.external(context, &place)?;
        if external.is_some() {
            // Those that stood for it before are needed no more; their data stays until the task is destroyed.
            for name in [PROMETHEUS, ALERTMANAGER] {
                place.local.remove(context, name).await?;
            }
        } else {
            for folder in [place.alertmanager.clone(), place.alertmanager.join("data")] {
                files::service_folder(&folder, user, 0o711)?;
            }
            let (_, receivers) = self.alertmanager(context, &place)?;
            files::service_file(&place.alertmanager.join("alertmanager.yml"), user, &receivers)?;
        }
        for service in self.services(context, &place)? {
            context.safe_point()?;
            files::service_folder(&service.dir, user, 0o711)?;
            place.local.ensure(context, &service).await?;
        }
        // Those that ran already have not seen what was written.
        server.reload(context, &place.local).await?;
        let output = match external {
            Some(external) => external,
            None => {
                let alertmanager_url = place.alertmanager_url();
                server::reload(context, &place.local, ALERTMANAGER, &alertmanager_url, "alertmanager").await?;
                let (prometheus_url, programs, version) = (server.url(), place.programs, String::new());
                Monitoring { prometheus_url, alertmanager_url, version, programs, login: None }
            }
        };
        let version = output.prometheus(context.secrets())?.version().await.map_err(PrometheusError::into_failure)?;
        Ok(Applied::complete(Monitoring { version, ..output }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("promtool and amtool find the configuration sound"),
            Proof::safe("the rules pass their unit tests"),
            Proof::quick("no rule fails"),
            Proof::safe("every service that serves is scraped"),
            Proof::safe("an alert arrives at Alertmanager"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &Monitoring) -> Result<(), Failure> {
        match proof {
            "promtool and amtool find the configuration sound" => self.prove_configuration(view, output).await,
            "the rules pass their unit tests" => self.prove_rules(view, output).await,
            "no rule fails" => {
                let mut rules =
                    output.prometheus(view.secrets())?.rules().await.map_err(PrometheusError::into_failure)?;
                let own = cloud_rules(&view.output()?);
                // One that is there already may have others.
                rules.retain(|rule| rule.file.starts_with(&own));
                match rules.iter().find(|rule| rule.health == "err") {
                    Some(rule) => Err(Failure::permanent(format!("evaluate {}: {}", rule.name, rule.last_error))),
                    None if rules.is_empty() => Err(Failure::permanent("find the rules: none is loaded")),
                    None => Ok(()),
                }
            }
            "every service that serves is scraped" => self.prove_scraped(view, output).await,
            "an alert arrives at Alertmanager" => {
                let arrived = || async {
                    let there = output.alerts(view.secrets()).await.map_err(|failure| failure.to_string())?;
                    let is = |alert: &Alert| alert.labels.get("alertname").is_some_and(|name| name == WATCHDOG);
                    match there.iter().any(is) {
                        true => Ok(()),
                        false => Err(format!("it knows of {} others", there.len())),
                    }
                };
                view.wait_until("the alert that always fires", SHOW_TIMEOUT, arrived).await
            }
            _ => Err(Failure::new(Persistence::Permanent, format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        for name in SERVICES {
            if let Ok(machine) = context.output::<Machine>() {
                Local::new(&machine)?.remove(context, name).await?;
            }
            files::remove(&context.state_dir().join("services").join(name))?;
        }
        let runtime = context.state_dir().join("runtime");
        files::remove(&runtime.join(PROMETHEUS).with_extension("packages"))?;
        files::remove(&runtime.join(PROMETHEUS))
    }
}
