//! What can go wrong, from what ssh(1) writes.

use std::fmt;
use std::time::Duration;

use taskrun_engine::outcome::{FailedCommand, Failure, Persistence};
use taskrun_engine::process::{Command, CommandError};

use super::classify::classify;
use super::{Script, SshTarget};

/// Why something did not work on another machine.
#[derive(Debug, Clone)]
pub struct SshError {
    kind: SshErrorKind,
    target: Box<SshTarget>,
    command: Option<Box<FailedCommand>>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshErrorKind {
    /// Nobody listens on the port.
    Refused,
    /// There is no way to the address.
    NoRoute,
    /// No answer came: the machine is off, a firewall drops what is sent, or the server hangs.
    NoAnswer,
    /// The name has no address; `temporary` if the name server did not answer.
    UnknownName {
        /// Whether it may be known later.
        temporary: bool,
    },
    /// The connection ended before its time.
    Lost,
    /// The machine is starting and lets in nobody but root yet.
    Booting,
    /// The server does not accept the key, or none was offered.
    Denied,
    /// The server offered another host key than the one that is known.
    HostKeyChanged,
    /// The private key cannot be used, as ssh says.
    UnusableKey(String),
    /// Client and server have no algorithm in common, or the client's settings are wrong, as ssh says.
    Setup(String),
    /// sudo(8) wants a password, is missing, or forbids it, as it says.
    Sudo(String),
    /// The script ended badly: how.
    Script(String),
    /// What the script wrote is not what it was to write.
    Unclear,
    /// The script took longer than it may.
    TooLong,
    /// cloud-init ended with an error.
    CloudInit,
    /// The machine did not come up in time.
    NotUp {
        /// The time that it had.
        after: Duration,
        /// The last reason.
        why: String,
    },
    /// The run was interrupted.
    Cancelled,
    /// ssh(1) could not be run here: why.
    Local(String),
}

impl SshError {
    pub(super) fn new(target: &SshTarget, kind: SshErrorKind) -> Self {
        Self { kind, target: Box::new(target.clone()), command: None }
    }

    pub(super) fn of_failure(target: &SshTarget, script: &Script, failure: Failure) -> Self {
        if failure.persistence == Persistence::Cancelled {
            return Self::new(target, SshErrorKind::Cancelled);
        }
        let text = failure.to_string();
        let Some(command) = failure.command else { return Self::new(target, SshErrorKind::Local(text)) };
        let kind = if command.ended.starts_with("exit code") || command.ended.starts_with("signal") {
            classify(&command.ended, &command.tail, script.is_sudo())
        } else if failure.persistence == Persistence::Transient {
            SshErrorKind::TooLong
        } else {
            SshErrorKind::Local(text)
        };
        Self { kind, target: Box::new(target.clone()), command: Some(command) }
    }

    pub(super) fn of_command(target: &SshTarget, script: &Script, command: &Command, error: &CommandError) -> Self {
        let (kind, ended) = match error {
            CommandError::Failed { status, tail, .. } => {
                let ended = status.to_string();
                (classify(&ended, tail, script.is_sudo()), ended)
            }
            CommandError::TimedOut { after, .. } => (SshErrorKind::TooLong, format!("timed out after {after:?}")),
            CommandError::Cancelled { .. } => return Self::new(target, SshErrorKind::Cancelled),
            other => {
                let cause = std::error::Error::source(other).map(|source| format!(": {source}")).unwrap_or_default();
                return Self::new(target, SshErrorKind::Local(format!("{other}{cause}")));
            }
        };
        let tail = error.tail().unwrap_or_default().to_owned();
        let failed = FailedCommand { line: command.to_string(), ended, tail, log: None };
        Self { kind, target: Box::new(target.clone()), command: Some(Box::new(failed)) }
    }

    /// What went wrong.
    pub fn kind(&self) -> &SshErrorKind {
        &self.kind
    }

    /// The last lines that ssh or the script wrote to stderr.
    pub fn tail(&self) -> &str {
        self.command.as_ref().map_or("", |command| &command.tail)
    }

    /// Whether the same may work later.
    pub fn is_transient(&self) -> bool {
        self.persistence() == Persistence::Transient
    }

    /// The error of a task.
    pub fn into_failure(self) -> Failure {
        let failure = match self.kind {
            SshErrorKind::Cancelled => return Failure::cancelled(),
            _ => Failure::new(self.persistence(), self.to_string()),
        };
        let failure = match self.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        };
        match self.command {
            Some(command) => failure.with_command(*command),
            None => failure,
        }
    }

