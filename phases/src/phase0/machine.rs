//! CLOUD-0.1: the machine is fit: tools, disk, memory, ports; folders and the user of the services exist.
//!
//! Proof: the folders belong to whom they should, and each port is free or ours.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Problem, Task, Traces};

use crate::config::{Config, Ports};
use crate::outputs::{Machine, ServiceUser};
use crate::platform::targets;
use crate::tools::ports::{Holder, any_free, holder};
use crate::tools::supervisor::MAX_SOCKET_PATH;
use crate::tools::{files, user};

/// What the embedded platform needs at its first start, in MiB: environments, the build of the object store, data.
const DISK_MIB: u64 = 6 * 1024;
const MEMORY_MIB: u64 = 2 * 1024;

/// The longest name of a socket below the folder of sockets.
const LONGEST_SOCKET: &str = "postgres/.s.PGSQL.65535";

/// The task.
pub struct MachineTask {
    settings: Settings,
    reassign_ports: bool,
}

/// What it reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    service_user: String,
    ports: Ports,
}

impl MachineTask {
    /// The task for a configuration; `reassign_ports` lets services move to other ports where theirs are taken.
    pub fn new(config: &Config, reassign_ports: bool) -> Self {
        let settings = Settings { service_user: config.service_user.clone(), ports: config.ports };
        Self { settings, reassign_ports }
    }

    /// The port for a service: the wanted one, or the one that it has, or any free one.
    fn choose(&self, name: &str, wanted: u16, before: Option<u16>, home: &Path) -> Result<u16, Failure> {
        let port = if wanted == 0 { before.unwrap_or(0) } else { wanted };
        let free = |port| any_free().map(|free| if port == 0 { free } else { port });
        let failed = |error: std::io::Error| Failure::caused(Persistence::Transient, "find a free port", &error);
        match (port, holder(port, home)) {
            (0, _) => free(0).map_err(failed),
            (port, Holder::Nobody | Holder::Ours) => Ok(port),
            (_, Holder::Foreign(_)) if self.reassign_ports => free(0).map_err(failed),
            (port, Holder::Foreign(who)) => {
                Err(Failure::permanent(format!("take port {port} for {name}: {who} has it")).with_hint(port_hint(name)))
            }
        }
    }
}

fn port_hint(name: &str) -> String {
    format!("stop it, set `ports.{name}` in the configuration, or move: taskrun run --reassign-ports")
}

