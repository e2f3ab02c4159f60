//! CLOUD-4.2: the dashboards, and Grafana to show them.
//!
//! Where Grafana can be had neither on PATH nor from its makers' archive, the task is degraded and says so; the
//! dashboards are there as files, and everything else stands. Proof: each panel's expression has series on the live
//! Prometheus, or it is told what is not there; where Grafana runs, it lists the dashboards and reaches Prometheus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::secret::{Policy, SecretRef};
use taskrun_engine::task::{Applied, Earlier, Footprint, Made, Probe, Problem, Proof, Read, Task, Traces};

use super::panels::{self, Dashboard};
use crate::config::{ArchiveConfig, Config};
use crate::outputs::{Credentials, Dashboards, GrafanaServer, Machine, Monitoring, Platform};
use crate::platform::{Health, Local, Login, Metrics, SecretFiles, Service};
use crate::tools::grafana::{self, Grafana, Installation};
use crate::tools::template::fill;
use crate::tools::{files, run_as};

/// The service's name.
const SERVICE: &str = "grafana";

/// The administrator.
const ADMIN: &str = "admin";

/// The administrator's password, and the key that Grafana encrypts secrets in its database with.
const PASSWORD: &str = "dashboards-password";
const KEY: &str = "dashboards-key";

/// The tag of our dashboards, and the id of the datasource in them.
const TAG: &str = "taskrun";
const DATASOURCE: &str = "taskrun-prometheus";

/// How long Grafana may take to find its dashboards, and to reset a password.
const SHOW_TIMEOUT: Duration = Duration::from_secs(60);

const SETTINGS: &str = include_str!("../../assets/grafana/grafana.ini");
const SOURCE: &str = include_str!("../../assets/grafana/datasource.yml");
const PROVIDER: &str = include_str!("../../assets/grafana/provider.yml");

/// The dashboards, by the names of their files.
const DASHBOARDS: [(&str, &str); 5] = [
    ("cluster.json", include_str!("../../assets/dashboards/cluster.json")),
    ("gpu.json", include_str!("../../assets/dashboards/gpu.json")),
    ("inference.json", include_str!("../../assets/dashboards/inference.json")),
    ("mlflow.json", include_str!("../../assets/dashboards/mlflow.json")),
    ("tasks.json", include_str!("../../assets/dashboards/tasks.json")),
];

/// The task.
pub struct DashboardsTask {
    settings: Settings,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    installed: Option<PathBuf>,
    archive: Option<ArchiveConfig>,
    interval: u32,
}

/// What the templates are filled with.
#[derive(Serialize)]
struct Values {
    folder: String,
    dashboards: String,
    prometheus: String,
    interval: u32,
    port: u16,
    user: &'static str,
    login: Option<String>,
}

/// The folder of the dashboards; later tasks may add theirs.
pub(crate) fn folder(machine: &Machine) -> PathBuf {
    machine.service_dir(SERVICE).join("dashboards")
}

fn url(machine: &Machine) -> String {
    format!("http://127.0.0.1:{}", machine.ports.dashboards)
}

