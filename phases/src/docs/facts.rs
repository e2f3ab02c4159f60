//! What the pages are made from: the facts of an installation.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use crate::outputs::{Database, Machine, ModelServing, Node, ObjectStore, OperatorCli, Platform, Tracking, Training};
use crate::platform::{Health, Local, Login, Metrics, Service};

/// How long this program may take to draw the graph.
const GRAPH_TIMEOUT: Duration = Duration::from_secs(30);

/// The facts.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The version of this program.
    pub version: &'static str,
    /// The environment's name.
    pub environment: String,
    /// The file that a shell reads for the commands and addresses.
    pub profile: String,
    /// The machine.
    pub node: Node,
    /// Its folders, ports and user.
    pub machine: Machine,
    /// The tasks of the graph, in order.
    pub tasks: Vec<TaskFacts>,
    /// The services, by name.
    pub services: Vec<ServiceFacts>,
    /// The ports of everything that a browser or a client may call, in order.
    pub ports: Vec<u16>,
    /// The object store.
    pub store: ObjectStore,
    /// The database.
    pub database: Database,
    /// The tracking server.
    pub tracking: Tracking,
    /// Where models are served.
    pub serving: ModelServing,
    /// The model that was trained.
    pub training: Training,
}

/// A task of the graph.
#[derive(Debug, Clone, Serialize)]
pub struct TaskFacts {
    id: String,
    title: Option<String>,
    needs: Vec<String>,
}

/// A service.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceFacts {
    name: String,
    endpoints: BTreeMap<String, String>,
    health: String,
    stop_seconds: u32,
    metrics: Vec<Metrics>,
    login: Option<Login>,
}

impl Facts {
    /// The facts that the outputs of upstream tasks tell.
    ///
    /// # Errors
    /// An output is missing.
    pub async fn gather(view: &View) -> Result<Self, Failure> {
        let machine: Machine = view.output()?;
        let platform: Platform = view.output()?;
        let node = platform.nodes.into_iter().next();
        let profile = view.output::<OperatorCli>()?.profile;
        let services = Local::new(&machine)?.services();
        let urls = services.iter().flat_map(|service| service.endpoints.values());
        let mut ports: Vec<u16> = urls.filter_map(|url| url::Url::parse(url).ok()?.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            environment: view.state_dir().file_name().unwrap_or_default().to_string_lossy().into_owned(),
            tasks: tasks(view, &profile).await?,
            profile: profile.display().to_string(),
            node: node.ok_or_else(|| Failure::permanent("find a node of the platform"))?,
            services: services.into_iter().map(ServiceFacts::from).collect(),
            ports,
            store: view.output()?,
            database: view.output()?,
            tracking: view.output()?,
            serving: view.output()?,
            training: view.output()?,
            machine,
        })
    }
}

impl From<Service> for ServiceFacts {
    fn from(service: Service) -> Self {
        let health = match &service.health {
            Health::Http(url) => format!("GET {url}"),
            Health::Socket(path) => format!("connect {}", path.display()),
        };
        let Service { name, endpoints, stop_seconds, metrics, login, .. } = service;
        Self { name, endpoints, health, stop_seconds, metrics, login }
    }
}

/// The tasks as this program draws them.
async fn tasks(view: &View, profile: &Path) -> Result<Vec<TaskFacts>, Failure> {
    const SCRIPT: &str = r#". "$1"; taskrun graph --plain --format json"#;
    let draw = Command::new("bash").args(["--noprofile", "--norc", "-euc", SCRIPT, "bash"]).arg(profile);
    let drawn = view.capture(draw.dir("/").timeout(GRAPH_TIMEOUT)).await?;
    let graph: Graph = serde_json::from_str(&drawn)
        .map_err(|error| Failure::caused(Persistence::Permanent, "read the graph that was drawn", &error))?;
    let needs = |id: &str| graph.edges.iter().filter(|edge| edge.to == id).map(|edge| edge.from.clone()).collect();
    let task = |node: &GraphNode| TaskFacts { id: node.id.clone(), title: node.title.clone(), needs: needs(&node.id) };
    Ok(graph.nodes.iter().map(task).collect())
}

/// What is read of `graph --format json`.
#[derive(Deserialize)]
struct Graph {
    nodes: Vec<GraphNode>,
    edges: Vec<GraphEdge>,
}

#[derive(Deserialize)]
struct GraphNode {
    id: String,
    title: Option<String>,
}

#[derive(Deserialize)]
struct GraphEdge {
    from: String,
    to: String,
}