#[async_trait]
impl Task for MachineTask {
    type Settings = Settings;
    type Output = Machine;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn check(&self, view: &View) -> Vec<Problem> {
        let mut problems = missing_programs(&[
            ("setsid", "util-linux"),
            ("setpriv", "util-linux"),
            ("dpkg-deb", "dpkg"),
            ("bash", "bash"),
        ]);
        let there = view.state_dir().ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        if let Ok(disk) = statvfs(there) {
            let free = disk.blocks_available() * disk.fragment_size() / (1 << 20);
            let needed = if view.state_dir().join("runtime").exists() { 1024 } else { DISK_MIB };
            if free < needed {
                let hint = "make room, or put the state elsewhere: --state-dir DIR";
                problems
                    .push(Problem::new(format!("{} has {free} MiB free, {needed} are needed", there.display()), hint));
            }
        }
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok());
        if let Some(kib) = available.filter(|kib: &u64| kib / 1024 < MEMORY_MIB) {
            problems.push(Problem::new(
                format!("{} MiB of memory are available, {MEMORY_MIB} are needed", kib / 1024),
                "end other programs, or add swap",
            ));
        }
        if !self.reassign_ports {
            for (name, port) in self.settings.ports.named() {
                if let Holder::Foreign(who) = holder(port, view.state_dir())
                    && port != 0
                {
                    problems.push(Problem::new(format!("port {port} of {name} is taken by {who}"), port_hint(name)));
                }
            }
        }
        problems
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let machine = &made.output;
        for folder in [machine.service_logs(), machine.runtime_dir(), machine.sockets.clone()] {
            if !folder.is_dir() {
                return Probe::Missing(format!("no folder {}", folder.display()));
            }
        }
        match user::find(&machine.service_user.name) {
            Ok(Some(found)) if found.uid.as_raw() == machine.service_user.uid => {}
            Ok(_) => return Probe::Missing(format!("no user {}", machine.service_user.name)),
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        }
        let taken = machine.ports.named().into_iter().filter_map(|(name, port)| match holder(port, view.state_dir()) {
            Holder::Foreign(who) => {
                Some(Drift::new(format!("port {port} of {name}"), "free or ours", format!("taken by {who}")))
            }
            Holder::Nobody | Holder::Ours => None,
        });
        let taken: Vec<Drift> = taken.collect();
        if taken.is_empty() { Probe::Holds } else { Probe::Drifted(taken) }
    }

    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<Machine>, Failure> {
        let home = context.state_dir().to_owned();
        let before = earlier.made.as_ref().map(|made| &made.output);
        let name = &self.settings.service_user;
        if nix::unistd::geteuid().is_root() && user::find(name)?.is_none() {
            // Before the user: an attempt that is killed in between must not leave a user that nobody removes.
            fs::create_dir_all(&home)
                .and_then(|()| fs::write(marker(&home), name))
                .map_err(|error| files::failure("write", &marker(&home), &error))?;
        }
        let service_user = user::ensure(context, name, marker(&home).exists()).await?;
        prepare(&home)?;
        let ports = self.settings.ports.try_map(before.map(|before| before.ports), |name, wanted, before| {
            self.choose(name, wanted, before, &home)
        })?;
        let sockets = socket_folder(&home);
        // Services look for their sockets in here, and for nothing else.
        fs::create_dir_all(&sockets)
            .and_then(|()| fs::set_permissions(&sockets, fs::Permissions::from_mode(0o711)))
            .map_err(|error| files::failure("make", &sockets, &error))?;
        Ok(Applied::complete(Machine { home, service_user, ports, sockets }))
    }

    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure> {
        let home = context.state_dir();
        files::remove(&home.join("services"))?;
        files::remove(&home.join("runtime"))?;
        files::remove(&targets::folder(home))?;
        files::remove(&socket_folder(home))?;
        if let Some(output) = &made.output {
            user::remove(context, &output.service_user).await?;
        } else if marker(home).exists()
            && let Some(settings) = made.settings.last()
            && let Some(found) = user::find(&settings.service_user)?
        {
            let user = ServiceUser { name: found.name, uid: found.uid.as_raw(), gid: found.gid.as_raw(), made: true };
            user::remove(context, &user).await?;
        }
        files::remove(&marker(home))
    }
}

/// Says that the service user was made for this environment, also when the attempt that made it never ended.
fn marker(home: &Path) -> PathBuf {
    home.join("service-user")
}

/// Makes the folders. Others may pass through the state folder to what is theirs, and list nothing.
fn prepare(home: &Path) -> Result<(), Failure> {
    for (folder, mode) in [(home.to_owned(), 0o711), (home.join("services"), 0o711), (home.join("runtime"), 0o755)] {
        fs::create_dir_all(&folder)
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)))
            .map_err(|error| files::failure("make", &folder, &error))?;
    }
    // The supervisor writes the logs; services do not open them.
    let logs = home.join("services").join("logs");
    fs::create_dir_all(&logs).map_err(|error| files::failure("make", &logs, &error))
}

/// In the state folder if its path leaves room for the names of sockets, else in /tmp.
fn socket_folder(home: &Path) -> PathBuf {
    let inside = home.join("run");
    if inside.join(LONGEST_SOCKET).as_os_str().len() < MAX_SOCKET_PATH {
        return inside;
    }
    let digest = Digest::of(home.as_os_str().as_bytes()).to_string();
    PathBuf::from(format!("/tmp/taskrun-{}", &digest[..12]))
}

/// The programs that are not on PATH, each told with the package that has it.
pub fn missing_programs(programs: &[(&str, &str)]) -> Vec<Problem> {
    let missing = programs.iter().filter(|(program, _)| find_program(program).is_none());
    let problem = |(program, package): &(&str, &str)| {
        Problem::new(format!("`{program}` is not on PATH"), format!("apt-get install {package}"))
    };
    missing.map(problem).collect()
}

/// A program on PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
}
