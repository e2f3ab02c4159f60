//! The services of the local platform.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::cli::{CliError, Session, exit};
use tokio::time::Instant;

use super::{Shown, Units};
use crate::outputs::Machine;
use crate::platform::{Local, Service, ServiceState, healthy};
use crate::tools::supervisor::SupervisorError;

/// How long services may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// The services that are described in an environment.
pub(super) struct Services {
    local: Local,
    services: Vec<Service>,
}

impl Services {
    /// The services that the journal tells of.
    pub(super) fn new(session: &Session) -> Result<Self, CliError> {
        let local = platform(session, &session.read()?)?;
        Ok(Self { services: local.services(), local })
    }

    fn named(&self, names: &[String]) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| names.contains(&service.name))
    }

    async fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        for service in &self.services {
            let state = self.local.state(&service.name).await.ok().flatten();
            let health = match &state {
                Some(state) if state.is_running() => healthy(&service.health).await,
                _ => Err("it does not run".to_owned()),
            };
            rows.push(Row { service, state, health });
        }
        rows
    }

    /// Waits until these run and serve, or have ended.
    async fn wait(&self, names: &[String], up: bool) -> Result<(), CliError> {
        let deadline = Instant::now() + PATIENCE;
        for service in self.named(names) {
            loop {
                let state = self.local.state(&service.name).await.map_err(failed)?;
                let running = state.as_ref().is_some_and(ServiceState::is_running);
                let stopped =
                    state.as_ref().is_none_or(|state| !matches!(&*state.state, "RUNNING" | "STARTING" | "STOPPING"));
                if (up && running && healthy(&service.health).await.is_ok()) || (!up && stopped) {
                    break;
                }
                if Instant::now() > deadline {
                    let state = state.map_or_else(|| "unknown".to_owned(), |state| state.state);
                    return Err(CliError::new(exit::FAILED, format!("{} is {state} after {PATIENCE:?}", service.name))
                        .with_hint(format!("see its log: {}", self.local.log(&service.name).display())));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

fn failed(error: SupervisorError) -> CliError {
    CliError::caused(exit::FAILED, "drive the services", &error).with_hint("bring the platform up: taskrun resume")
}

#[async_trait]
impl Units for Services {
    fn word(&self) -> &'static str {
        "service"
    }

    fn names(&self) -> Vec<String> {
        self.services.iter().map(|service| service.name.clone()).collect()
    }

    async fn start(&self, names: &[String]) -> Result<(), CliError> {
        for service in self.named(names) {
            self.local.supervisor().start(&service.name).await.map_err(failed)?;
        }
        self.wait(names, true).await
    }

    /// The supervisor asks each to end and kills it after its own time.
    async fn stop(&self, names: &[String], _force: bool) -> Result<(), CliError> {
        for service in self.named(names) {
            self.local.supervisor().stop(&service.name).await.map_err(failed)?;
        }
        self.wait(names, false).await
    }

    async fn status(&self) -> Result<Shown, CliError> {
        let supervisor = self.local.supervisor().pid().await.ok();
        let rows = self.rows().await;
        let healthy = supervisor.is_some() && rows.iter().all(|row| row.health.is_ok());
        let services: BTreeMap<&str, Value> = rows.iter().map(|row| (&*row.service.name, row.json())).collect();
        Ok(Shown {
            healthy,
            table: table(supervisor, &rows),
            json: json!({"version": 1, "supervisor": {"pid": supervisor}, "healthy": healthy, "services": services}),
            dot: dot(supervisor, &rows),
        })
    }
}

/// The platform that the journal tells of.
pub(in crate::cli) fn platform(session: &Session, checkpoint: &Checkpoint) -> Result<Local, CliError> {
    let machine: Option<Machine> = session.output(checkpoint);
    let machine = machine.ok_or_else(|| {
        CliError::new(exit::FAILED, "there is no platform yet").with_hint("bring it up: taskrun run --until CLOUD-2.1")
    })?;
    Local::new(&machine).map_err(|failure| CliError::new(exit::FAILED, failure.to_string()))
}

/// A service with what it does.
struct Row<'a> {
    service: &'a Service,
    state: Option<ServiceState>,
    health: Result<(), String>,
}

impl Row<'_> {
    fn json(&self) -> Value {
        let state = self.state.as_ref();
        json!({
            "state": self.word(),
            "pid": state.and_then(|state| state.pid),
            "uptime_seconds": state.and_then(|state| state.uptime),
            "endpoints": self.service.endpoints,
            "healthy": self.health.is_ok(),
            "detail": self.health.as_ref().err(),
        })
    }

    fn word(&self) -> &str {
        self.state.as_ref().map_or("UNKNOWN", |state| &state.state)
    }
}

fn table(supervisor: Option<u32>, rows: &[Row<'_>]) -> String {
    let mut out = match supervisor {
        Some(pid) => format!("supervisor: running (pid {pid})\n"),
        None => "supervisor: does not answer; start it again: taskrun resume\n".to_owned(),
    };
    let dash = || "-".to_owned();
    let wide = rows.iter().map(|row| row.service.name.len()).chain(["SERVICE".len()]).max().unwrap_or_default();
    let _ =
        writeln!(out, "{:<wide$} {:<9} {:>8} {:>9}  {:<8} ENDPOINTS", "SERVICE", "STATE", "PID", "UPTIME", "HEALTH");
    for row in rows {
        let state = row.state.as_ref();
        let endpoints: Vec<&str> = row.service.endpoints.values().map(String::as_str).collect();
        let _ = writeln!(
            out,
            "{:<wide$} {:<9} {:>8} {:>9}  {:<8} {}",
            row.service.name,
            row.word(),
            state.and_then(|state| state.pid).map_or_else(dash, |pid| pid.to_string()),
            state.and_then(|state| state.uptime).map_or_else(dash, |seconds| format!("{seconds}s")),
            if row.health.is_ok() { "healthy" } else { "unwell" },
            endpoints.join(" "),
        );
        if let Err(said) = &row.health {
            let _ = writeln!(out, "{:<wide$} {said}", "");
        }
    }
    out
}

fn dot(supervisor: Option<u32>, rows: &[Row<'_>]) -> String {
    let mut out = String::from("graph services {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
    let style = if supervisor.is_some() { "solid" } else { "dashed" };
    let _ = writeln!(out, "  supervisor [shape=ellipse, style={style}];");
    for row in rows {
        let name = &row.service.name;
        let colour = if row.health.is_ok() { "#c8e6c9" } else { "#f4c7c3" };
        let endpoints = row.service.endpoints.values().map(|url| format!("\\n{url}")).collect::<String>();
        let label = format!("{name}\\n{}{endpoints}", row.word());
        let _ = writeln!(out, "  \"{name}\" [style=filled, fillcolor=\"{colour}\", label=\"{label}\"];");
        let _ = writeln!(out, "  supervisor -- \"{name}\";");
    }
    out.push_str("}\n");
    out
}
