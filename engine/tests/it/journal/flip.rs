//! Every byte flipped, and what to do about a damaged file.

use std::fs;

use taskrun_engine::journal::{JournalError, Lock, RealDisk, Torn, set_aside};

use super::{Frames, fast_dir, journal_in, open, read, write_journal};

const PAYLOADS: [&[u8]; 3] =
    [br#"[{"started":"CLOUD-3.2"}]"#, br#"[1]"#, br#"[{"finished":"CLOUD-3.2"},{"started":"a"}]"#];
/// Each single bit, several at once, all.
const PATTERNS: [u8; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 0x0F, 0xAA, 0xFF];

#[test]
fn a_flip_is_damage_or_a_torn_last_frame() {
    for count in 0..=PAYLOADS.len() {
        let dir = fast_dir();
        let (whole, ends) = write_journal(dir.path(), &PAYLOADS[..count]);
        for (at, pattern) in (0..whole.len()).flat_map(|at| PATTERNS.map(|pattern| (at, pattern))) {
            let mut bytes = whole.clone();
            bytes[at] ^= pattern;
            fs::write(journal_in(dir.path()), &bytes).unwrap();
            let (seen, opened) = (read(dir.path()), open(dir.path()));
            // The part that holds the byte: 0 is the file header, then come the frames.
            let part = ends.iter().filter(|end| **end <= at).count();
            if part > 0 && part == count {
                let intact: Frames = (1..).zip(PAYLOADS[..part - 1].iter().map(|payload| payload.to_vec())).collect();
                let offset = ends[part - 1];
                let torn = Torn { offset: offset as u64, bytes: (whole.len() - offset) as u64 };
                let (_, opened, frames) = opened.unwrap();
                assert_eq!(seen.unwrap(), intact, "byte {at} ^ {pattern:#x}");
                assert_eq!((opened.torn, frames), (Some(torn), intact), "byte {at} ^ {pattern:#x}");
                continue;
            }
            for error in [opened.map(|_| ()).unwrap_err(), seen.map(|_| ()).unwrap_err()] {
                let JournalError::Damaged { offset, .. } = error else {
                    panic!("byte {at} ^ {pattern:#x}: {error}");
                };
                let place = if part == 0 { 0..ends[0] as u64 } else { ends[part - 1] as u64..ends[part] as u64 };
                assert!(place.contains(&offset), "byte {at} ^ {pattern:#x}: reported at {offset}");
            }
            assert_eq!(fs::read(journal_in(dir.path())).unwrap(), bytes, "a damaged file is left as it is");
        }
    }
}

#[test]
fn a_damaged_journal_is_set_aside_only_when_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bytes, ends) = write_journal(dir.path(), &PAYLOADS);
    bytes[ends[1] + 3] ^= 0x20;
    fs::write(journal_in(dir.path()), &bytes).unwrap();

    let error = open(dir.path()).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is damaged at byte {}: expected frame 2 with an intact header",
            journal_in(dir.path()).display(),
            ends[1]
        )
    );
    assert!(error.hint().unwrap().contains("taskrun recover"));

    let lock = Lock::acquire(dir.path(), "recover").unwrap();
    let aside = set_aside(&lock, &RealDisk).unwrap();
    drop(lock);
    assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("journal.damaged-2"));
    assert_eq!(fs::read(aside).unwrap(), bytes);
    let (_, opened, frames) = open(dir.path()).unwrap();
    assert!(opened.created && frames.is_empty());
}