    /// What to try.
    pub fn hint(&self) -> Option<String> {
        let SshTarget { address, port, user, key, known_hosts } = &*self.target;
        let hint = match &self.kind {
            SshErrorKind::Refused => format!("start the SSH server there, or correct the port: is it {port}?"),
            SshErrorKind::NoRoute => "correct the address, or the route to it: ip route get ADDRESS".to_owned(),
            SshErrorKind::NoAnswer => {
                format!("see that {address} is up and that no firewall drops TCP port {port} from here")
            }
            SshErrorKind::UnknownName { .. } => {
                format!("correct the address, or let it be known: getent hosts {address}")
            }
            SshErrorKind::Lost | SshErrorKind::Booting => return None,
            SshErrorKind::Denied => {
                let key = key.as_ref().map(|key| format!("-i {} ", key.display())).unwrap_or_default();
                format!(
                    "let {user} in with it: ssh-copy-id {key}-p {port} {user}@{address}; one with a passphrase must be in ssh-agent"
                )
            }
            SshErrorKind::HostKeyChanged => format!(
                "if the machine was made anew, forget its old key: ssh-keygen -f {} -R '{}'; else find out who answers there",
                known_hosts.display(),
                self.target.host_key_name()
            ),
            SshErrorKind::UnusableKey(_) => match key {
                Some(key) => {
                    format!("see that it is a private key that only you can read: chmod 600 {}", key.display())
                }
                None => "see that it is a private key that only you can read".to_owned(),
            },
            SshErrorKind::Setup(_) => format!("try it by hand: ssh -v -p {port} {user}@{address}"),
            SshErrorKind::Sudo(_) => format!(
                "let {user} use sudo without a password there: \
                 echo '{user} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{user}"
            ),
            SshErrorKind::CloudInit => "read there what failed: /var/log/cloud-init.log".to_owned(),
            SshErrorKind::NotUp { .. } => "see what it does: its console, or the log of its start".to_owned(),
            SshErrorKind::Local(_) => "apt-get install openssh-client".to_owned(),
            SshErrorKind::Script(_) | SshErrorKind::Unclear | SshErrorKind::TooLong | SshErrorKind::Cancelled => {
                return None;
            }
        };
        Some(hint)
    }

    /// Why, without where.
    pub fn reason(&self) -> String {
        let of = |what: &str, said: &str| format!("{what}: {said}");
        match &self.kind {
            SshErrorKind::Refused => "the connection is refused".to_owned(),
            SshErrorKind::NoRoute => "there is no route to it".to_owned(),
            SshErrorKind::NoAnswer => "there is no answer".to_owned(),
            SshErrorKind::UnknownName { temporary: false } => "nobody knows this name".to_owned(),
            SshErrorKind::UnknownName { temporary: true } => "the name server does not answer".to_owned(),
            SshErrorKind::Lost => of("the connection ended", last_line(self.tail())),
            SshErrorKind::Booting => "it is still starting".to_owned(),
            SshErrorKind::Denied => format!("{} refuses {}", self.target.user, self.offered()),
            SshErrorKind::HostKeyChanged => "its host key is another than the one that is known".to_owned(),
            SshErrorKind::UnusableKey(said) => of("the private key cannot be used", said),
            SshErrorKind::Setup(said) => of("ssh cannot connect", said),
            SshErrorKind::Sudo(said) => of("sudo does not let us", said),
            SshErrorKind::Script(ended) => match last_line(self.tail()) {
                "" => ended.clone(),
                said => of(ended, said),
            },
            SshErrorKind::Unclear => "what it wrote is not understood".to_owned(),
            SshErrorKind::TooLong => "it took too long".to_owned(),
            SshErrorKind::CloudInit => "cloud-init ended with an error".to_owned(),
            SshErrorKind::NotUp { after, why } => format!("not within {after:?}: {why}"),
            SshErrorKind::Cancelled => "interrupted".to_owned(),
            SshErrorKind::Local(why) => why.clone(),
        }
    }

    fn offered(&self) -> String {
        match &self.target.key {
            Some(key) => format!("the key {}", key.display()),
            None => "the keys of the agent and of ~/.ssh".to_owned(),
        }
    }

    /// Whether it will not get better while a machine starts.
    pub(super) fn stays_while_starting(&self) -> bool {
        use SshErrorKind as Kind;
        matches!(
            self.kind,
            Kind::HostKeyChanged | Kind::UnusableKey(_) | Kind::Setup(_) | Kind::Cancelled | Kind::Local(_)
        )
    }

    fn persistence(&self) -> Persistence {
        use SshErrorKind as Kind;
        match self.kind {
            Kind::Refused | Kind::NoRoute | Kind::NoAnswer | Kind::Lost | Kind::Booting => Persistence::Transient,
            Kind::UnknownName { temporary: true } | Kind::TooLong | Kind::NotUp { .. } => Persistence::Transient,
            Kind::Cancelled => Persistence::Cancelled,
            _ => Persistence::Permanent,
        }
    }
}

impl fmt::Display for SshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            SshErrorKind::Script(_) | SshErrorKind::TooLong | SshErrorKind::Unclear | SshErrorKind::Sudo(_) => {
                "run a script as"
            }
            SshErrorKind::NotUp { .. } | SshErrorKind::CloudInit => "wait for",
            _ => "log in as",
        };
        write!(f, "{what} {}: {}", self.target.login(), self.reason())
    }
}

impl std::error::Error for SshError {}

fn last_line(text: &str) -> &str {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}
