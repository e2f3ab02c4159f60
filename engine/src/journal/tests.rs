//! Attacks on the journal.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::testing::{Fault, FaultyDisk, is_crash};

fn identity() -> Identity {
    Identity { environment: "test".to_owned(), platform: "none".to_owned() }
}

type Payloads = Vec<Vec<u8>>;

fn open_on(folder: &Path, disk: Arc<dyn Disk>) -> Result<(Writer, Opened, Payloads), JournalError> {
    let lock = Arc::new(Lock::acquire(folder, "test").unwrap());
    let mut seen = Vec::new();
    let (writer, opened) = Writer::open(lock, disk, &identity(), |_, payload| {
        seen.push(payload.to_vec());
        Ok(())
    })?;
    Ok((writer, opened, seen))
}

fn open(folder: &Path) -> Result<(Writer, Opened, Payloads), JournalError> {
    open_on(folder, Arc::new(RealDisk))
}

fn payloads(count: usize) -> Payloads {
    (0..count).map(|i| format!("[{{\"n\":{i},\"text\":\"{}\"}}]", "x".repeat(i * 7)).into_bytes()).collect()
}

/// The bytes of a journal that holds `payloads`, and where each frame begins.
fn journal_of(payloads: &Payloads) -> (Vec<u8>, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _, _) = open(folder.path()).unwrap();
    let mut starts = vec![writer.size()];
    for payload in payloads {
        writer.append(payload).unwrap();
        starts.push(writer.size());
    }
    drop(writer);
    (std::fs::read(folder.path().join(FILE_NAME)).unwrap(), starts)
}

fn put(folder: &Path, bytes: &[u8]) {
    std::fs::write(folder.join(FILE_NAME), bytes).unwrap();
}

#[test]
fn what_was_appended_is_read_back_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, opened, seen) = open(folder.path()).unwrap();
    assert_eq!((opened, seen), (Opened { created: true, torn: None }, vec![]));
    let all = payloads(5);
    for (i, payload) in all.iter().enumerate() {
        assert_eq!(writer.append(payload).unwrap(), i as u64 + 1, "counted from 1");
    }
    drop(writer);
    let (mut writer, opened, seen) = open(folder.path()).unwrap();
    assert_eq!((opened, seen), (Opened { created: false, torn: None }, all.clone()));
    writer.compact(b"[\"all of it\"]").unwrap();
    writer.append(b"[1]").unwrap();
    drop(writer);
    let (_, _, seen) = open(folder.path()).unwrap();
    assert_eq!(seen, [&b"[\"all of it\"]"[..], &b"[1]"[..]]);
}