impl DashboardsTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        let archive = config.dashboards.archive.clone();
        let installed = config.tools.grafana.clone();
        Self { settings: Settings { installed, archive, interval: config.monitoring.interval } }
    }

    /// Grafana, or why there is none and what to do about it.
    async fn installation(&self, context: &Context, target: &Path) -> Result<Result<Installation, String>, Failure> {
        if let Some(found) = Installation::installed(self.settings.installed.as_deref()) {
            return Ok(Ok(found));
        }
        let remedy = "install Grafana, or name its folder as `tools.grafana` or an archive as `dashboards.archive`, \
                      then: taskrun run --force CLOUD-4.2";
        let Some(archive) = self.settings.archive.clone().or_else(grafana::official) else {
            let machine = std::env::consts::ARCH;
            return Ok(Err(format!("Grafana: there is no archive of it for {machine}; {remedy}")));
        };
        let there = |sha256: &String| *sha256 == archive.sha256 && Installation::inside(target).is_some();
        let fetch = async {
            grafana::fetch(context, &archive, target).await?;
            Ok(archive.sha256.clone())
        };
        match context.step_checked("fetch Grafana", there, fetch).await {
            Ok(_) => {}
            Err(failure) if failure.persistence == Persistence::Cancelled => return Err(failure),
            Err(failure) => {
                let said = failure.command.as_ref().and_then(|command| command.tail.lines().last());
                let why = said.map_or_else(|| failure.to_string(), str::to_owned);
                return Ok(Err(format!("Grafana: it could not be fetched from {}: {why}; {remedy}", archive.url)));
            }
        }
        let found = Installation::inside(target);
        Ok(found.ok_or_else(|| format!("Grafana: {} does not hold one; {remedy}", archive.url)))
    }

    /// Writes the dashboards and the files by which Grafana finds them.
    fn write(&self, machine: &Machine, monitoring: &Monitoring) -> Result<(), Failure> {
        let (home, user) = (machine.service_dir(SERVICE), &machine.service_user);
        let (sources, providers) = (home.join("provisioning/datasources"), home.join("provisioning/dashboards"));
        let folders = [
            home.clone(),
            home.join("data"),
            folder(machine),
            home.join("provisioning"),
            sources.clone(),
            providers.clone(),
        ];
        for folder in &folders {
            files::service_folder(folder, user, 0o711)?;
        }
        let values = Values {
            folder: home.display().to_string(),
            dashboards: folder(machine).display().to_string(),
            prometheus: monitoring.prometheus_url.clone(),
            interval: self.settings.interval,
            port: machine.ports.dashboards,
            user: ADMIN,
            login: monitoring.login.as_ref().map(|login| login.user.clone()),
        };
        files::service_file(&home.join("grafana.ini"), user, &fill(SETTINGS, &values))?;
        files::service_file(&sources.join("prometheus.yml"), user, &fill(SOURCE, &values))?;
        files::service_file(&providers.join("taskrun.yml"), user, &fill(PROVIDER, &values))?;
        for (name, json) in DASHBOARDS {
            files::service_file(&folder(machine).join(name), user, json)?;
        }
        Ok(())
    }

    /// Sets the password, which Grafana takes from its environment at its very first start only.
    async fn ensure_login(&self, context: &Context, server: &GrafanaServer, machine: &Machine) -> Result<(), Failure> {
        let password = context.secret(PASSWORD)?;
        if Grafana::new(&server.url, ADMIN, password.expose())?.knows_us().await? {
            return Ok(());
        }
        let reset = run_as::service_user(machine, &server.program)
            .args(["cli", "--homepath"])
            .arg(&server.home)
            .arg("--config")
            .arg(machine.service_dir(SERVICE).join("grafana.ini"))
            .args(["admin", "reset-admin-password", "--password-from-stdin"])
            .stdin(password.expose())
            .dir(machine.service_dir(SERVICE))
            .timeout(SHOW_TIMEOUT);
        context.command(reset).await.map(|_| ())
    }
}

fn service(machine: &Machine, server: &GrafanaServer, key: SecretRef, login: Option<&Credentials>) -> Service {
    let home = machine.service_dir(SERVICE);
    let command = vec![
        server.program.display().to_string(),
        "server".to_owned(),
        format!("--homepath={}", server.home.display()),
        format!("--config={}", home.join("grafana.ini").display()),
    ];
    let mut secret_env = BTreeMap::from([
        ("GF_SECURITY_ADMIN_PASSWORD".to_owned(), server.password.clone().into()),
        ("GF_SECURITY_SECRET_KEY".to_owned(), key.into()),
    ]);
    // What the data source is provisioned with.
    secret_env.extend(login.map(|login| ("PROMETHEUS_PASSWORD".to_owned(), login.password.clone().into())));
    Service {
        name: SERVICE.to_owned(),
        command,
        env: BTreeMap::new(),
        secret_env,
        secret_files: SecretFiles::default(),
        dir: home,
        endpoints: [("web".to_owned(), server.url.clone())].into(),
        health: Health::Http(format!("{}/api/health", server.url)),
        metrics: vec![Metrics::of_port(SERVICE, machine.ports.dashboards)],
        login: Some(Login { user: ADMIN.to_owned(), secret: PASSWORD.to_owned() }),
        stop_signal: "TERM".to_owned(),
        stop_seconds: 30,
    }
}

