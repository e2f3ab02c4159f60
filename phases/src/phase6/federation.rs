//! CLOUD-6.2: the monitoring of the HPC side and of the cloud side, in one place.
//!
//! The cloud side's Prometheus takes what the HPC side's knows of its machines (federation). Where the configuration
//! names none, an embedded one with a node exporter of its own stands for it. Proof: series of both sides answer one
//! query, the rules pass their unit tests, and each panel of the dashboard of both sides has series.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Problem, Proof, Read, Task, Traces};

use crate::config::{AlertsConfig, Config, HpcConfig, MonitoringConfig};
use crate::outputs::{Dashboards, Federation, Machine, Monitoring, Platform};
use crate::phase4::dashboards;
use crate::phase4::exporters::node_exporter;
use crate::phase4::monitoring::{CLUSTER, cloud_server};
use crate::phase4::panels::{self, Dashboard};
use crate::phase4::server::{Server, test_rules};
use crate::platform::{Local, Metrics, Service, targets};
use crate::tools::files;
use crate::tools::prometheus::Prometheus;
use crate::tools::template::{fill, fill_angled};

/// The embedded services' names.
const PROMETHEUS: &str = "hpc-prometheus";
const NODE_EXPORTER: &str = "hpc-node-exporter";

/// The label `cluster` of everything on the other side.
const HPC: &str = "hpc";

/// What the files are called that this task adds to those of others.
const RULES_FILE: &str = "federation.yml";
const DASHBOARD_FILE: &str = "sides.json";

/// How long until both sides answer: some intervals of at most a minute.
const SHOW_TIMEOUT: Duration = Duration::from_secs(180);

const SCRAPE: &str = include_str!("../../assets/federation/scrape.yml");
const RULES: &str = include_str!("../../assets/federation/alerts.yml");
const RULE_TESTS: &str = include_str!("../../assets/federation/alerts_test.yml");
const DASHBOARD: &str = include_str!("../../assets/dashboards/sides.json");

/// The task.
pub struct FederationTask {
    settings: Settings,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    hpc: HpcConfig,
    monitoring: MonitoringConfig,
    /// Whether this side's Prometheus is one that is there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    external: bool,
}

/// What the template of the scrape configuration is filled with.
#[derive(Serialize)]
struct Scrape<'a> {
    scheme: &'a str,
    address: String,
    ca: Option<&'a PathBuf>,
    user: Option<&'a str>,
    password_file: &'a str,
}

/// All that a verb works with.
struct Place {
    machine: Machine,
    local: Local,
    /// The Prometheus of this side.
    cloud: Server,
    /// The one of the other side, where it is embedded.
    embedded: Option<Server>,
}

impl Place {
    /// The embedded services, in the order in which they are started. The cloud side scrapes none of them: they belong to
    /// the other one.
    fn services(&self) -> Vec<Service> {
        let Some(server) = &self.embedded else { return Vec::new() };
        let folder = self.machine.service_dir(NODE_EXPORTER);
        let node = node_exporter(NODE_EXPORTER, self.machine.ports.hpc_node_exporter, &folder, &server.programs);
        [node, server.service()].map(|service| Service { metrics: Vec::new(), ..service }).into()
    }

    /// Says what the embedded Prometheus scrapes.
    fn write_targets(&self) -> Result<(), Failure> {
        let Some(server) = &self.embedded else { return Ok(()) };
        let ports = [("node", self.machine.ports.hpc_node_exporter), ("prometheus", server.port)];
        for (service, (job, port)) in self.services().into_iter().zip(ports) {
            targets::write(&server.folder, &Service { metrics: vec![Metrics::of_port(job, port)], ..service })?;
        }
        Ok(())
    }
}

