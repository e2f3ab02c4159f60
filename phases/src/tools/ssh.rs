//! ssh(1): scripts on other machines.
//!
//! OpenSSH's own client, so that the user's agent and `~/.ssh/config` (jump hosts, say) count. What this program must
//! rely on is set here: no question is ever asked, nothing is forwarded, each connection ends with its command, and host
//! keys are kept in a file of the environment's own, where the first key seen stays.

mod classify;
mod error;
mod key;
mod known_hosts;
mod script;
mod wait;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taskrun_engine::context::View;
use taskrun_engine::process::{Cancel, Command, OutputSink};

pub use self::error::{SshError, SshErrorKind};
pub use self::key::ensure_key;
pub use self::script::{Script, quote};

/// How long a server may take to let somebody in; what it keeps silent for this long hangs.
const CONNECT_SECONDS: u32 = 10;
/// After so many seconds of silence, and so many times, a connection counts as lost.
const ALIVE_SECONDS: u32 = 5;
const ALIVE_COUNT: u32 = 4;

/// How long [`SshTarget::reachable`] may take.
const REACHABLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where, as whom and with what somebody logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// A host name or an IP address, or a `Host` of `~/.ssh/config`.
    pub address: String,
    /// The port of the SSH server.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The file of the private key, the only one to be offered; by default those that ssh(1) takes.
    pub key: Option<PathBuf>,
    /// The file of host keys; made when the first is seen. Its folder exists.
    pub known_hosts: PathBuf,
}

impl SshTarget {
    /// Runs `script` there by `sh`, with `set -eu`, as root if `sudo` is set, for at most a minute; what it wrote to
    /// stdout. What it wrote to stderr goes into the task's log. [`Script`] takes arguments and more time.
    ///
    /// # Errors
    /// The machine cannot be reached or lets nobody in, or the script ended with another exit code than 0.
    pub async fn run(&self, view: &View, script: &str, sudo: bool) -> Result<String, SshError> {
        self.run_script(view, &Script::new(script).sudo(sudo)).await
    }