#[test]
fn cut_at_every_byte_it_keeps_all_whole_frames() {
    let all = payloads(3);
    let (bytes, starts) = journal_of(&all);
    let folder = tempfile::tempdir().unwrap();
    for cut in 0..bytes.len() {
        put(folder.path(), &bytes[..cut]);
        let whole = starts.iter().filter(|start| **start <= cut as u64).count();
        match open(folder.path()) {
            Err(JournalError::Damaged { .. }) => assert_eq!(whole, 0, "only the head itself cannot be cut: {cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
            Ok((mut writer, opened, seen)) => {
                assert_eq!(seen, all[..whole - 1], "cut at {cut}");
                let clean = starts.contains(&(cut as u64));
                assert_eq!(opened.torn.is_some(), !clean, "cut at {cut}");
                writer.append(b"[\"after\"]").unwrap();
                drop(writer);
                let (_, opened, seen) = open(folder.path()).unwrap();
                assert_eq!((opened.torn, seen.len(), &seen[seen.len() - 1][..]), (None, whole, &b"[\"after\"]"[..]));
            }
        }
    }
}

#[test]
fn with_every_byte_flipped_it_never_tells_something_else() {
    let all = payloads(3);
    let (bytes, starts) = journal_of(&all);
    let last = starts[starts.len() - 2];
    let folder = tempfile::tempdir().unwrap();
    for at in 0..bytes.len() {
        for pattern in [0x01, 0x80, 0xff] {
            let mut flipped = bytes.clone();
            flipped[at] ^= pattern;
            put(folder.path(), &flipped);
            match open(folder.path()) {
                Ok((_, opened, seen)) => {
                    assert!(at as u64 >= last && opened.torn.is_some(), "byte {at} is before the last frame");
                    assert_eq!(seen, all[..all.len() - 1], "byte {at}");
                }
                Err(JournalError::Damaged { offset, .. }) => {
                    assert!(offset <= at as u64, "byte {at} lies before {offset}");
                    assert!((at as u64) < last, "byte {at}: the last frame is a torn tail");
                }
                Err(JournalError::TooNew { .. } | JournalError::Foreign { .. }) => assert!((at as u64) < starts[0]),
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn the_power_fails_at_every_point_and_nothing_acknowledged_is_lost() {
    let all = payloads(4);
    // What is acknowledged before the power fails; `Err` means it failed.
    let work = |folder: &Path, disk: FaultyDisk| -> (usize, Result<(), JournalError>) {
        let mut done = 0;
        let result = (|| {
            let (mut writer, _, _) = open_on(folder, Arc::new(disk))?;
            for payload in &all[..2] {
                writer.append(payload)?;
                done += 1;
            }
            writer.compact(&[&all[0][..], &all[1][..]].concat())?;
            for payload in &all[2..] {
                writer.append(payload)?;
                done += 1;
            }
            Ok(())
        })();
        (done, result)
    };
    let counted = tempfile::tempdir().unwrap();
    let reliable = FaultyDisk::reliable();
    work(counted.path(), reliable.clone()).1.unwrap();
    assert!(reliable.points() > 10, "there are points to fail at: {}", reliable.points());
    for point in 0..reliable.points() {
        for fault in Fault::CRASHES {
            let folder = tempfile::tempdir().unwrap();
            let (acknowledged, result) = work(folder.path(), FaultyDisk::with(point, fault));
            assert!(result.is_err_and(|error| is_crash(&error)), "point {point} of {}, {fault:?}", reliable.points());
            let (_, _, seen) = open(folder.path()).unwrap_or_else(|error| panic!("point {point}, {fault:?}: {error}"));
            let told = seen.concat();
            let whole: Vec<u8> = all.concat();
            assert!(whole.starts_with(&told), "point {point}, {fault:?}: it tells what was written");
            let least: usize = all[..acknowledged].iter().map(Vec::len).sum();
            assert!(told.len() >= least, "point {point}, {fault:?}: {acknowledged} were acknowledged");
        }
    }
}

#[test]
fn a_full_disk_fails_this_and_all_later_appends() {
    let folder = tempfile::tempdir().unwrap();
    let counting = FaultyDisk::reliable();
    drop(open_on(folder.path(), Arc::new(counting.clone())).unwrap());
    let fault = Fault::Error(std::io::ErrorKind::StorageFull);
    let again = tempfile::tempdir().unwrap();
    let (mut writer, _, _) = open_on(again.path(), Arc::new(FaultyDisk::with(counting.points(), fault))).unwrap();
    assert!(matches!(writer.append(b"[1]"), Err(JournalError::Io { .. })));
    assert!(
        matches!(writer.append(b"[2]"), Err(JournalError::Io { .. })),
        "there is room again, and it does not go on"
    );
    drop(writer);
    let (mut writer, _, seen) = open(again.path()).unwrap();
    assert!(seen.is_empty());
    writer.append(b"[3]").unwrap();
}

#[test]
fn a_reader_follows_a_writer_over_compactions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (mut writer, _, _) = open(&path).unwrap();
    let writing = std::thread::spawn(move || {
        for n in 1..=300_u32 {
            if n % 50 == 0 {
                writer.compact(n.to_string().as_bytes()).unwrap();
            } else {
                writer.append(n.to_string().as_bytes()).unwrap();
            }
        }
    });
    let (mut tail, mut last) = (Tail::new(&path), 0);
    while last < 300 {
        tail.poll(|seen| {
            if let Seen::Frame { payload, .. } = seen {
                let n: u32 = std::str::from_utf8(payload)?.parse()?;
                // A snapshot stands for all before it; nothing is left out in between.
                assert!(n == last + 1 || n.is_multiple_of(50) || n <= last, "{n} after {last}");
                last = n.max(last);
            }
            Ok(())
        })
        .unwrap();
    }
    writing.join().unwrap();
}

#[test]
fn a_second_lock_is_refused_by_name_and_a_stale_one_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let first = Lock::acquire(folder.path(), "taskrun run").unwrap();
    match Lock::acquire(folder.path(), "taskrun resume") {
        Err(LockError::Held { holder: Some(holder), .. }) => {
            assert_eq!((holder.pid, &*holder.command), (std::process::id(), "taskrun run"));
        }
        other => panic!("{other:?}"),
    }
    drop(first);
    assert!(Lock::acquire(folder.path(), "x").unwrap().predecessor().is_none(), "it was left in good order");
    std::fs::write(folder.path().join("lock"), "junk").unwrap();
    Lock::acquire(folder.path(), "x").unwrap();
}
