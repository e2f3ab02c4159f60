//! `taskrun cloud enable` and `disable`: whether the platform comes up when the machine does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use taskrun_engine::cli::{CliError, Session, exit, print, say};
use taskrun_engine::process::{Cancel, Command, Discard};

use super::own;

/// There only where systemd is the machine's first process (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// How long systemd may take to answer.
const SYSTEMD_TIMEOUT: Duration = Duration::from_secs(60);

/// Whose systemd starts the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    /// The machine's, as root.
    System,
    /// That of the user, which lingers from boot on.
    User,
}

/// A unit of systemd (systemd.service(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    environment: String,
    manager: Manager,
    /// The program with the options that lead to this environment.
    program: Vec<String>,
    folder: PathBuf,
    /// What it finds its tools and caches by, as in the shell of who enables it.
    variables: Vec<(String, String)>,
}

/// The variables that a unit gets from the shell of who enables it, where they are set there. systemd itself gives the
/// machine's units neither HOME nor the user's PATH (systemd.exec(5)).
const VARIABLES: [&str; 9] = [
    "HOME",
    "PATH",
    "LANG",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "TASKRUN_CACHE_DIR",
    "TASKRUN_DEVICES_DIR",
    "TASKRUN_HOST_ROOT",
];

fn unit_name(environment: &str) -> String {
    format!("taskrun-{environment}.service")
}

impl Manager {
    fn own() -> Self {
        if nix::unistd::geteuid().is_root() { Self::System } else { Self::User }
    }

    /// Where its units are.
    fn folder(self) -> Result<PathBuf, CliError> {
        if self == Self::System {
            return Ok(PathBuf::from("/etc/systemd/system"));
        }
        let config = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
        let config = config.or_else(home);
        let config = config.ok_or_else(|| CliError::new(exit::FAILED, "find your configuration: HOME is not set"))?;
        Ok(config.join("systemd/user"))
    }

    fn systemctl(self, args: &[&str]) -> Command {
        let user = if self == Self::User { &["--user"][..] } else { &[] };
        Command::new("systemctl").args(user.iter().copied()).args(args.iter().copied())
    }
}

impl Unit {
    fn new(session: &Session) -> Result<Self, CliError> {
        let program = own::program(session)?;
        let graph = std::path::absolute(&session.graph_file);
        let graph = graph.map_err(|error| CliError::caused(exit::FAILED, "find the graph", &error))?;
        let program = program.iter().map(|word| word.display().to_string()).collect();
        let folder = graph.parent().unwrap_or(Path::new("/")).to_owned();
        let variables = VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let (environment, manager) = (session.identity.environment.clone(), Manager::own());
        Ok(Self { environment, manager, program, folder, variables: variables.collect() })
    }

    fn name(&self) -> String {
        unit_name(&self.environment)
    }

    fn file(&self) -> Result<PathBuf, CliError> {
        Ok(self.manager.folder()?.join(self.name()))
    }

    fn render(&self) -> String {
        let Self { environment, folder, .. } = self;
        let program = self.program.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        let folder = folder.display().to_string().replace('%', "%%");
        let variables = self
            .variables
            .iter()
            .map(|(name, value)| format!("Environment={}\n", quote_assignment(&format!("{name}={value}"))));
        let variables = variables.collect::<String>();
        let target = if self.manager == Manager::System { "multi-user.target" } else { "default.target" };
        format!(
            "# Made by `taskrun cloud enable`; `taskrun cloud disable` takes it away.\n\
             [Unit]\n\
             Description=taskrun: the environment {environment}\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             RemainAfterExit=yes\n\
             WorkingDirectory={folder}\n\
             {variables}\
             ExecStart={program} resume\n\
             ExecStop={program} cloud stop\n\
             TimeoutStartSec=30min\n\
             TimeoutStopSec=5min\n\
             \n\
             [Install]\n\
             WantedBy={target}\n"
        )
    }
}

/// Runs `cloud enable`.
///
/// # Errors
/// There is no systemd here, or it refuses.
pub(super) async fn enable(args: &ArgMatches, session: &Session) -> Result<u8, CliError> {
    let unit = Unit::new(session)?;
    if args.get_flag("print") {
        print(&unit.render())?;
        return Ok(exit::OK);
    }
    booted()?;
    let file = unit.file()?;
    let failed = |error: std::io::Error| CliError::caused(exit::FAILED, format!("write {}", file.display()), &error);
    let folder = unit.manager.folder()?;
    fs::create_dir_all(&folder).and_then(|()| fs::write(&file, unit.render())).map_err(failed)?;
    run(unit.manager.systemctl(&["daemon-reload"])).await?;
    run(unit.manager.systemctl(&["enable", &unit.name()])).await?;
    if unit.manager == Manager::User
        && let Err(error) = run(Command::new("loginctl").arg("enable-linger")).await
    {
        say(format!("warning: your services start only when you log in\n{}", error.render()));
    }
    print(&format!("{} brings {} up whenever the machine starts\n", file.display(), unit.environment))?;
    Ok(exit::OK)
}

