//! The ledger: which virtual machine of this host owns which of its devices.
//!
//! One folder serves all environments and clusters of the host. In it are a lock, held for the milliseconds of a
//! change, and one file, replaced as a whole. What is promised:
//!
//! - **No device has two owners**, whoever asks at the same time: `tests::twenty_starters_have_one_winner`,
//!   `tests::processes::twenty_processes_have_one_winner`, `claims::tests::no_device_ever_has_two_owners`.
//! - **A crash at any point leaves the old or the new state**: `tests::power_lost_at_any_point`,
//!   `tests::processes::killed_anywhere_it_can_be_read`, `tests::processes::a_full_disk_leaves_the_old_state`.
//! - **All or nothing**: a request for several devices takes none if it cannot take all; what could not be started gives
//!   back what it took, and nothing else: `claims::tests`.
//! - **A machine that died out of our sight is noticed**, and one that is just being started is not taken for dead:
//!   `tests::a_machine_that_died_is_noticed`, `tests::what_is_being_started_is_not_taken_for_dead`.
//! - **A damaged file is reported, never guessed at**: `tests::a_file_cut_anywhere_is_reported_and_kept`.
//!
//! Who stops and who starts one and the same machine holds the lock of its environment; the ledger keeps different
//! machines apart.

mod alive;
mod claim;
mod claims;
mod error;
mod file;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};
use taskrun_engine::journal::{Disk, Lock, LockError, RealDisk};
use taskrun_engine::process::{BootId, ProcessId};
use taskrun_engine::task::Problem;

pub use self::alive::{identity, seen_by, users};
pub use self::claim::Claim;
pub use self::claims::{Alive, Owned, Owner, OwnerName};
pub use self::error::LedgerError;
pub(crate) use self::error::when;

use self::claims::Claims;
use self::error::disk;
use crate::cluster::PciAddress;

/// The variable that names another folder for the ledger.
pub const FOLDER_VARIABLE: &str = "TASKRUN_DEVICES_DIR";
/// The folder of the ledger of a host.
const HOST_FOLDER: &str = "/var/lib/taskrun/devices";
/// How long another process may have the lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ledger in a folder.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
    patience: Duration,
    disk: Arc<dyn Disk>,
}

/// What a reconciliation found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// What was freed, because its machine does not run any more.
    pub freed: Vec<Owned>,
    /// What may be free, but nobody here can say.
    pub unclear: Vec<Owned>,
}