#[async_trait]
impl Task for DashboardsTask {
    type Settings = Settings;
    type Output = Dashboards;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<Platform>(), Read::of::<Monitoring>()]
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned()]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        let templates = [("grafana.ini", SETTINGS), ("datasource.yml", SOURCE), ("provider.yml", PROVIDER)];
        templates.into_iter().chain(DASHBOARDS).map(|(name, text)| (name, text.as_bytes())).collect()
    }

    fn footprint(&self) -> Footprint {
        match Installation::installed(self.settings.installed.as_deref()) {
            Some(_) => Footprint::default(),
            None => Footprint { download_mib: 190, disk_mib: 900 },
        }
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        match &self.settings.installed {
            Some(home) if Installation::inside(home).is_none() => {
                let message = format!("tools.grafana: there is no bin/grafana and public in {}", home.display());
                vec![Problem::new(message, "name the folder of an unpacked Grafana")]
            }
            _ => Vec::new(),
        }
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let gone = DASHBOARDS.iter().map(|(name, _)| made.output.folder.join(name)).find(|file| !file.is_file());
        if let Some(gone) = gone {
            return Probe::Missing(format!("no dashboard {}", gone.display()));
        }
        let Some(server) = &made.output.grafana else { return Probe::Holds };
        let place = view.output::<Machine>();
        let place = place.and_then(|machine| Ok((Local::new(&machine)?, machine, view.output::<Monitoring>()?)));
        match (place, view.secrets().present(KEY)) {
            (Ok((local, machine, monitoring)), Some((key, _))) => {
                local.probe(&service(&machine, server, key, monitoring.login.as_ref())).await
            }
            (Err(failure), _) => Probe::CannotTell(failure.to_string()),
            (_, None) => Probe::Missing(format!("no secret {KEY}")),
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Dashboards>, Failure> {
        let (machine, monitoring): (Machine, Monitoring) = (context.output()?, context.output()?);
        self.write(&machine, &monitoring)?;
        let uids = DASHBOARDS.iter().map(|(_, json)| Dashboard::parse(json).uid).collect();
        let folder = folder(&machine);
        let found = match self.installation(context, &machine.runtime_dir().join(SERVICE)).await? {
            Ok(found) => found,
            Err(why) => {
                Local::new(&machine)?.remove(context, SERVICE).await?;
                return Ok(Applied::degraded(Dashboards { folder, uids, grafana: None }, vec![why]));
            }
        };
        let generate = |name: &str| {
            let policy = Policy::letters_and_digits(32).ok_or_else(|| Failure::permanent("make a password"))?;
            let made = context.secrets().get_or_generate(name, &policy);
            made.map(|(reference, _)| reference)
                .map_err(|error| Failure::caused(Persistence::Permanent, format!("make the secret {name}"), &error))
        };
        let (password, key) = (generate(PASSWORD)?, generate(KEY)?);
        let Installation { program, home } = found;
        let server = GrafanaServer { url: url(&machine), user: ADMIN.to_owned(), password, program, home };
        context.safe_point()?;
        Local::new(&machine)?.ensure(context, &service(&machine, &server, key, monitoring.login.as_ref())).await?;
        self.ensure_login(context, &server, &machine).await?;
        Ok(Applied::complete(Dashboards { folder, uids, grafana: Some(server) }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("each panel has series, or what it shows is not there"),
            Proof::safe("where Grafana runs, it has the dashboards and reaches Prometheus"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &Dashboards) -> Result<(), Failure> {
        match proof {
            "each panel has series, or what it shows is not there" => {
                let monitoring: Monitoring = view.output()?;
                let prometheus = monitoring.prometheus(view.secrets())?;
                let dashboards: Vec<Dashboard> = DASHBOARDS.iter().map(|(_, json)| Dashboard::parse(json)).collect();
                panels::prove(view, &prometheus, &dashboards).await
            }
            "where Grafana runs, it has the dashboards and reaches Prometheus" => {
                let Some(server) = &output.grafana else { return Ok(()) };
                let password = view.secret(PASSWORD)?;
                let grafana = Grafana::new(&server.url, ADMIN, password.expose())?;
                let listed = || async {
                    let there = grafana.dashboards(TAG).await.map_err(|failure| failure.to_string())?;
                    match output.uids.iter().find(|uid| !there.contains(uid)) {
                        Some(missing) => Err(format!("{missing} is not there")),
                        None => Ok(()),
                    }
                };
                view.wait_until("Grafana to have the dashboards", SHOW_TIMEOUT, listed).await?;
                grafana.check_datasource(DATASOURCE).await
            }
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        if let Ok(machine) = context.output::<Machine>() {
            Local::new(&machine)?.remove(context, SERVICE).await?;
        }
        files::remove(&context.state_dir().join("services").join(SERVICE))?;
        let runtime = context.state_dir().join("runtime").join(SERVICE);
        files::remove(&runtime.with_extension("new"))?;
        files::remove(&runtime)?;
        for name in [PASSWORD, KEY] {
            context.secrets().remove(name).map_err(|error| {
                Failure::caused(Persistence::Permanent, format!("forget the secret {name}"), &error)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dashboard_can_be_read_and_has_an_id_of_its_own() {
        let all: Vec<Dashboard> = DASHBOARDS.iter().map(|(_, json)| Dashboard::parse(json)).collect();
        let mut uids: Vec<&str> = all.iter().map(|dashboard| &*dashboard.uid).collect();
        uids.sort_unstable();
        uids.dedup();
        assert_eq!(uids.len(), DASHBOARDS.len());
        for (name, json) in DASHBOARDS {
            assert!(json.contains(&format!("\"uid\": \"{DATASOURCE}\"")), "{name} has another datasource");
            assert!(json.contains(&format!("\"{TAG}\"")), "{name} lacks the tag");
        }
    }

    #[test]
    fn what_grafana_reads_is_as_it_was_looked_at() {
        let values = Values {
            folder: "/s/grafana".to_owned(),
            dashboards: "/s/grafana/dashboards".to_owned(),
            prometheus: "http://127.0.0.1:9090".to_owned(),
            interval: 15,
            port: 3000,
            user: ADMIN,
            login: Some("reader".to_owned()),
        };
        let all = [SETTINGS, SOURCE, PROVIDER].map(|template| fill(template, &values)).join("\n--- next ---\n");
        crate::testing::snapshot("grafana-config", &all);
    }
}
