//! The power failing, or the disk, at every persistence point.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use taskrun_engine::journal::{JournalError, Lock, Seen, Tail, Writer};
use taskrun_engine::testing::{Fault, FaultyDisk, is_crash};

use super::{Frames, child, child_role, fast_dir, journal_in, open, open_on, read};

/// How many points a second run is crashed at.
const RECOVERY: usize = 8;

/// A run of a small machine: its state is a text, a frame `+x` appends to it and a frame `=x` replaces it.
struct Run {
    /// The state that is known to be recorded.
    acknowledged: String,
    /// The state that the frame in work leads to.
    intended: String,
}

impl Run {
    /// Folds the journal in `dir`, then goes on until the state is `abcdef`, compacting on the way.
    fn go(&mut self, dir: &Path, disk: &FaultyDisk) -> Result<(), JournalError> {
        let (mut writer, _, frames) = open_on(dir, Arc::new(disk.clone()))?;
        let recovered = fold(&frames);
        assert!([&self.acknowledged, &self.intended].contains(&&recovered), "recovered {recovered:?}");
        (self.acknowledged, self.intended) = (recovered.clone(), recovered);
        while let Some(next) = "abcdef".get(self.acknowledged.len()..).and_then(|rest| rest.chars().next()) {
            self.intended.push(next);
            writer.append(format!("+{next}").as_bytes())?;
            self.acknowledged.clone_from(&self.intended);
            if self.acknowledged.len().is_multiple_of(3) {
                writer.compact([format!("={}", self.acknowledged).into_bytes()])?;
            }
        }
        Ok(())
    }
}

fn fold(frames: &Frames) -> String {
    let mut state = String::new();
    for (index, (_, payload)) in frames.iter().enumerate() {
        match std::str::from_utf8(payload).unwrap().split_at(1) {
            ("+", text) => state.push_str(text),
            ("=", text) if index == 0 => state = text.to_owned(),
            frame => panic!("{frame:?} at {index}"),
        }
    }
    state
}

fn fresh_run() -> Run {
    Run { acknowledged: String::new(), intended: String::new() }
}

#[test]
fn a_crash_anywhere_and_another_in_the_recovery_lose_nothing() {
    let dir = fast_dir();
    let reliable = FaultyDisk::reliable();
    fresh_run().go(dir.path(), &reliable).unwrap();
    assert_eq!(fold(&read(dir.path()).unwrap()), "abcdef");

    for (point, fault) in matrix(0..reliable.points()) {
        // The recovery, its first frames and its compaction; what comes after is as in the first run.
        for (second_point, second) in matrix(0..RECOVERY) {
            let (dir, mut run) = (fast_dir(), fresh_run());
            let disk = FaultyDisk::with(point, fault);
            let error = run.go(dir.path(), &disk).unwrap_err();
            assert!(is_crash(&error), "{error}");
            let disk = disk.restarted(Some((second_point, second)));
            match run.go(dir.path(), &disk) {
                Err(error) => assert!(is_crash(&error), "{fault:?} at {point}: {error}"),
                Ok(()) => assert!(!disk.has_crashed()),
            }
            run.go(dir.path(), &disk.restarted(None)).unwrap();
            assert_eq!(run.acknowledged, "abcdef");
            assert_eq!(fold(&read(dir.path()).unwrap()), "abcdef", "{fault:?} at {point}, then {second:?}");
            assert!(!dir.path().join("journal.new").exists(), "{fault:?} at {point}, then {second:?}");
        }
    }
}

#[test]
fn a_journal_begins_with_its_snapshot_or_not_at_all() {
    let begin = |dir: &Path, disk: &FaultyDisk| {
        let lock = Arc::new(Lock::acquire(dir, "test").unwrap());
        Writer::begin(lock, Arc::new(disk.clone()), &super::identity(), [b"=abc".to_vec()])
            .map(|mut writer| writer.append(b"+d"))
    };
    let (dir, reliable) = (fast_dir(), FaultyDisk::reliable());
    assert_eq!(begin(dir.path(), &reliable).unwrap().unwrap(), 2);
    assert_eq!(fold(&read(dir.path()).unwrap()), "abcd");
    for (point, fault) in matrix(0..reliable.points()) {
        let dir = fast_dir();
        let disk = FaultyDisk::with(point, fault);
        let _ = begin(dir.path(), &disk);
        assert!(disk.has_crashed(), "{fault:?} at {point}");
        if journal_in(dir.path()).exists() {
            assert!(["abc", "abcd"].contains(&&*fold(&open(dir.path()).unwrap().2)), "{fault:?} at {point}");
        }
    }
}

