//! What a compacted journal begins with.

use taskrun_engine::checkpoint::{Checkpoint, Record};

/// A record of a journal, as it stands there.
fn record(json: serde_json::Value) -> Record {
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_snapshot_gives_the_same_checkpoint_in_frames_of_bounded_size() {
    use serde_json::json;
    let at = "2026-01-01T00:00:00Z";
    let (boot_id, cookie, key) = ("0".repeat(32), "0".repeat(32), "0".repeat(32));
    let driver = json!({"pid": 1, "start_time": 1, "boot_id": boot_id});
    let mut checkpoint = Checkpoint::default();
    let started =
        json!({"run_started": {"run": 7, "at": at, "verb": "run", "request": {"until": ["a"]}, "driver": driver}});
    checkpoint.apply(record(started)).unwrap();
    for task in 0..2500 {
        let starting = json!({"starting": {"task": format!("t{task}"), "at": at, "verb": "run", "attempt": 1,
            "cookie": cookie, "reason": {"why": "never_run"}, "key": key, "parts": {"settings": task}}});
        checkpoint.apply(record(starting)).unwrap();
        if task % 3 > 0 {
            let outcome = json!({"outcome": if task % 3 == 1 { "succeeded" } else { "cancelled" }});
            let finished =
                json!({"finished": {"task": format!("t{task}"), "at": at, "outcome": outcome, "seconds": 0.5}});
            checkpoint.apply(record(finished)).unwrap();
        }
    }
    let payloads: Vec<Vec<u8>> = checkpoint.payloads().collect::<Result<_, _>>().unwrap();
    assert_eq!(payloads.len(), 3);
    let mut folded = Checkpoint::default();
    for payload in &payloads {
        let records: Vec<Record> = serde_json::from_slice(payload).unwrap();
        records.into_iter().for_each(|record| folded.apply(record).unwrap());
    }
    let again: Vec<Vec<u8>> = folded.payloads().collect::<Result<_, _>>().unwrap();
    assert!(again == payloads);
    assert_eq!(folded.tasks.len(), 2500);
    assert_eq!(folded.run.unwrap().started.run, 7);
}
