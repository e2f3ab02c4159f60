//! The proxy in front of all models, kept as the controller wants it.
//!
//! The file always says what is wanted, so that a proxy that was killed comes up right. What can change at run time is
//! changed there; a new or removed backend is taken in by a reload, whose old worker ends its requests by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PROXY;
use super::setup::Setup;
use crate::platform::Service;
use crate::platform::{Health, Metrics};
use crate::tools::haproxy::{Backend, Configuration, ProxyError, Runtime, ServerStat, Slot};
use crate::tools::supervisor::{Supervisor, SupervisorError};

/// How long checking a configuration may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// The proxy.
pub(super) struct Proxy {
    setup: Setup,
    runtime: Runtime,
}

/// Why the proxy is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyFailure {
    /// Its file cannot be written, or its program not be run.
    #[error("write the proxy's configuration {}", file.display())]
    File { file: PathBuf, source: std::io::Error },
    /// It does not take the configuration.
    #[error("check the proxy's configuration: {said}")]
    Rejected { said: String },
    /// It cannot be asked.
    #[error(transparent)]
    Runtime(#[from] ProxyError),
    /// The supervisor cannot be asked for its process.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// It has no process to tell.
    #[error("reload the proxy: it does not run")]
    Stopped,
}

/// The configuration with these backends.
pub fn configuration(setup: &Setup, backends: BTreeMap<String, Backend>) -> Configuration {
    Configuration {
        socket: setup.proxy_sockets().join("admin.sock"),
        port: setup.machine.ports.inference,
        metrics_port: setup.machine.ports.inference_metrics,
        backends,
    }
}

/// The proxy as a service.
pub fn service(setup: &Setup) -> Service {
    let file = setup.proxy_file().display().to_string();
    let command = [&setup.haproxy.display().to_string(), "-W", "-db", "-f", &file].map(str::to_owned);
    let port = setup.machine.ports.inference_metrics;
    Service {
        name: PROXY.to_owned(),
        command: command.to_vec(),
        env: [("LD_LIBRARY_PATH".to_owned(), setup.library_path())].into(),
        secret_env: BTreeMap::new(),
        secret_files: crate::platform::SecretFiles::default(),
        dir: setup.machine.service_dir(PROXY),
        endpoints: [("inference".to_owned(), setup.inference_url())].into(),
        health: Health::Http(format!("http://127.0.0.1:{port}/healthz")),
        metrics: vec![Metrics::of_port("haproxy", port)],
        login: None,
        stop_signal: "TERM".to_owned(),
        stop_seconds: 10,
    }
}

impl Proxy {
    pub(super) fn new(setup: &Setup) -> Self {
        let runtime = Runtime::new(&setup.proxy_sockets().join("admin.sock"));
        Self { setup: setup.clone(), runtime }
    }

    /// What it does now.
    pub(super) async fn stats(&self) -> Result<Vec<ServerStat>, ProxyFailure> {
        Ok(self.runtime.stats().await?)
    }

    /// Brings the proxy to these backends, from what `stats` says of it.
    pub(super) async fn bring_to(
        &self,
        backends: BTreeMap<String, Backend>,
        stats: &[ServerStat],
        supervisor: &Supervisor,
    ) -> Result<(), ProxyFailure> {
        let has_all = shape(stats) == wanted_shape(&backends);
        let changes = if has_all { changes(&backends, stats) } else { Vec::new() };
        let text = configuration(&self.setup, backends).render();
        let file = self.setup.proxy_file();
        let failed = |source| ProxyFailure::File { file: file.clone(), source };
        if std::fs::read_to_string(&file).map_or(true, |present| present != text) {
            let new = file.with_extension("new");
            std::fs::write(&new, text).map_err(failed)?;
            if !has_all {
                self.check(&new).await?;
            }
            std::fs::rename(&new, &file).map_err(failed)?;
        }
        if !has_all {
            return reload(supervisor).await;
        }
        for (model, number, slot) in changes {
            self.runtime.set(&model, number, slot).await?;
        }
        Ok(())
    }

