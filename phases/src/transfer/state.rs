//! What a sync remembers in the state folder: a lock, the last manifest, and a journal of a sync under way.
//!
//! The journal is a list of JSON lines. It says what was sent and which uploads in parts were begun, so that a sync that
//! was killed goes on where it was. What it says is a claim: it counts where the store confirms it.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::TransferError;
use super::manifest::{Entries, Entry, Line, Manifest};

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Record {
    /// A file was sent.
    Sent(Line),
    /// An upload in parts was begun.
    Began { path: String, upload: String },
}

/// Names of uploads, by path.
type Uploads = BTreeMap<String, Vec<String>>;

/// The memory of a model's syncs, held by one sync at a time.
pub(super) struct State {
    folder: PathBuf,
    model: String,
    /// Made when there is something to write.
    journal: Mutex<Option<File>>,
    /// What the sync before sent in the end.
    pub(super) last: Entries,
    /// What a sync that was cut off sent.
    pub(super) sent: Entries,
    /// The uploads in parts that were begun, by path, the newest last.
    uploads: Mutex<Uploads>,
    /// It is locked for as long as it is open.
    _lock: File,
}

impl State {
    /// Takes the lock and reads what is remembered.
    pub(super) fn open(folder: &Path, model: &str) -> Result<Self, TransferError> {
        fs::create_dir_all(folder).map_err(|error| state_error(folder, error))?;
        let lock = lock(folder, model)?;
        let path = folder.join(format!("{model}.journal"));
        let text = read(&path)?.unwrap_or_default();
        let (mut sent, mut uploads, mut whole) = (Entries::new(), Uploads::new(), 0);
        // A line that was cut off by a kill is the last one, and ends the list.
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if !line.ends_with(b"\n") {
                break;
            }
            match serde_json::from_slice(line) {
                Ok(Record::Sent(line)) => sent.extend([line.split()]),
                Ok(Record::Began { path, upload }) => uploads.entry(path).or_default().push(upload),
                Err(_) => break,
            }
            whole += line.len();
        }
        if whole < text.len() {
            let cut = || File::options().write(true).open(&path)?.set_len(whole as u64);
            cut().map_err(|error| state_error(&path, error))?;
        }
        let last = read(&folder.join(Manifest::key(model)))?;
        // A copy that cannot be read is made anew.
        let last = last.and_then(|json| Manifest::from_json(&json).ok()).map(|last| last.files).unwrap_or_default();
        Ok(Self {
            folder: folder.to_owned(),
            model: model.to_owned(),
            journal: Mutex::default(),
            last,
            sent,
            uploads: uploads.into(),
            _lock: lock,
        })
    }

    /// Remembers that a file was sent.
    pub(super) fn sent(&self, path: &str, entry: &Entry) -> Result<(), TransferError> {
        self.append(&Record::Sent(Line::new(path.to_owned(), entry.clone())), false)
    }

    /// Remembers that an upload in parts was begun; it outlasts a power failure.
    pub(super) fn began(&self, path: &str, upload: &str) -> Result<(), TransferError> {
        self.append(&Record::Began { path: path.to_owned(), upload: upload.to_owned() }, true)?;
        self.uploads_locked().entry(path.to_owned()).or_default().push(upload.to_owned());
        Ok(())
    }

    /// The uploads of a file that were begun, the newest last.
    pub(super) fn uploads_of(&self, path: &str) -> Vec<String> {
        self.uploads_locked().get(path).cloned().unwrap_or_default()
    }

    /// All uploads that were begun, by path.
    pub(super) fn uploads(&self) -> Uploads {
        self.uploads_locked().clone()
    }

    fn uploads_locked(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, record: &Record, durable: bool) -> Result<(), TransferError> {
        let failed = |error| state_error(&self.journal_path(), error);
        let mut line = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let journal = match &mut *journal {
            Some(journal) => journal,
            none => none.insert(File::options().create(true).append(true).open(self.journal_path()).map_err(failed)?),
        };
        journal.write_all(&line).map_err(failed)?;
        if durable { journal.sync_data().map_err(failed) } else { Ok(()) }
    }

    /// Keeps the manifest in place of the journal.
    pub(super) fn finish(&self, json: &[u8]) -> Result<(), TransferError> {
        self.remember(json)?;
        remove(&self.journal_path())
    }

    /// Keeps a manifest.
    pub(super) fn remember(&self, json: &[u8]) -> Result<(), TransferError> {
        let path = self.folder.join(Manifest::key(&self.model));
        let new = self.folder.join(format!("{}.manifest.new", self.model));
        let written = || {
            let mut file = File::create(&new)?;
            file.write_all(json)?;
            file.sync_data()?;
            fs::rename(&new, &path)
        };
        written().map_err(|error| state_error(&path, error))
    }

    /// Forgets everything of the model.
    pub(super) fn forget(self) -> Result<(), TransferError> {
        for name in
            [Manifest::key(&self.model), format!("{}.manifest.new", self.model), format!("{}.journal", self.model)]
        {
            remove(&self.folder.join(name))?;
        }
        remove(&lock_path(&self.folder, &self.model))
    }

    fn journal_path(&self) -> PathBuf {
        self.folder.join(format!("{}.journal", self.model))
    }
}

