//! The file cut at every byte.

use std::fs;

use taskrun_engine::journal::{JournalError, Torn};

use super::{Frames, fast_dir, journal_in, open, read, write_journal};

const PAYLOADS: [&[u8]; 3] = [br#"[{"started":"CLOUD-3.2"}]"#, b"", br#"[{"finished":"CLOUD-3.2"},{"started":"a"}]"#];

#[test]
fn a_cut_loses_the_torn_frame_and_nothing_else() {
    for count in 0..=PAYLOADS.len() {
        let dir = fast_dir();
        let (whole, ends) = write_journal(dir.path(), &PAYLOADS[..count]);
        for cut in 0..=whole.len() {
            fs::write(journal_in(dir.path()), &whole[..cut]).unwrap();
            if cut < ends[0] {
                assert_damaged_header(dir.path(), &whole[..cut]);
                continue;
            }
            let survivors = ends.iter().filter(|end| **end <= cut).count() - 1;
            let boundary = ends[survivors];
            let mut expected: Frames =
                (1..).zip(PAYLOADS[..survivors].iter().map(|payload| payload.to_vec())).collect();
            assert_eq!(read(dir.path()).unwrap(), expected, "reader, cut at {cut}");
            assert_eq!(fs::read(journal_in(dir.path())).unwrap(), whole[..cut], "a reader changes nothing");

            let (mut writer, opened, frames) = open(dir.path()).unwrap();
            let torn = Torn { offset: boundary as u64, bytes: (cut - boundary) as u64 };
            assert_eq!(opened.torn, (cut > boundary).then_some(torn), "cut at {cut}");
            assert_eq!(frames, expected, "cut at {cut}");
            assert_eq!(fs::metadata(journal_in(dir.path())).unwrap().len(), boundary as u64);

            let seq = writer.append(b"after").unwrap();
            drop(writer);
            expected.push((survivors as u64 + 1, b"after".to_vec()));
            let (_, opened, frames) = open(dir.path()).unwrap();
            assert_eq!((seq, opened.torn, frames), (survivors as u64 + 1, None, expected), "cut at {cut}");
        }
    }
}

#[test]
fn any_length_of_zeros_behind_the_last_frame_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = write_journal(dir.path(), &PAYLOADS);
    for zeros in [1, 8, 31, 36, 5000] {
        let mut bytes = whole.clone();
        bytes.resize(whole.len() + zeros, 0);
        fs::write(journal_in(dir.path()), bytes).unwrap();
        let (_, opened, frames) = open(dir.path()).unwrap();
        assert_eq!(opened.torn, Some(Torn { offset: whole.len() as u64, bytes: zeros as u64 }));
        assert_eq!(frames.len(), PAYLOADS.len());
    }
}

fn assert_damaged_header(dir: &std::path::Path, content: &[u8]) {
    for error in [open(dir).map(|_| ()).unwrap_err(), read(dir).map(|_| ()).unwrap_err()] {
        assert!(matches!(error, JournalError::Damaged { offset: 0..16, .. }), "{error}");
    }
    assert_eq!(fs::read(journal_in(dir)).unwrap(), content, "a damaged file is left as it is");
}
