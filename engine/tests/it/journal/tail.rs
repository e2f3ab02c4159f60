//! Readers beside a writer.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use taskrun_engine::journal::{Lock, RealDisk, Seen, Tail, set_aside};

use super::{journal_in, open, write_journal};

/// What a reader was told: `=GENERATION` for a start, `SEQ PAYLOAD` for a frame.
fn poll(tail: &mut Tail) -> Vec<String> {
    let mut told = Vec::new();
    tail.poll(|seen| {
        told.push(match seen {
            Seen::Start(header) => format!("={}", header.generation),
            Seen::Frame { seq, payload } => format!("{seq} {}", String::from_utf8_lossy(payload)),
        });
        Ok(())
    })
    .unwrap();
    told
}

#[test]
fn tells_each_frame_once_and_starts_again_after_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut tail = Tail::new(dir.path());
    assert!(!tail.poll(|_| panic!("there is nothing")).unwrap());

    let (mut writer, _, _) = open(dir.path()).unwrap();
    assert_eq!(poll(&mut tail), ["=1"]);
    assert!(poll(&mut tail).is_empty());
    writer.append(b"a").unwrap();
    writer.append(b"b").unwrap();
    assert_eq!(poll(&mut tail), ["1 a", "2 b"]);
    writer.append(b"c").unwrap();
    assert_eq!(writer.compact([b"abc".to_vec()]).unwrap(), 4);
    assert_eq!(writer.append(b"d").unwrap(), 5);
    assert_eq!(poll(&mut tail), ["=2", "4 abc", "5 d"]);
    assert!(poll(&mut tail).is_empty());

    // Twice, so that the system may give the third file the inode of the first.
    writer.compact([b"abcd".to_vec()]).unwrap();
    writer.compact([b"abcd".to_vec()]).unwrap();
    assert_eq!(poll(&mut tail), ["=4", "7 abcd"]);
    drop(writer);

    set_aside(&Lock::acquire(dir.path(), "recover").unwrap(), &RealDisk).unwrap();
    assert!(!tail.poll(|_| panic!("there is nothing")).unwrap());
    open(dir.path()).unwrap();
    assert_eq!(poll(&mut tail), ["=1"]);
}

#[test]
fn an_unfinished_frame_is_not_yet_there() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, ends) = write_journal(dir.path(), &[b"a", b"a longer one", b"c"]);
    fs::write(journal_in(dir.path()), &whole[..ends[1]]).unwrap();
    let mut tail = Tail::new(dir.path());
    assert_eq!(poll(&mut tail), ["=1", "1 a"]);
    let mut file = OpenOptions::new().append(true).open(journal_in(dir.path())).unwrap();
    for at in ends[1]..whole.len() {
        let told = poll(&mut tail);
        let expected = (at == ends[2]).then(|| "2 a longer one".to_owned());
        assert_eq!(told, Vec::from_iter(expected), "at byte {at}");
        file.write_all(&whole[at..=at]).unwrap();
    }
    assert_eq!(poll(&mut tail), ["3 c"]);
}

#[test]
fn starts_again_when_a_frame_that_it_saw_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, ends) = write_journal(dir.path(), &[b"durable", b"not durable"]);
    let mut tail = Tail::new(dir.path());
    assert_eq!(poll(&mut tail).len(), 3);
    let file = OpenOptions::new().append(true).open(journal_in(dir.path())).unwrap();
    file.set_len(ends[1] as u64).unwrap();
    assert_eq!(poll(&mut tail), ["=1", "1 durable"]);

    // Cut, and another frame of the same length in its place.
    fs::write(journal_in(dir.path()), &whole).unwrap();
    assert_eq!(poll(&mut tail), ["2 not durable"]);
    file.set_len(ends[1] as u64).unwrap();
    open(dir.path()).unwrap().0.append(b"now durable").unwrap();
    assert_eq!(poll(&mut tail), ["=1", "1 durable", "2 now durable"]);
}

#[test]
fn damage_that_is_gone_at_the_second_look_was_a_writer_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, ends) = write_journal(dir.path(), &[b"a", b"b"]);
    let mut torn = whole.clone();
    torn[ends[0]] ^= 1;
    fs::write(journal_in(dir.path()), &torn).unwrap();

    let mut told = Vec::new();
    let outcome = Tail::new(dir.path()).poll(|seen| {
        match seen {
            Seen::Start(_) => fs::write(journal_in(dir.path()), &whole)?,
            Seen::Frame { seq, .. } => told.push(seq),
        }
        Ok(())
    });
    assert!(outcome.unwrap());
    assert_eq!(told, [1, 2]);
}

#[test]
fn a_reader_beside_a_writer_never_fails_and_never_goes_back() {
    const LAST: u64 = 800;
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, _) = open(dir.path()).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1..=LAST {
                // The payloads vary in length, from a few bytes to many pages.
                let text = format!("{number} {}", "x".repeat((number * 7919 % 40_000) as usize));
                writer.append(text.as_bytes()).unwrap();
                if number % 70 == 0 {
                    writer.compact([text.clone().into_bytes()]).unwrap();
                }
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(120);
                let (mut tail, mut latest, mut starts) = (Tail::new(dir.path()), 0, 0);
                while latest < LAST {
                    assert!(Instant::now() < deadline, "stuck at {latest}");
                    let (mut number, mut last_seq) = (latest, None);
                    tail.poll(|seen| {
                        match seen {
                            Seen::Start(_) => (number, last_seq, starts) = (0, None, starts + 1),
                            Seen::Frame { seq, payload } => {
                                assert!(last_seq.is_none_or(|last| seq == last + 1), "{last_seq:?}, then {seq}");
                                last_seq = Some(seq);
                                number = std::str::from_utf8(payload)?.split_once(' ').ok_or("no number")?.0.parse()?;
                            }
                        }
                        Ok(())
                    })
                    .unwrap();
                    assert!(number >= latest, "{latest}, then {number}");
                    latest = number;
                }
                assert!(starts > 1, "saw a compaction");
            });
        }
    });
}