    /// Lets the proxy's own program check a file: a reload with a bad one would be a proxy that does not come back.
    async fn check(&self, file: &std::path::Path) -> Result<(), ProxyFailure> {
        let mut command = tokio::process::Command::new(&self.setup.haproxy);
        command.args(["-c", "-q", "-f"]).arg(file).env("LD_LIBRARY_PATH", self.setup.library_path()).kill_on_drop(true);
        let output = tokio::time::timeout(CHECK_TIMEOUT, command.output()).await;
        let output = output.unwrap_or_else(|late| Err(late.into()));
        let output = output.map_err(|source| ProxyFailure::File { file: file.to_owned(), source })?;
        match output.status.success() {
            true => Ok(()),
            false => Err(ProxyFailure::Rejected { said: String::from_utf8_lossy(&output.stderr).trim().to_owned() }),
        }
    }
}

/// Asks the master process to start a new worker that takes over the listeners.
async fn reload(supervisor: &Supervisor) -> Result<(), ProxyFailure> {
    let process = supervisor.process(PROXY).await?.filter(|process| process.pid != 0);
    let pid = process.and_then(|process| i32::try_from(process.pid).ok()).ok_or(ProxyFailure::Stopped)?;
    kill(Pid::from_raw(pid), Signal::SIGUSR2).map_err(|_| ProxyFailure::Stopped)
}

/// The backends with the limit of each slot: what only a reload changes.
fn shape(stats: &[ServerStat]) -> BTreeMap<(String, usize), u32> {
    let slot = |stat: &ServerStat| Some(((stat.model.clone(), stat.slot?), stat.most_at_once));
    stats.iter().filter_map(slot).collect()
}

fn wanted_shape(backends: &BTreeMap<String, Backend>) -> BTreeMap<(String, usize), u32> {
    let slots = |(model, backend): (&String, &Backend)| {
        let (model, most) = (model.clone(), backend.most_at_once);
        (0..backend.slots.len()).map(move |number| ((model.clone(), number), most))
    };
    backends.iter().flat_map(slots).collect()
}

/// The slots that differ: those that get requests first, so that there is always one.
fn changes(backends: &BTreeMap<String, Backend>, stats: &[ServerStat]) -> Vec<(String, usize, Slot)> {
    let mut changes: Vec<_> = stats
        .iter()
        .filter_map(|stat| {
            let wanted = *backends.get(&stat.model)?.slots.get(stat.slot?)?;
            (wanted != stat.state).then(|| (stat.model.clone(), stat.slot.unwrap_or_default(), wanted))
        })
        .collect();
    changes.sort_by_key(|(_, _, slot)| match slot {
        Slot::Ready(_) => 0,
        Slot::Drain(_) => 1,
        Slot::Off => 2,
    });
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(slot: usize, state: Slot) -> ServerStat {
        let model = "iris".to_owned();
        ServerStat { model, slot: Some(slot), state, up: true, sessions: 0, queued: 0, most_at_once: 16 }
    }

    #[test]
    fn new_replicas_come_in_before_old_ones_go() {
        let stats = [stat(0, Slot::Ready(1)), stat(1, Slot::Drain(2)), stat(2, Slot::Off), stat(3, Slot::Off)];
        let slots = vec![Slot::Drain(1), Slot::Off, Slot::Ready(3), Slot::Off];
        let backends = BTreeMap::from([("iris".to_owned(), Backend { most_at_once: 16, slots })]);
        assert_eq!(shape(&stats), wanted_shape(&backends));
        let changes: Vec<_> = changes(&backends, &stats).into_iter().map(|(_, slot, state)| (slot, state)).collect();
        assert_eq!(changes, [(2, Slot::Ready(3)), (0, Slot::Drain(1)), (1, Slot::Off)]);
    }

    #[test]
    fn another_number_of_slots_or_another_limit_is_another_shape() {
        let stats = [stat(0, Slot::Off)];
        let shape_of = |most_at_once, count| {
            let slots = vec![Slot::Off; count];
            wanted_shape(&BTreeMap::from([("iris".to_owned(), Backend { most_at_once, slots })]))
        };
        assert_eq!(shape(&stats), shape_of(16, 1));
        assert_ne!(shape(&stats), shape_of(16, 2));
        assert_ne!(shape(&stats), shape_of(8, 1));
    }
}