impl FederationTask {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        let external = config.external.prometheus.is_some();
        Self { settings: Settings { hpc: config.hpc.clone(), monitoring: config.monitoring.clone(), external } }
    }

    fn place(&self, view: &View) -> Result<Place, Failure> {
        let (machine, monitoring): (Machine, Monitoring) = (view.output()?, view.output()?);
        let Settings { hpc, monitoring: config, external } = &self.settings;
        let external = match external {
            true => Some(monitoring.prometheus(view.secrets())?),
            false => None,
        };
        let cloud = cloud_server(view, &machine, &monitoring.programs, config, hpc.login(), external)?;
        let folder = machine.service_dir(PROMETHEUS);
        let embedded = hpc.prometheus.is_none().then(|| Server {
            name: PROMETHEUS,
            cluster: HPC,
            port: machine.ports.hpc_monitoring,
            targets: targets::folder(&folder),
            folder,
            alertmanager: None,
            password: None,
            external: None,
            ..cloud.clone()
        });
        Ok(Place { local: Local::new(&machine)?, machine, cloud, embedded })
    }

    /// Where the other side is.
    fn url(&self, place: &Place) -> String {
        match (&self.settings.hpc.prometheus, &place.embedded) {
            (Some(given), _) => given.url.clone(),
            (None, Some(server)) => server.url(),
            (None, None) => String::new(),
        }
    }

    /// How this side's Prometheus reaches the other one.
    fn scrape(&self, place: &Place) -> Result<String, Failure> {
        let url = url::Url::parse(&self.url(place))
            .map_err(|error| Failure::permanent(format!("understand the URL of the HPC side: {error}")))?;
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let values = Scrape {
            scheme: url.scheme(),
            address: format!("{host}:{port}"),
            ca: self.settings.hpc.prometheus.as_ref().and_then(|given| given.ca.as_ref()),
            user: self.settings.hpc.login().map(|login| &*login.user),
            password_file: Server::PASSWORD_FILE,
        };
        Ok(fill(SCRAPE, &values))
    }

    /// The files that are added to those of other tasks.
    fn files(&self, place: &Place) -> Result<[(PathBuf, String); 3], Failure> {
        Ok([
            (place.cloud.scrapes().join(RULES_FILE), self.scrape(place)?),
            (place.cloud.rules().join(RULES_FILE), fill_angled(RULES, &self.settings.monitoring.alerts)),
            (dashboards::folder(&place.machine).join(DASHBOARD_FILE), DASHBOARD.to_owned()),
        ])
    }

    /// Waits until one query has series of both sides.
    async fn prove_sides(&self, view: &View, place: &Place, prometheus: &Prometheus) -> Result<(), Failure> {
        let both = || async {
            let series =
                prometheus.query("count by (cluster) (node_load1)").await.map_err(|error| error.to_string())?;
            let sides: BTreeSet<&str> = series.iter().map(|sample| sample.label("cluster")).collect();
            match sides.contains(CLUSTER) && sides.contains(HPC) {
                true => Ok(()),
                false => Err(format!("only {} answers", sides.into_iter().collect::<Vec<_>>().join(", "))),
            }
        };
        let waited = view.wait_until("both sides to answer one query", SHOW_TIMEOUT, both).await;
        let waited = waited.map_err(|failure| match &self.settings.hpc.prometheus {
            Some(given) => failure.with_hint(format!(
                "see whether {} can be reached from here: `hpc.prometheus` in the configuration; Prometheus says why \
                 not on its page of targets",
                given.url
            )),
            None => failure,
        });
        let added = place.cloud.scrapes().join(RULES_FILE);
        waited.map_err(|failure| match self.settings.external {
            true => failure.with_hint(format!(
                "add to the `scrape_configs` of your Prometheus what stands in {}, and let it read them again",
                added.display()
            )),
            false => failure,
        })
    }
}

