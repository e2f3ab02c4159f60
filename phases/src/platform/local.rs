//! The embedded platform: services on this machine under a supervisor.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::task::Probe;

use super::launch::{Launch, VERB};
use super::service::{Health, Service, ServiceState};
use super::targets;
use crate::outputs::Machine;
use crate::tools::supervisor::{ProcessInfo, Supervisor, SupervisorError, main_config, program_config};
use crate::tools::{files, http, marked};

/// How long a service may take until it runs and serves.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Services on this machine.
#[derive(Debug, Clone)]
pub struct Local {
    home: PathBuf,
    folder: PathBuf,
    logs: PathBuf,
    user: Option<(u32, u32)>,
    supervisor: Supervisor,
}

impl Local {
    /// The platform of a prepared machine.
    ///
    /// # Errors
    /// The client of the supervisor cannot be made.
    pub fn new(machine: &Machine) -> Result<Self, Failure> {
        let root = nix::unistd::geteuid().is_root();
        let user = root.then_some((machine.service_user.uid, machine.service_user.gid));
        let supervisor = Supervisor::new(&Self::socket(machine)).map_err(failure)?;
        let (home, folder) = (machine.home.clone(), machine.home.join("supervisor"));
        Ok(Self { home, folder, logs: machine.service_logs(), user, supervisor })
    }

    /// The same platform, whose services run as whoever runs the platform itself: for a service that drives others.
    #[must_use]
    pub fn as_owner(self) -> Self {
        Self { user: None, ..self }
    }

    /// The socket of the supervisor's API.
    pub fn socket(machine: &Machine) -> PathBuf {
        machine.sockets.join("supervisor.sock")
    }

    /// The folder for the temporary files of a service, emptied before each of its starts; `home` is the state folder.
    pub fn temporary(home: &Path, service: &str) -> PathBuf {
        home.join("tmp").join(service)
    }