#[test]
fn a_failing_disk_stops_the_writer_with_the_first_error() {
    let dir = fast_dir();
    let reliable = FaultyDisk::reliable();
    fresh_run().go(dir.path(), &reliable).unwrap();
    for (point, kind) in
        (0..reliable.points()).flat_map(|point| [(point, io::ErrorKind::StorageFull), (point, io::ErrorKind::Other)])
    {
        let dir = tempfile::tempdir().unwrap();
        let mut run = fresh_run();
        let error = run.go(dir.path(), &FaultyDisk::with(point, Fault::Error(kind))).unwrap_err();
        let JournalError::Io { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), kind);
        // What was refused is not recorded.
        run.intended.clone_from(&run.acknowledged);
        run.go(dir.path(), &FaultyDisk::reliable()).unwrap();
        assert_eq!(fold(&read(dir.path()).unwrap()), "abcdef", "{kind} at {point}");
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_written() {
    let dir = tempfile::tempdir().unwrap();
    // Open: remove, create, append, sync, rename, sync of the folder; then append and sync twice.
    let disk = FaultyDisk::with(9, Fault::Error(io::ErrorKind::StorageFull));
    let (mut writer, _, _) = open_on(dir.path(), Arc::new(disk.clone())).unwrap();
    assert_eq!(writer.append(b"+a").unwrap(), 1);
    let before = fs::read(journal_in(dir.path())).unwrap();
    let first = writer.append(b"+b").unwrap_err().to_string();
    assert_eq!(disk.points(), 11, "the append, its sync, and the cut");
    assert_eq!(fs::read(journal_in(dir.path())).unwrap(), before, "the frame that is not durable is cut off");
    assert_eq!(writer.append(b"+c").unwrap_err().to_string(), first);
    assert_eq!(writer.compact([b"=a".to_vec()]).unwrap_err().to_string(), first);
    assert_eq!(disk.points(), 11, "nothing was tried after it");
    assert_eq!(fs::read(journal_in(dir.path())).unwrap(), before);
}

#[test]
fn a_compaction_for_which_there_is_no_room_leaves_the_old_journal_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::with(9, Fault::Error(io::ErrorKind::StorageFull));
    let (mut writer, _, _) = open_on(dir.path(), Arc::new(disk)).unwrap();
    writer.append(b"+a").unwrap();
    writer.compact([b"=a".to_vec()]).unwrap_err();
    assert!(!dir.path().join("journal.new").exists());
    assert_eq!(writer.append(b"+b").unwrap(), 2);
    assert_eq!(writer.compact([b"=ab".to_vec()]).unwrap(), 3);
    assert_eq!(writer.header().generation, 2);
    drop(writer);
    assert_eq!(open(dir.path()).unwrap().2, [(3, b"=ab".to_vec())]);
}

#[test]
fn a_compaction_that_may_or_may_not_have_happened_stops_the_writer() {
    for point in [9, 10] {
        let dir = tempfile::tempdir().unwrap();
        // Open makes points 0 to 5; then create, append, sync, rename, sync of the folder.
        let disk = FaultyDisk::with(point, Fault::Error(io::ErrorKind::Other));
        let (mut writer, _, _) = open_on(dir.path(), Arc::new(disk)).unwrap();
        let first = writer.compact([b"=".to_vec()]).unwrap_err().to_string();
        assert_eq!(writer.append(b"+a").unwrap_err().to_string(), first);
        assert_eq!(writer.compact([b"=".to_vec()]).unwrap_err().to_string(), first);
    }
}

#[test]
fn a_full_tmpfs_stops_the_writer_and_space_lets_the_next_one_go_on() {
    let mount = r#"mount -t tmpfs -o size=64k tmpfs "$0" 2>&1 && exec "$@""#;
    let dir = tempfile::tempdir().unwrap();
    let within = |command: &mut Command| {
        let mut outer = Command::new("unshare");
        outer.args(["--map-root-user", "--mount", "sh", "-c", mount]).arg(dir.path()).arg(command.get_program());
        outer.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outer.output()
    };
    match within(&mut Command::new("true")) {
        Ok(output) if output.status.success() => {}
        reason => {
            #[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
            {
                eprintln!("SKIPPED: no tmpfs of one's own can be mounted here: {reason:?}");
            }
            return;
        }
    }
    let output = within(&mut child("journal::crash::child_that_fills_a_disk", "fill", dir.path())).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child found its test");
}

#[test]
#[ignore = "a child process of the test above"]
fn child_that_fills_a_disk() {
    let Some((_, dir)) = child_role() else { return };
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 16 << 10]).unwrap();
    let (mut writer, _, _) = open(&dir).unwrap();
    let mut acknowledged = Frames::new();
    let payload = vec![b'x'; 3000];
    let first = loop {
        match writer.append(&payload) {
            Ok(seq) => acknowledged.push((seq, payload.clone())),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 100, "the disk never fills");
    };
    let JournalError::Io { source, .. } = &first else { panic!("{first}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    fs::remove_file(ballast).unwrap();
    assert_eq!(writer.append(b"refused").unwrap_err().to_string(), first.to_string());
    assert!(writer.compact([b"refused".to_vec()]).is_err());
    drop(writer);

    let (mut writer, opened, frames) = open(&dir).unwrap();
    assert_eq!((opened.torn, &frames), (None, &acknowledged));
    assert_eq!(writer.append(b"goes on").unwrap(), acknowledged.len() as u64 + 1);
}

fn matrix(points: Range<usize>) -> impl Iterator<Item = (usize, Fault)> {
    points.flat_map(|point| Fault::CRASHES.map(|fault| (point, fault)))
}

#[test]
fn the_caller_may_stop_at_a_record_that_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, _) = open(dir.path()).unwrap();
    writer.append(b"known").unwrap();
    let offset = writer.size();
    writer.append(b"unknown").unwrap();
    drop(writer);

    let refuse = |payload: &[u8]| if payload == b"unknown" { Err("no such record".into()) } else { Ok(()) };
    let lock = Arc::new(Lock::acquire(dir.path(), "test").unwrap());
    let disk = Arc::new(taskrun_engine::journal::RealDisk);
    let opened = Writer::open(lock, disk, &super::identity(), |_, payload| refuse(payload));
    let seen = Tail::new(dir.path()).poll(|seen| match seen {
        Seen::Start(_) => Ok(()),
        Seen::Frame { payload, .. } => refuse(payload),
    });
    for error in [opened.map(|_| ()).unwrap_err(), seen.map(|_| ()).unwrap_err()] {
        assert!(error.hint().unwrap().contains("taskrun recover"));
        let JournalError::Record { seq, offset: at, source, .. } = error else { panic!("{error}") };
        assert_eq!((seq, at, source.to_string()), (2, offset, "no such record".to_owned()));
    }
}