fn lock_path(folder: &Path, model: &str) -> PathBuf {
    folder.join(format!("{model}.lock"))
}

fn lock(folder: &Path, model: &str) -> Result<File, TransferError> {
    let path = lock_path(folder, model);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| state_error(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TransferError::Locked { model: model.to_owned() }),
        Err(TryLockError::Error(error)) => Err(state_error(&path, error)),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, TransferError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(state_error(path, error)),
    }
}

fn remove(path: &Path) -> Result<(), TransferError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(state_error(path, error)),
        _ => Ok(()),
    }
}

fn state_error(path: &Path, source: io::Error) -> TransferError {
    TransferError::State { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(etag: &str) -> Entry {
        Entry { size: 1, mtime: jiff::Timestamp::UNIX_EPOCH, sha256: "00".to_owned(), etag: etag.to_owned() }
    }

    #[test]
    fn what_was_sent_and_begun_is_remembered_up_to_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), "m").unwrap();
        state.sent("a", &entry("old")).unwrap();
        state.sent("a", &entry("new")).unwrap();
        state.began("b", "first").unwrap();
        state.began("b", "second").unwrap();
        let path = state.journal_path();
        drop(state);
        let whole = fs::read(&path).unwrap();
        for torn in [&b"{\"sent\":{\"path\":\"c\""[..], b"{\"began\":{\"path\":\"c\",\"upload\":\"third\"}}", b"\0\0\0"]
        {
            fs::write(&path, [&whole, torn].concat()).unwrap();
            let state = State::open(folder.path(), "m").unwrap();
            assert_eq!(state.sent, Entries::from([("a".to_owned(), entry("new"))]));
            assert_eq!(state.uploads_of("b"), ["first", "second"]);
            assert_eq!(fs::read(&path).unwrap(), whole, "what is torn is cut off");
        }
    }

    #[test]
    fn the_manifest_takes_the_place_of_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), "m").unwrap();
        state.sent("a", &entry("e")).unwrap();
        let manifest = Manifest { model: "m".to_owned(), files: [("a".to_owned(), entry("e"))].into() };
        state.finish(&manifest.to_json().unwrap()).unwrap();
        drop(state);
        let state = State::open(folder.path(), "m").unwrap();
        assert!(state.sent.is_empty() && state.last == manifest.files);
        state.forget().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_one_sync_of_a_model_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), "m").unwrap();
        assert!(matches!(State::open(folder.path(), "m"), Err(TransferError::Locked { .. })));
        State::open(folder.path(), "other").unwrap();
        drop(state);
        State::open(folder.path(), "m").unwrap();
    }
}
