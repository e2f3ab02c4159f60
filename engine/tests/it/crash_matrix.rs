//! The program ends at every persistence point of a run; a new one goes on, and ends as an undisturbed run would.

use taskrun_engine::checkpoint::Status;
use taskrun_engine::process::Cancel;
use taskrun_engine::run::Options;

use crate::stand::{JournalFault, Stand};

/// Graphs of several shapes, by their needs.
const SHAPES: [(&str, &[(&str, &str)]); 5] = [
    ("chain", &[("a", ""), ("b", "a"), ("c", "b"), ("d", "c")]),
    ("fork-join", &[("a", ""), ("b", "a"), ("c", "a"), ("d", "a"), ("e", "b, c, d")]),
    ("diamonds", &[("a", ""), ("b", "a"), ("c", "a"), ("d", "b, c"), ("e", "d"), ("f", "d"), ("g", "e, f")]),
    ("independent", &[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", ""), ("f", "")]),
    ("crossed", &[("a", ""), ("b", ""), ("c", "a, b"), ("d", "a"), ("e", "c, d"), ("f", "b")]),
];

fn yaml(tasks: &[(&str, &str)]) -> String {
    let tasks = tasks.iter().map(|(id, needs)| {
        format!("  {id}: {{uses: counting, needs: [{needs}], retries: {{count: 2, backoff: 1ms}}}}\n")
    });
    format!("version: 1\ntasks:\n{}", tasks.collect::<String>())
}

fn options() -> Options {
    Options { jobs: 3, keep_going: false, disruptive: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_at_every_persistence_point_it_finishes_the_job() {
    for (shape, tasks) in SHAPES {
        let folder = tempfile::tempdir().unwrap();
        let mut undisturbed = Stand::new(folder.path(), &yaml(tasks));
        undisturbed.script.lock().unwrap().failures.insert("b".into(), (1, true));
        undisturbed.run().await;
        // Batches depend on timing: a few more than in this run are tried.
        for batch in 0..undisturbed.batches() + 3 {
            for durable in [false, true] {
                let at = format!("{shape}, batch {batch}, durable {durable}");
                let folder = tempfile::tempdir().unwrap();
                let mut stand = Stand::new(folder.path(), &yaml(tasks));
                stand.script.lock().unwrap().failures.insert("b".into(), (1, true));
                let broken = stand.run_with(options(), Some(JournalFault { batch, durable }), Cancel::new()).await;
                stand.restart();
                let finished: Vec<&str> =
                    tasks.iter().map(|(id, _)| *id).filter(|id| stand.status(id).is_success()).collect();
                let before = stand.effects();
                assert!(broken.broken.is_some() || finished.len() == tasks.len(), "{at}");

                stand.run_with(options(), None, Cancel::new()).await;
                for (id, _) in tasks {
                    assert_eq!(stand.status(id), Status::Succeeded, "{at}: {id}");
                    for step in ["first", "second"] {
                        let name = format!("{id}/{step}");
                        let (was, is) = (before.get(&name).copied().unwrap_or(0), stand.effects()[&name]);
                        assert!((1..=2).contains(&is), "{at}: {name} took effect {is} times");
                        assert!(!finished.contains(id) || is == was, "{at}: {id} was finished and ran again");
                    }
                }
                let (_, plan) = stand.plan().await;
                assert!(!plan.has_work(), "{at}: nothing is left to do");
            }
        }
    }
}

#[tokio::test]
async fn a_step_that_is_durable_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut stand = Stand::new(folder.path(), &yaml(&[("a", "")]));
    // Batches: the start, the first step (with the note that it began), and so on.
    let mut batch = 0;
    while !stand.status("a").is_success() {
        stand.run_with(options(), Some(JournalFault { batch, durable: true }), Cancel::new()).await;
        stand.restart();
        batch += 1;
        assert!(batch < 50, "it ends");
    }
    assert!(stand.effects().values().all(|count| *count <= 2), "{:?}", stand.effects());
}