#[async_trait]
impl Task for FederationTask {
    type Settings = Settings;
    type Output = Federation;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        let monitoring = [Read::of::<Monitoring>(), Read::of::<Dashboards>()];
        [Read::of::<Machine>(), Read::of::<Platform>()].into_iter().chain(monitoring).collect()
    }

    fn secrets(&self) -> Vec<String> {
        self.settings.hpc.login().map(|login| login.password.clone()).into_iter().collect()
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        let texts =
            [("scrape.yml", SCRAPE), ("alerts.yml", RULES), ("tests.yml", RULE_TESTS), ("sides.json", DASHBOARD)];
        texts.map(|(name, text)| (name, text.as_bytes())).to_vec()
    }

    fn inputs(&self) -> Vec<PathBuf> {
        self.settings.hpc.prometheus.iter().filter_map(|given| given.ca.clone()).collect()
    }

    async fn check(&self, _view: &View) -> Vec<Problem> {
        let ca = self.settings.hpc.prometheus.as_ref().and_then(|given| given.ca.as_ref());
        let missing = ca.filter(|ca| !ca.is_file());
        let problem = |ca: &PathBuf| {
            Problem::new(format!("hpc.prometheus.ca: there is no {}", ca.display()), "correct the configuration")
        };
        missing.map(problem).into_iter().collect()
    }

    async fn probe(&self, view: &View, _made: &Made<Self>) -> Probe {
        let found = self.place(view).and_then(|place| Ok((self.files(&place)?, place)));
        let (files, place) = match found {
            Ok(found) => found,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        if let Some((gone, _)) = files.iter().find(|(file, _)| !file.is_file()) {
            return Probe::Missing(format!("no file {}", gone.display()));
        }
        if let Some(data) = place.embedded.as_ref().map(Server::data).filter(|data| !data.is_dir()) {
            return Probe::DataLost(format!("there are no samples in {}", data.display()));
        }
        for service in place.services() {
            match place.local.probe(&service).await {
                Probe::Holds => {}
                other => return other,
            }
        }
        Probe::Holds
    }

    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<Federation>, Failure> {
        let place = self.place(context)?;
        let user = &place.machine.service_user;
        if let Some(server) = &place.embedded {
            let existed = earlier.made.as_ref().is_some_and(|made| made.settings.hpc.prometheus.is_none());
            if existed && !server.data().is_dir() && !context.accepts_data_loss() {
                let message = format!("find the samples in {}: they are gone", server.data().display());
                return Err(Failure::permanent(message)
                    .with_hint("restore them, or begin anew: taskrun run --accept-data-loss"));
            }
            server.write(user)?;
            place.write_targets()?;
            for service in place.services() {
                context.safe_point()?;
                files::service_folder(&service.dir, user, 0o711)?;
                place.local.ensure(context, &service).await?;
            }
            server.reload(context, &place.local).await?;
        } else {
            // One that stood for it before is needed no more; its samples stay until the task is destroyed.
            for name in [PROMETHEUS, NODE_EXPORTER] {
                place.local.remove(context, name).await?;
            }
        }
        for (file, text) in self.files(&place)? {
            place.cloud.add(&file, user, &text)?;
        }
        place.cloud.write(user)?;
        place.cloud.reload(context, &place.local).await?;
        Ok(Applied::complete(Federation {
            hpc_prometheus_url: self.url(&place),
            clusters: [CLUSTER, HPC].map(str::to_owned).to_vec(),
        }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::safe("promtool finds the configuration sound"),
            Proof::safe("the rules pass their unit tests"),
            Proof::safe("series of both sides answer one query"),
            Proof::safe("each panel has series, or what it shows is not there"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, _output: &Federation) -> Result<(), Failure> {
        let place = self.place(view)?;
        let prometheus = view.output::<Monitoring>()?.prometheus(view.secrets())?;
        match proof {
            "promtool finds the configuration sound" => place.cloud.check(view).await,
            "the rules pass their unit tests" => {
                let rules = fill_angled(RULES, &AlertsConfig::default());
                test_rules(view, &place.cloud.programs, &[(RULES_FILE, &rules)], RULE_TESTS).await
            }
            "series of both sides answer one query" => self.prove_sides(view, &place, &prometheus).await,
            "each panel has series, or what it shows is not there" => {
                panels::prove(view, &prometheus, &[Dashboard::parse(DASHBOARD)]).await
            }
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        let services = context.state_dir().join("services");
        // The folders of others, which may be gone already.
        let added = ["prometheus/scrapes", "prometheus/rules"].map(|folder| services.join(folder).join(RULES_FILE));
        for file in added.into_iter().chain([services.join("grafana/dashboards").join(DASHBOARD_FILE)]) {
            files::remove(&file)?;
        }
        if let Ok(place) = self.place(context) {
            for name in [PROMETHEUS, NODE_EXPORTER] {
                place.local.remove(context, name).await?;
            }
            // The cloud side goes on alone.
            let serves = match &place.cloud.external {
                None => matches!(place.local.probe(&place.cloud.service()).await, Probe::Holds),
                Some(external) => external.version().await.is_ok(),
            };
            if serves {
                place.cloud.write(&place.machine.service_user)?;
                place.cloud.reload(context, &place.local).await?;
            }
        }
        for name in [PROMETHEUS, NODE_EXPORTER] {
            files::remove(&services.join(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_other_side_is_as_it_was_looked_at() {
        let ca = PathBuf::from("/etc/hpc/ca.pem");
        let secure = Scrape {
            scheme: "https",
            address: "head.hpc.example.org:9090".to_owned(),
            ca: Some(&ca),
            user: Some("federation"),
            password_file: Server::PASSWORD_FILE,
        };
        let plain = Scrape {
            scheme: "http",
            address: "127.0.0.1:9190".to_owned(),
            ca: None,
            user: None,
            password_file: Server::PASSWORD_FILE,
        };
        crate::testing::snapshot("federation-scrape", &[secure, plain].map(|values| fill(SCRAPE, &values)).concat());
    }
}
