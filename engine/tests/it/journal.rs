//! The journal, on a real disk and on one that fails.

mod crash;
mod cut;
mod flip;
mod golden;
mod lock;
mod tail;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use taskrun_engine::journal::{
    BoxError, Disk, FILE_NAME, Identity, JournalError, Lock, Opened, RealDisk, Seen, Tail, Writer,
};
use tempfile::TempDir;

/// What a child process of a test is asked to do: `ROLE:FOLDER`.
const CHILD: &str = "TASKRUN_JOURNAL_TEST_CHILD";

/// The payloads of a journal, in order, with their sequence numbers.
type Frames = Vec<(u64, Vec<u8>)>;

fn identity() -> Identity {
    Identity { environment: "home".into(), platform: "local".into() }
}

/// A folder for a test that does not depend on a true disk, in memory where there is such a place.
fn fast_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn journal_in(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

fn open(dir: &Path) -> Result<(Writer, Opened, Frames), JournalError> {
    open_on(dir, Arc::new(RealDisk))
}

fn open_on(dir: &Path, disk: Arc<dyn Disk>) -> Result<(Writer, Opened, Frames), JournalError> {
    let lock = Arc::new(Lock::acquire(dir, "test").expect("nobody else has the folder"));
    let mut frames = Frames::new();
    let (writer, opened) = Writer::open(lock, disk, &identity(), collect(&mut frames))?;
    Ok((writer, opened, frames))
}

fn collect(frames: &mut Frames) -> impl FnMut(u64, &[u8]) -> Result<(), BoxError> {
    |seq, payload| {
        frames.push((seq, payload.to_vec()));
        Ok(())
    }
}

/// What a reader sees in `dir`.
fn read(dir: &Path) -> Result<Frames, JournalError> {
    let mut frames = Frames::new();
    Tail::new(dir).poll(|seen| {
        match seen {
            Seen::Start(_) => frames.clear(),
            Seen::Frame { seq, payload } => frames.push((seq, payload.to_vec())),
        }
        Ok(())
    })?;
    Ok(frames)
}

/// A new journal in `dir` with `payloads`; returns its bytes and where its header and each of its frames end.
fn write_journal(dir: &Path, payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
    let (mut writer, opened, _) = open(dir).unwrap();
    assert!(opened.created);
    let mut ends = vec![writer.size() as usize];
    for payload in payloads {
        writer.append(payload).unwrap();
        ends.push(writer.size() as usize);
    }
    (std::fs::read(journal_in(dir)).unwrap(), ends)
}

/// This test program again, as a child that runs only the ignored test `name`, in the part of `role`.
fn child(name: &str, role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture"]);
    command.env(CHILD, format!("{role}:{}", dir.display()));
    command
}

/// In a child: its role and folder.
fn child_role() -> Option<(String, PathBuf)> {
    let text = std::env::var(CHILD).ok()?;
    text.split_once(':').map(|(role, dir)| (role.to_owned(), dir.into()))
}
