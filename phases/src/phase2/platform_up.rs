//! CLOUD-2.1 on the embedded platform: the supervisor runs and answers, and the facts of the node are recorded.
//!
//! Proof: it answers over its socket. After a reboot it is found stopped and started again, and with it all services
//! that it knows; processes that outlived a killed supervisor are ended before.

use std::fs;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Proof, Read, Task, Traces};

use crate::config::Config;
use crate::outputs::{BaseRuntime, Machine, Node, Platform};
use crate::platform::launch::MARK;
use crate::platform::{Local, targets};
use crate::tools::{files, marked};

/// How long the supervisor may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long all services together may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);

/// The name under which the supervisor itself is marked.
const SUPERVISOR: &str = "supervisor";

/// The task.
pub struct PlatformUp {
    settings: Settings,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    environment: String,
}

impl PlatformUp {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        Self { settings: Settings { environment: config.name().to_owned() } }
    }

    async fn start(&self, context: &Context, local: &Local, machine: &Machine) -> Result<(), Failure> {
        if local.supervisor().is_up().await.unwrap_or(false) {
            return Ok(());
        }
        let stale = marked::end(&machine.home, |_| true, Duration::from_secs(20)).await.map_err(|left| {
            Failure::permanent(format!("end {} processes that outlived the supervisor", left.len()))
                .with_hint("see which: grep -l TASKRUN_SERVICE /proc/*/environ")
        })?;
        if stale > 0 {
            context.say(format!("ended {stale} processes that outlived the last supervisor"));
        }
        let socket = Local::socket(machine);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(files::failure("remove", &socket, &error));
            }
            _ => {}
        }
        let file = local.write_configuration(machine, &self.settings.environment)?;
        let runtime: BaseRuntime = context.output()?;
        let log = local.folder().join("start.log");
        let supervisord = Command::new(BaseRuntime::program(&runtime.platform_env, "supervisord"))
            .args(["--nodaemon", "--configuration"])
            .arg(file)
            .dir(local.folder())
            .env(MARK, marked::mark(&machine.home, SUPERVISOR));
        supervisord
            .spawn_detached(Some(&log))
            .map_err(|error| Failure::caused(Persistence::Permanent, "start the supervisor", &error))?;
        let up = || async {
            match local.supervisor().is_up().await {
                Ok(true) => Ok(()),
                Ok(false) => Err("it is about to end".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        context.wait_until("the supervisor to answer", START_TIMEOUT, up).await.map_err(|failure| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            failure.with_hint(format!("it says: {}", said.lines().last().unwrap_or("nothing")))
        })
    }
}

#[async_trait]
impl Task for PlatformUp {
    type Settings = Settings;
    type Output = Platform;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<BaseRuntime>()]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        vec![
            ("supervisord.conf", include_bytes!("../../assets/supervisor/supervisord.conf")),
            ("program.conf", include_bytes!("../../assets/supervisor/program.conf")),
        ]
    }

    async fn probe(&self, view: &View, _made: &Made<Self>) -> Probe {
        let local = match view.output::<Machine>().and_then(|machine| Local::new(&machine)) {
            Ok(local) => local,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        match local.supervisor().is_up().await {
            Ok(true) => Probe::Holds,
            Ok(false) => Probe::CannotTell("the supervisor is about to end".to_owned()),
            Err(_) => Probe::Stopped("the supervisor does not answer, as after a reboot".to_owned()),
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Platform>, Failure> {
        let machine: Machine = context.output()?;
        let local = Local::new(&machine)?;
        self.start(context, &local, &machine).await?;
        let supervisor = Local::socket(&machine);
        Ok(Applied::complete(Platform { platform: "local".to_owned(), nodes: vec![this_node()?], supervisor }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[Proof::quick("the supervisor answers")];
        PROOFS
    }

    async fn prove(&self, _proof: &str, view: &View, _output: &Platform) -> Result<(), Failure> {
        let local = Local::new(&view.output::<Machine>()?)?;
        let pid = local.supervisor().pid().await.map_err(crate::platform::failure)?;
        if pid == 0 { Err(Failure::permanent("find the supervisor's process")) } else { Ok(()) }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        let home = context.state_dir().to_owned();
        let folder = home.join("supervisor");
        // Without an output to read, since what made it may be half made itself: everything is found by its mark.
        let left = marked::end(&home, |found| found.service == SUPERVISOR, STOP_TIMEOUT).await;
        let rest = marked::end(&home, |_| true, STOP_TIMEOUT).await;
        if let Err(left) = left.and(rest) {
            return Err(Failure::permanent(format!("end the services: {} processes remain", left.len())));
        }
        files::remove(&targets::folder(&home))?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::caused(Persistence::Permanent, format!("remove {}", folder.display()), &error))
            }
            _ => Ok(()),
        }
    }
}

/// The facts of this machine.
fn this_node() -> Result<Node, Failure> {
    let failed =
        |error: std::io::Error| Failure::caused(Persistence::Permanent, "read the facts of this machine", &error);
    let memory = fs::read_to_string("/proc/meminfo").map_err(failed)?;
    let total =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let read = |file: &str| fs::read_to_string(file).map(|text| text.trim().to_owned()).map_err(failed);
    Ok(Node {
        name: read("/proc/sys/kernel/hostname")?,
        cpus: std::thread::available_parallelism().map_err(failed)?.get(),
        memory_mib: total.map_or(0, |kib: u64| kib / 1024),
        kernel: read("/proc/sys/kernel/osrelease")?,
        os: pretty.map_or_else(|| "unknown".to_owned(), |name| name.trim_matches('"').to_owned()),
    })
}