    /// The client of the supervisor.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The folder of the supervisor's own files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the supervisor's configuration and the launcher that it starts services with.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_configuration(&self, machine: &Machine, environment: &str) -> Result<PathBuf, Failure> {
        for folder in ["conf.d", "services"].map(|name| self.folder.join(name)) {
            fs::create_dir_all(&folder).map_err(|error| files::failure("make", &folder, &error))?;
        }
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))
            .map_err(|error| files::failure("protect", &self.folder, &error))?;
        let file = self.folder.join("supervisord.conf");
        fs::write(&file, main_config(&self.folder, &Self::socket(machine), environment))
            .map_err(|error| files::failure("write", &file, &error))?;
        self.keep_own_program().map_err(|error| files::failure("copy this program to", &self.own_program(), &error))?;
        Ok(file)
    }

    /// Makes the [own program](Self::own_program), unless it is this very one already.
    fn keep_own_program(&self) -> io::Result<()> {
        // A copy: services start again after a crash also when the program was rebuilt or removed meanwhile.
        // By this name it can be read also when that happened while it runs.
        let (source, program) = (PathBuf::from("/proc/self/exe"), self.own_program());
        let identity = |file: &Path| fs::metadata(file).and_then(|found| Ok((found.len(), found.modified()?)));
        let (len, modified) = identity(&source)?;
        if identity(&program).is_ok_and(|present| present == (len, modified)) {
            return Ok(());
        }
        // Tasks that run at once may all find it outdated.
        static COPIES: AtomicU32 = AtomicU32::new(0);
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let new = program.with_extension(format!("new-{}-{number}", std::process::id()));
        fs::create_dir_all(program.parent().unwrap_or(&self.home))?;
        fs::copy(source, &new)?;
        fs::File::options().append(true).open(&new)?.set_modified(modified)?;
        fs::rename(new, program)
    }

    /// A copy of this program: it starts every service, and is some of them itself.
    pub fn own_program(&self) -> PathBuf {
        self.home.join("runtime").join("bin").join("taskrun")
    }

    /// Makes a service run as described, and waits until it serves. One that runs already is only restarted if its
    /// description changed.
    ///
    /// # Errors
    /// It does not run or serve in time; the last lines of its log are told.
    pub async fn ensure(&self, view: &View, service: &Service) -> Result<(), Failure> {
        // An older program may have brought the platform up.
        self.keep_own_program().map_err(|error| files::failure("copy this program to", &self.own_program(), &error))?;
        let changed = self.describe(view.secrets().path(), service)?;
        let reloaded = self.supervisor.reload().await.map_err(failure)?;
        let known = self.supervisor.process(&service.name).await.map_err(failure)?;
        if known.is_none() || reloaded.changed.contains(&service.name) {
            if known.is_some() {
                self.halt(view, &service.name).await?;
                self.supervisor.remove(&service.name).await.map_err(failure)?;
            }
            self.supervisor.add(&service.name).await.map_err(failure)?;
        } else if changed {
            self.halt(view, &service.name).await?;
        }
        self.supervisor.start(&service.name).await.map_err(failure)?;
        self.wait_until_serving(view, service).await
    }

    /// Describes a service and asks for its start, and does not wait; its secrets are in the file `secrets`.
    ///
    /// # Errors
    /// A file cannot be written, or the supervisor refuses.
    pub async fn launch(&self, secrets: &Path, service: &Service) -> Result<(), Failure> {
        self.describe(secrets, service)?;
        self.supervisor.reload().await.map_err(failure)?;
        self.supervisor.add(&service.name).await.map_err(failure)?;
        self.supervisor.start(&service.name).await.map_err(failure)
    }

    /// Stops and starts a service, and waits until it serves.
    ///
    /// # Errors
    /// As [`ensure`](Self::ensure).
    pub async fn restart(&self, view: &View, service: &Service) -> Result<(), Failure> {
        self.halt(view, &service.name).await?;
        self.supervisor.start(&service.name).await.map_err(failure)?;
        self.wait_until_serving(view, service).await
    }

    /// Stops a service and forgets it; its data stays.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn remove(&self, view: &View, name: &str) -> Result<(), Failure> {
        if self.supervisor.is_up().await.unwrap_or(false) {
            self.halt(view, name).await?;
        }
        self.forget(name).await
    }

    /// Forgets a service that has stopped; its data stays.
    ///
    /// # Errors
    /// It runs, or a file cannot be removed.
    pub async fn forget(&self, name: &str) -> Result<(), Failure> {
        let up = self.supervisor.is_up().await.unwrap_or(false);
        if up {
            self.supervisor.remove(name).await.map_err(failure)?;
        }
        for file in [self.program_file(name), self.launch_file(name)] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(files::failure("remove", &file, &error));
                }
                _ => {}
            }
        }
        files::remove(&Self::temporary(&self.home, name))?;
        targets::remove(&self.home, name)?;
        if up {
            self.supervisor.reload().await.map_err(failure)?;
        }
        let left = marked::end(&self.home, |found| found.service == name, Duration::from_secs(20)).await;
        left.map(|_| ()).map_err(|left| Failure::permanent(format!("end {name}: {} processes remain", left.len())))
    }

    /// Sends a signal to a service: `HUP`, which makes many read their files again.
    ///
    /// # Errors
    /// It does not run.
    pub async fn signal(&self, name: &str, signal: &str) -> Result<(), Failure> {
        self.supervisor.signal(name, signal).await.map_err(failure)
    }

    /// What a service does; nothing if the supervisor does not know it.
    ///
    /// # Errors
    /// The supervisor does not answer.
    pub async fn state(&self, name: &str) -> Result<Option<ServiceState>, SupervisorError> {
        Ok(self.supervisor.process(name).await?.map(state))
    }

    /// The services that are described here, by name.
    pub fn services(&self) -> Vec<Service> {
        let files = fs::read_dir(self.folder.join("services")).into_iter().flatten().flatten();
        let launches = files.filter_map(|file| serde_json::from_slice::<Launch>(&fs::read(file.path()).ok()?).ok());
        let mut services: Vec<Service> = launches.map(|launch| launch.service).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        services
    }

    /// Whether a service runs and serves, as the answer of a probe.
    pub async fn probe(&self, service: &Service) -> Probe {
        match self.state(&service.name).await {
            Err(error) => Probe::Stopped(format!("the supervisor does not answer ({error})")),
            Ok(None) => Probe::Missing(format!("the supervisor does not know {}", service.name)),
            Ok(Some(state)) if !state.is_running() => {
                Probe::Stopped(format!("{} is {} ({})", service.name, state.state, state.detail))
            }
            Ok(Some(_)) => match healthy(&service.health).await {
                Ok(()) => Probe::Holds,
                Err(said) => Probe::Stopped(format!("{} runs and does not serve: {said}", service.name)),
            },
        }
    }

    async fn halt(&self, view: &View, name: &str) -> Result<(), Failure> {
        self.supervisor.stop(name).await.map_err(failure)?;
        let stopped = || async {
            match self.state(name).await {
                Ok(Some(state)) if matches!(&*state.state, "RUNNING" | "STARTING" | "STOPPING") => {
                    Err(format!("it is {}", state.state))
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        };
        view.wait_until(&format!("{name} to stop"), START_TIMEOUT, stopped).await
    }

    async fn wait_until_serving(&self, view: &View, service: &Service) -> Result<(), Failure> {
        let serving = || async {
            match self.state(&service.name).await {
                Ok(Some(state)) if state.is_running() => healthy(&service.health).await,
                Ok(Some(state)) if given_up(&state) => Ok(()),
                Ok(Some(state)) => Err(format!("it is {} ({})", state.state, state.detail)),
                Ok(None) => Err("the supervisor does not know it".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        let waited = view.wait_until(&format!("{} to serve", service.name), START_TIMEOUT, serving).await;
        let ended = self.state(&service.name).await.ok().flatten().filter(given_up);
        let failed = match (waited, ended) {
            (Ok(()), None) => return Ok(()),
            (Ok(()), Some(state)) => Failure::permanent(format!("start {}: {}", service.name, state.detail)),
            (Err(failed), _) => failed,
        };
        let log = self.log(&service.name);
        let tail = view.redactor().redact_str(&tail(&log)).into_owned();
        view.say(format!("the last lines of {}:\n{tail}", log.display()));
        Err(failed.with_hint(format!(
            "its log is {}; it ends with: {}",
            log.display(),
            tail.lines().last().unwrap_or("")
        )))
    }

    /// Writes the files of a service; whether they changed.
    fn describe(&self, secrets: &Path, service: &Service) -> Result<bool, Failure> {
        let launch = Launch {
            service: service.clone(),
            user: self.user,
            secrets: secrets.to_owned(),
            mark: marked::mark(&self.home, &service.name),
            temporary: Self::temporary(&self.home, &service.name),
        };
        let json = serde_json::to_string_pretty(&launch)
            .map_err(|error| Failure::caused(Persistence::Permanent, "describe the service", &error))?;
        let file = self.launch_file(&service.name);
        let words = [&self.own_program().display().to_string(), VERB, &file.display().to_string()].map(quote);
        let program = program_config(
            &service.name,
            &words.join(" "),
            &self.log(&service.name),
            &service.stop_signal,
            service.stop_seconds,
        );
        let changed = write_if_changed(&file, &json)?;
        write_if_changed(&self.program_file(&service.name), &program)?;
        targets::write(&self.home, service)?;
        Ok(changed)
    }

    fn launch_file(&self, name: &str) -> PathBuf {
        self.folder.join("services").join(format!("{name}.json"))
    }

    fn program_file(&self, name: &str) -> PathBuf {
        self.folder.join("conf.d").join(format!("{name}.conf"))
    }

    /// The log of a service.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

/// Whether waiting longer for a service does not help: the supervisor gave up, or it said itself that starting it again
/// does not.
fn given_up(state: &ServiceState) -> bool {
    matches!(&*state.state, "FATAL" | "EXITED")
}

/// Whether a service serves, or what it does instead.
///
/// # Errors
/// What it does instead.
pub async fn healthy(health: &Health) -> Result<(), String> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    match health {
        Health::Http(url) => {
            let client = http::client(url).timeout(TIMEOUT).build().map_err(|e| e.to_string())?;
            match client.get(url).send().await {
                Ok(answer) if answer.status().as_u16() < 400 => Ok(()),
                Ok(answer) => Err(format!("{url} answers {}", answer.status())),
                Err(error) if error.is_connect() => Err(format!("{url} takes no connections")),
                Err(error) => Err(error.to_string()),
            }
        }
        Health::Socket(path) => match tokio::time::timeout(TIMEOUT, tokio::net::UnixStream::connect(path)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("{}: {error}", path.display())),
            Err(_) => Err(format!("{} takes no connections", path.display())),
        },
    }
}

/// What the supervisor says, as the error of a task.
pub fn failure(error: SupervisorError) -> Failure {
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    Failure::caused(persistence, "run a service", &error).with_hint("see what runs: taskrun cloud status")
}

fn state(info: ProcessInfo) -> ServiceState {
    let running = info.pid != 0;
    let detail = if info.spawn_error.is_empty() { info.description } else { info.spawn_error };
    ServiceState {
        state: info.state,
        pid: running.then_some(info.pid),
        uptime: running.then(|| info.now.saturating_sub(info.start)),
        detail,
    }
}

fn write_if_changed(file: &Path, text: &str) -> Result<bool, Failure> {
    if fs::read_to_string(file).is_ok_and(|present| present == text) {
        return Ok(false);
    }
    let new = file.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, file))
        .map_err(|error| files::failure("write", file, &error))?;
    Ok(true)
}

/// The last lines of a file.
fn tail(file: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// A word as the supervisor splits it, which is how a shell does.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