/// Runs `cloud disable`.
///
/// # Errors
/// systemd refuses.
pub(super) async fn disable(session: &Session) -> Result<u8, CliError> {
    let environment = &session.identity.environment;
    print(&match forget(environment).await? {
        true => format!("{environment} no longer comes up by itself\n"),
        false => format!("{environment} does not come up by itself\n"),
    })?;
    Ok(exit::OK)
}

/// Takes the unit of an environment away; whether there was one.
///
/// # Errors
/// systemd refuses.
pub(crate) async fn forget(environment: &str) -> Result<bool, CliError> {
    let manager = Manager::own();
    let name = unit_name(environment);
    let file = manager.folder()?.join(&name);
    if !file.exists() {
        return Ok(false);
    }
    booted()?;
    run(manager.systemctl(&["disable", &name])).await?;
    let failed = |error: std::io::Error| CliError::caused(exit::FAILED, format!("remove {}", file.display()), &error);
    fs::remove_file(&file).map_err(failed)?;
    run(manager.systemctl(&["daemon-reload"])).await?;
    Ok(true)
}

/// What happens after a reboot, in one line.
pub(super) fn told(session: &Session) -> String {
    let file = Unit::new(session).and_then(|unit| unit.file());
    match file {
        Ok(file) if file.exists() => format!("after a reboot: {} brings it up", file.display()),
        _ if Path::new(BOOTED).exists() => {
            "after a reboot: taskrun resume; by itself after: taskrun cloud enable".to_owned()
        }
        _ => "after a reboot: taskrun resume (there is no systemd here that would do it)".to_owned(),
    }
}

/// Refuses where systemd does not run the machine.
fn booted() -> Result<(), CliError> {
    if Path::new(BOOTED).exists() {
        return Ok(());
    }
    Err(CliError::new(exit::FAILED, "have the platform started at boot: systemd does not run this machine")
        .with_hint("have what does run it call this after each boot: taskrun resume"))
}

async fn run(command: Command) -> Result<(), CliError> {
    let command = command.dir("/").timeout(SYSTEMD_TIMEOUT);
    let line = command.to_string();
    let ran = tokio::task::spawn_blocking(move || {
        command.run(&Cancel::new(), &mut Discard).and_then(|exit| exit.check(&command).map(|_| ()))
    });
    match ran.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let tail = error.tail().unwrap_or_default().trim().to_owned();
            Err(CliError::caused(exit::FAILED, format!("run `{line}`: {tail}"), &error))
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// A word of a command line as systemd reads it (systemd.service(5), "Command lines").
fn quote(word: &str) -> String {
    quote_assignment(&word.replace('$', "$$"))
}

/// An assignment of a variable as systemd reads it, which replaces no variables in it (systemd.exec(5), "Environment=").
fn quote_assignment(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=+@".contains(c);
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    if text.chars().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(manager: Manager) -> Unit {
        let program = ["/opt/my cloud/taskrun", "--config", "/opt/100%/config.yaml"].map(str::to_owned).to_vec();
        let variables = [("HOME", "/root"), ("PATH", "/opt/my tools:/usr/bin")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Unit { environment: "local".to_owned(), manager, program, folder: "/opt/100%".into(), variables }
    }

    #[test]
    fn the_unit_resumes_at_boot() {
        crate::testing::snapshot("boot-unit", &unit(Manager::System).render());
        assert!(unit(Manager::User).render().contains("WantedBy=default.target"));
    }

    #[test]
    fn systemd_finds_the_unit_sound() {
        let folder = tempfile::tempdir().unwrap();
        let real = Unit { program: vec!["/bin/true".to_owned()], folder: "/".into(), ..unit(Manager::System) };
        let file = folder.path().join(real.name());
        fs::write(&file, real.render()).unwrap();
        let verified = std::process::Command::new("systemd-analyze").arg("verify").arg(&file).output();
        if let Ok(verified) = verified {
            let said = String::from_utf8_lossy(&verified.stderr);
            let about_it: Vec<&str> = said.lines().filter(|line| line.contains(&real.name())).collect();
            assert!(about_it.is_empty(), "{about_it:?}");
        }
    }

    #[test]
    fn words_reach_the_program_as_they_are() {
        assert_eq!(quote("/a/b-c.yaml"), "/a/b-c.yaml");
        assert_eq!(quote(r#"a "b" $c %d \e"#), r#""a \"b\" $$c %%d \\e""#);
        assert_eq!(quote_assignment("A=$b c"), r#""A=$b c""#);
    }
}