impl Ledger {
    /// The ledger of this host: in the folder that [`FOLDER_VARIABLE`] names, else in `/var/lib/taskrun/devices`. Who is
    /// not root takes that one if it is there, because devices are the host's; else `$XDG_STATE_HOME/taskrun/devices`.
    ///
    /// # Errors
    /// [`LedgerError::NoFolder`].
    pub fn of_host() -> Result<Self, LedgerError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = nix::unistd::geteuid().is_root();
        let folder = folder(variable, root, Path::new(HOST_FOLDER)).ok_or(LedgerError::NoFolder)?;
        Ok(Self::at(folder))
    }

    /// The ledger in `folder`, which is made when something is claimed.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), patience: PATIENCE, disk: Arc::new(RealDisk) }
    }

    /// Waits this long for others who change the ledger, instead of ten seconds.
    #[must_use]
    pub fn waiting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives all of `devices` to `owner`, or none. What it owns already is no error; each start claims.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`], [`LedgerError::Busy`], or the ledger cannot be read or written.
    pub fn claim(&self, owner: &Owner, devices: &[PciAddress]) -> Result<Claim, LedgerError> {
        let new = |taken| Claim::new(self.clone(), devices, &owner.node, taken);
        if devices.is_empty() {
            return Ok(new(None));
        }
        let by = ProcessId::current().map_err(LedgerError::Myself)?;
        let taken = self.change(|claims| claims.claim(owner, by, devices, ProcessId::is_alive))?;
        taken.map(|taken| new(Some(taken))).map_err(|held| LedgerError::Conflict { held })
    }

    /// Gives free what the machine of the domain `domain_uuid` owns, which is off; returns what that was. That it owns
    /// nothing is no error. What another process is starting just now stays.
    ///
    /// The caller sees to it that nobody starts the same machine meanwhile. Where it cannot, a
    /// [reconcile](Self::reconcile) after the stop does the same, and looks first.
    ///
    /// # Errors
    /// As [`claim`](Self::claim), without conflicts.
    pub fn release(&self, domain_uuid: &str) -> Result<Vec<PciAddress>, LedgerError> {
        if !self.owners()?.iter().any(|owned| owned.owner.domain_uuid == domain_uuid) {
            return Ok(Vec::new());
        }
        let by = ProcessId::current().map_err(LedgerError::Myself)?;
        self.change(|claims| claims.release(domain_uuid, by, ProcessId::is_alive))
    }

    /// Frees what machines own that do not run any more, and what was claimed for one by a process that was killed
    /// before it could start it. `alive` is asked once for each machine, and must look after it was asked.
    ///
    /// # Errors
    /// As [`claim`](Self::claim), without conflicts.
    pub fn reconcile(&self, alive: impl Fn(&Owner) -> Alive) -> Result<Reconciled, LedgerError> {
        let boot_id = BootId::current().map_err(LedgerError::Myself)?;
        // Looking may take long: others are not kept waiting. What they change meanwhile is not touched.
        let seen = file::read(&self.folder)?.settled(ProcessId::is_alive);
        let owned = seen.owned();
        let mut told: BTreeMap<&str, Alive> = BTreeMap::new();
        for Owned { owner, .. } in &owned {
            told.entry(&owner.domain_uuid).or_insert_with(|| alive(owner));
        }
        let told = |owner: &Owner| told.get(&*owner.domain_uuid).copied().unwrap_or(Alive::CannotTell);
        let unclear = owned.iter().filter(|owned| told(&owned.owner) == Alive::CannotTell).cloned().collect();
        let mut expected = seen.clone();
        let _ = expected.settle(&seen, told, boot_id);
        let freed = match expected == seen {
            true => Vec::new(),
            false => self.change(|claims| claims.settle(&seen, told, boot_id))?,
        };
        Ok(Reconciled { freed, unclear })
    }

    /// All devices that have an owner, by address. Waits for nobody.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn owners(&self) -> Result<Vec<Owned>, LedgerError> {
        Ok(file::read(&self.folder)?.owned())
    }

    /// Gives a damaged file another name, which is returned, so that the ledger begins anew: no machine owns anything
    /// then, also none that runs. Does nothing if the file is sound.
    ///
    /// # Errors
    /// As [`claim`](Self::claim), without conflicts.
    pub fn set_aside(&self) -> Result<Option<PathBuf>, LedgerError> {
        let _lock = self.lock()?;
        match file::read(&self.folder) {
            Ok(_) => Ok(None),
            Err(LedgerError::Damaged { .. }) => file::set_aside(&*self.disk, &self.folder).map(Some),
            Err(error) => Err(error),
        }
    }

    /// What stands in the way of using it, if something does; changes nothing.
    pub fn problem(&self) -> Option<Problem> {
        let there = self.folder.ancestors().find(|folder| folder.exists()).unwrap_or(&self.folder);
        let refused = |errno: nix::errno::Errno| match there == self.folder {
            true => disk("write", &file::path(&self.folder))(errno.into()),
            false => disk("make", &self.folder)(errno.into()),
        };
        let read = self.owners().map(drop);
        let error = read.and_then(|()| access(there, AccessFlags::W_OK).map_err(refused)).err()?;
        let message = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Some(Problem { message, hint: error.hint() })
    }

    /// Changes the claims while nobody else does.
    fn change<T>(&self, change: impl FnOnce(&mut Claims) -> T) -> Result<T, LedgerError> {
        let _lock = self.lock()?;
        let before = file::read(&self.folder)?;
        let mut claims = before.clone();
        let result = change(&mut claims);
        if claims != before {
            file::write(&*self.disk, &self.folder, &claims)?;
        }
        Ok(result)
    }

    fn lock(&self) -> Result<Lock, LedgerError> {
        prepare(&self.folder)?;
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let start = Instant::now();
        loop {
            match Lock::acquire(&self.folder, &command) {
                Ok(lock) => return Ok(lock),
                Err(LockError::Io { path, source }) => return Err(LedgerError::Disk { what: "lock", path, source }),
                Err(LockError::Held { holder, .. }) if start.elapsed() >= self.patience => {
                    return Err(LedgerError::Busy { folder: self.folder.clone(), holder, waited: self.patience });
                }
                Err(LockError::Held { .. }) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Reconciled {
    /// What was found, in a sentence for each device.
    pub fn notices(&self) -> Vec<String> {
        let named = |owner: &Owner| format!("{} (environment {})", owner.node, owner.environment);
        let boot_id = BootId::current().ok();
        let freed = self.freed.iter().map(|Owned { device, owner, .. }| {
            let why = match boot_id.is_none_or(|boot_id| boot_id == owner.boot_id) {
                true => "does not run any more",
                false => "does not run since this host was started anew",
            };
            format!("{device} is free again: {} {why}", named(owner))
        });
        let unclear = self.unclear.iter().map(|Owned { device, owner, .. }| {
            let hypervisor = &owner.hypervisor;
            format!("{device} stays with {}: whether that runs, only {hypervisor} can say", named(owner))
        });
        freed.chain(unclear).collect()
    }
}

/// Where the ledger is.
fn folder(variable: impl Fn(&'static str) -> Option<PathBuf>, root: bool, host: &Path) -> Option<PathBuf> {
    if let Some(folder) = variable(FOLDER_VARIABLE) {
        return Some(folder);
    }
    if root || host.exists() {
        return Some(host.to_owned());
    }
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    state.map(|state| state.join("taskrun/devices"))
}

/// Makes the folder. Where its group may write, the lock is the group's, too; the other file is made anew by each.
fn prepare(folder: &Path) -> Result<(), LedgerError> {
    fs::create_dir_all(folder).map_err(disk("make", folder))?;
    let mode = fs::metadata(folder).map_err(disk("look at", folder))?.permissions().mode();
    let lock = folder.join("lock");
    if mode & 0o020 == 0 || lock.exists() {
        return Ok(());
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o660).open(&lock) {
        // The umask does not hold for this.
        Ok(file) => file.set_permissions(fs::Permissions::from_mode(0o664)).map_err(disk("open up", &lock)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(disk("make", &lock)(error)),
    }
}