    /// Runs `script` there; what it wrote to stdout. What it wrote to stderr goes into the task's log.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_script(&self, view: &View, script: &Script) -> Result<String, SshError> {
        view.capture(self.command(script)).await.map_err(|failure| SshError::of_failure(self, script, failure))
    }

    /// Runs `script` there for who has no task, such as a verb; `sink` gets what it wrote to stderr. Blocks.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_blocking(
        &self,
        cancel: &Cancel,
        sink: &mut dyn OutputSink,
        script: &Script,
    ) -> Result<String, SshError> {
        let command = self.command(script);
        let read = command.read(cancel, sink).and_then(|(exit, stdout)| Ok((exit.check(&command)?, stdout)));
        let (_, stdout) = read.map_err(|error| SshError::of_command(self, script, &command, &error))?;
        String::from_utf8(stdout).map_err(|_| SshError::new(self, SshErrorKind::Unclear))
    }

    /// Writes `bytes` into the file `path` there, as root if `sudo` is set, with the octal `mode`: all of it or nothing.
    /// Meant for small files.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn copy(&self, view: &View, bytes: &[u8], path: &str, mode: &str, sudo: bool) -> Result<(), SshError> {
        let script = Script::copy(bytes, path, mode).sudo(sudo);
        self.run_script(view, &script).await.map(drop)
    }

    /// Whether somebody is let in.
    ///
    /// # Errors
    /// Why not.
    pub async fn reachable(&self, view: &View) -> Result<(), SshError> {
        self.run_script(view, &Script::new("true").timeout(REACHABLE_TIMEOUT)).await.map(drop)
    }

    /// ssh(1) for a person: with the terminal, and able to ask for a passphrase. The words of `command` are, as ssh has
    /// it, joined by blanks and read by the shell there; without any it is a login shell.
    pub fn interactive(&self, command: &[String]) -> std::process::Command {
        let mut ssh = std::process::Command::new("ssh");
        ssh.args(self.options()).arg("--").arg(&self.address).args(command);
        ssh
    }

    /// Forgets the host key, because the machine was made anew.
    ///
    /// # Errors
    /// The file of host keys cannot be read or written.
    pub fn forget(&self) -> std::io::Result<()> {
        known_hosts::forget(&self.known_hosts, &self.host_key_name())
    }

    /// What was written by a script that ended well is not what it was to write.
    pub fn unclear(&self) -> SshError {
        SshError::new(self, SshErrorKind::Unclear)
    }

    /// Who logs in where: `root@10.0.0.5`, with the port if that is not 22.
    pub fn login(&self) -> String {
        format!("{}@{}", self.user, self.host_key_name())
    }

    /// The name that the host key is kept under, also where `~/.ssh/config` says another.
    fn host_key_name(&self) -> String {
        let address = self.address.to_lowercase();
        if self.port == 22 { address } else { format!("[{address}]:{}", self.port) }
    }

    /// The command line for a script.
    fn command(&self, script: &Script) -> Command {
        let batch = ["-T", "-o", "BatchMode=yes"];
        Command::new("ssh")
            .args(batch)
            .args(self.options())
            .arg("--")
            .arg(&self.address)
            .arg(script.remote_command(&self.user))
            // ssh sends it along: messages there are in English.
            .env("LC_ALL", "C")
            .stdin(script.stdin())
            .timeout(script.time())
    }

    fn options(&self) -> Vec<OsString> {
        let settings = [
            "StrictHostKeyChecking=accept-new".to_owned(),
            format!("HostKeyAlias={}", self.host_key_name()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "CheckHostIP=no".to_owned(),
            "HashKnownHosts=no".to_owned(),
            "UpdateHostKeys=no".to_owned(),
            format!("ConnectTimeout={CONNECT_SECONDS}"),
            format!("ServerAliveInterval={ALIVE_SECONDS}"),
            format!("ServerAliveCountMax={ALIVE_COUNT}"),
            // A shared connection would outlive the command, with the process that holds it.
            "ControlMaster=no".to_owned(),
            "ControlPath=none".to_owned(),
            "ClearAllForwardings=yes".to_owned(),
            "PermitLocalCommand=no".to_owned(),
            "RemoteCommand=none".to_owned(),
            // What is less than that hides why a connection ended.
            "LogLevel=INFO".to_owned(),
        ];
        let mut options: Vec<OsString> = ["-a", "-x"].map(OsString::from).to_vec();
        options.extend(settings.into_iter().flat_map(|setting| [OsString::from("-o"), setting.into()]));
        options.extend(["-o".into(), setting_of_path("UserKnownHostsFile", &self.known_hosts)]);
        if let Some(key) = &self.key {
            options.extend(["-o".into(), "IdentitiesOnly=yes".into()]);
            options.extend(["-o".into(), setting_of_path("IdentityFile", key)]);
        }
        options.extend(["-p".into(), self.port.to_string().into(), "-l".into(), OsString::from(&self.user)]);
        options
    }
}

/// A setting that is a path: ssh splits at blanks, and has a meaning of its own for `%`.
fn setting_of_path(name: &str, path: &Path) -> OsString {
    format!("{name}=\"{}\"", path.display().to_string().replace('%', "%%")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> SshTarget {
        SshTarget {
            address: "Node1.example".to_owned(),
            port: 2222,
            user: "admin".to_owned(),
            key: Some(PathBuf::from("/state dir/100%/id_ed25519")),
            known_hosts: PathBuf::from("/state dir/known_hosts"),
        }
    }

    #[test]
    fn the_command_line_asks_nothing_and_offers_one_key() {
        let line = target().command(&Script::new("id").arg("it's").sudo(true)).to_string();
        let ending = r#"-l admin -- Node1.example 'sudo -n -- sh -s -- '\''it'\''\'\'''\''s'\'''"#;
        assert!(line.starts_with("ssh -T -o BatchMode=yes -a -x ") && line.ends_with(ending), "{line}");
        for part in [
            r#"'IdentityFile="/state dir/100%%/id_ed25519"'"#,
            r#"'UserKnownHostsFile="/state dir/known_hosts"'"#,
            "'HostKeyAlias=[node1.example]:2222'",
            "IdentitiesOnly=yes",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }

    #[test]
    fn a_person_gets_a_terminal_and_may_be_asked() {
        let ssh = target().interactive(&["uname".to_owned(), "-r".to_owned()]);
        let args: Vec<_> = ssh.get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert!(args.ends_with(&["--", "Node1.example", "uname", "-r"]), "{args:?}");
        assert!(!args.contains(&"-T") && !args.contains(&"BatchMode=yes"), "{args:?}");
    }
}
