//! Journals of each format version, as files. They are never rewritten: what a version once wrote stays readable.

use std::fs;
use std::path::PathBuf;

use taskrun_engine::journal::{Seen, Tail};

use super::{journal_in, open};

#[test]
fn version_1_is_read_and_continued() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/journal.v1");
    let dir = tempfile::tempdir().unwrap();
    fs::copy(golden, journal_in(dir.path())).unwrap();

    let mut header = None;
    Tail::new(dir.path())
        .poll(|seen| {
            if let Seen::Start(start) = seen {
                header = Some(start.clone());
            }
            Ok(())
        })
        .unwrap();
    let header = header.unwrap();
    assert_eq!((header.generation, header.first, header.created.as_str()), (2, 3, "2026-11-23T22:00:00Z"));

    let (mut writer, opened, frames) = open(dir.path()).unwrap();
    assert_eq!(opened.torn, None);
    let expected: [(u64, &[u8]); 3] =
        [(3, br#"[{"snapshot":{}}]"#), (4, b""), (5, br#"[{"started":"CLOUD-3.2"},{"started":"CLOUD-3.1"}]"#)];
    assert_eq!(frames, expected.map(|(seq, payload)| (seq, payload.to_vec())));
    assert_eq!(writer.append(b"[]").unwrap(), 6);
}
