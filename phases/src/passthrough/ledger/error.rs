//! What can go wrong with the ledger, and what to try.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taskrun_engine::journal::Holder;
use taskrun_engine::outcome::{Failure, Persistence};

use super::claims::{Owned, Owner};

/// What went wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Others own the devices.
    #[error("{}", conflict(held))]
    Conflict {
        /// The devices, each with its owner.
        held: Vec<Owned>,
    },
    /// The machine was started, but others own its devices by now: the ledger was begun anew in between.
    #[error("{node} was started with devices that others own by now: {}", conflict(held))]
    Lost {
        /// The node.
        node: String,
        /// The devices, each with its owner.
        held: Vec<Owned>,
    },
    /// Another process had the ledger all the time.
    #[error("the device ledger in {} was locked for {waited:?}, by {}", folder.display(), holder_words(holder.as_deref()))]
    Busy {
        /// The ledger's folder.
        folder: PathBuf,
        /// The process, if it is known.
        holder: Option<Box<Holder>>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The file is not as it was written.
    #[error("the device ledger {} is damaged: {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and at which line and column.
        found: String,
    },
    /// The file is from a newer program.
    #[error("the device ledger {} has version {found}, and this program reads up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no place for the ledger.
    #[error("find a folder for the device ledger: HOME is not set")]
    NoFolder,
    /// The kernel does not tell who this process is.
    #[error("find out who this process is")]
    Myself(#[source] io::Error),
}

impl LedgerError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// What to try.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Conflict { held } => free(held),
            Self::Lost { node, .. } => format!("stop it, then start it again: taskrun vm restart {node}"),
            Self::Busy { holder: Some(holder), .. } => {
                format!("see what process {} does; the lock ends with it", holder.process.pid)
            }
            Self::Busy { folder, holder: None, .. } => {
                format!("see who has it open: fuser -v {}", folder.join("lock").display())
            }
            Self::Damaged { path, .. } => format!(
                "see which machines run and with which devices (virsh list), then set the file aside to begin anew: \
                 mv {} {}.damaged",
                path.display(),
                path.display()
            ),
            Self::Newer { .. } => "use the newer taskrun that wrote it".to_owned(),
            Self::Disk { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room on that disk; the ledger is as it was".to_owned()
            }
            Self::Disk { what: "make", source, path } if is_denied(source) => {
                format!("let it be made as root: install -d -g libvirt -m 2775 {}", path.display())
            }
            Self::Disk { source, path, .. } if is_denied(source) => {
                let folder = path.parent().unwrap_or(path).display();
                format!(
                    "run as root, or let the group that may use libvirt write there: \
                     chgrp -R libvirt {folder} && chmod -R g+w {folder} && chmod g+s {folder}"
                )
            }
            Self::NoFolder => format!("set {}", super::FOLDER_VARIABLE),
            Self::Disk { .. } | Self::Myself(_) => return None,
        })
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
        let failure = match std::error::Error::source(&error) {
            Some(source) => Self::caused(persistence, error.to_string(), source),
            None => Self::new(persistence, error.to_string()),
        };
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

/// Says what the disk said no to.
pub(super) fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::Disk { what, path, source }
}

/// Who has which devices: those of one owner together.
fn conflict(held: &[Owned]) -> String {
    let same = |one: &Owned, other: &Owned| (&one.owner, one.starting) == (&other.owner, other.starting);
    let told = held.chunk_by(same).filter_map(|group| {
        let Owned { owner, starting, .. } = group.first()?;
        let devices: Vec<String> = group.iter().map(|owned| owned.device.to_string()).collect();
        let (verb, by) = match (starting, devices.len()) {
            (None, 1) => ("belongs", String::new()),
            (None, _) => ("belong", String::new()),
            (Some(starter), 1) => ("is being given", format!(", by process {starter}")),
            (Some(starter), _) => ("are being given", format!(", by process {starter}")),
        };
        let Owner { environment, cluster, node, since, .. } = owner;
        let (devices, since) = (devices.join(" and "), when(*since));
        let text =
            format!("{devices} {verb} to {node} of cluster {cluster} in environment {environment} since {since}");
        Some(text + &by)
    });
    told.collect::<Vec<_>>().join("; ")
}

/// How the devices are freed.
fn free(held: &[Owned]) -> String {
    if let Some(starter) = held.iter().find_map(|owned| owned.starting) {
        return format!("wait until process {starter} has started it or given up");
    }
    let mut commands: Vec<String> = held.iter().map(|owned| owned.owner.stop_command()).collect();
    commands.dedup();
    format!("stop the owner first: {}", commands.join(" && "))
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// A time, to the second.
pub(crate) fn when(time: jiff::Timestamp) -> String {
    time.strftime("%FT%TZ").to_string()
}

fn holder_words(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("process {} (`{}`, since {})", holder.process.pid, holder.command, holder.since),
        None => "a process that has not given its name".to_owned(),
    }
}
