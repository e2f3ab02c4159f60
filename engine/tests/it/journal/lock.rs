//! The lock, between real processes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use taskrun_engine::journal::{Holder, Lock, LockError};
use taskrun_engine::process::ProcessId;

use super::{child, child_role};

fn held_by(result: Result<Lock, LockError>) -> Holder {
    match result {
        Err(LockError::Held { holder, .. }) => *holder.expect("the holder has given its name"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_second_is_refused_with_the_name_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(dir.path(), "run --until CLOUD-3").unwrap();
    assert_eq!(lock.predecessor(), None);
    let error = Lock::acquire(dir.path(), "resume").unwrap_err();
    let text = error.to_string();
    let holder = held_by(Err(error));
    assert_eq!((holder.process.pid, holder.command.as_str()), (std::process::id(), "run --until CLOUD-3"));
    let Holder { process: ProcessId { pid, .. }, host, since, .. } = &holder;
    let expected =
        format!("{} is in use by `run --until CLOUD-3` (pid {pid} on {host}, since {since})", dir.path().display());
    assert_eq!(text, expected);
    assert_eq!(Holder::of(dir.path()), Some(holder));

    drop(lock);
    assert_eq!(Holder::of(dir.path()), None);
    assert_eq!(fs::read(dir.path().join("lock")).unwrap(), b"");
    assert_eq!(Lock::acquire(dir.path(), "resume").unwrap().predecessor(), None);
}

#[test]
fn a_file_that_says_nothing_or_nonsense_locks_as_well() {
    for content in [b"".as_slice(), b"{\"pid\": 12", b"\xFF\xFE", b"[]", &[b' '; 100_000]] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lock"), content).unwrap();
        assert_eq!(Holder::of(dir.path()), None);
        let lock = Lock::acquire(dir.path(), "run").unwrap();
        assert_eq!(lock.predecessor(), None);

        // Somebody scribbles over the name of the holder: refused all the same.
        fs::write(dir.path().join("lock"), content).unwrap();
        let error = Lock::acquire(dir.path(), "run").unwrap_err();
        assert!(error.to_string().ends_with("is in use by a run that has not given its name"), "{error}");
    }
}

#[test]
fn a_dead_run_is_not_taken_for_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let lock = Lock::acquire(dir.path(), "run").unwrap();
    let mut dead = Holder::of(dir.path()).unwrap();
    drop(lock);
    dead.process.start_time += 1;
    fs::write(&path, serde_json::to_string(&dead).unwrap()).unwrap();
    assert_eq!(Holder::of(dir.path()), None);

    // Somebody has just taken the lock and not yet written over the old name.
    let unnamed = File::open(&path).unwrap();
    unnamed.lock().unwrap();
    assert!(matches!(Lock::acquire(dir.path(), "run"), Err(LockError::Held { holder: None, .. })));
    drop(unnamed);
    assert_eq!(Lock::acquire(dir.path(), "run").unwrap().predecessor(), Some(&dead));
}

#[test]
fn a_killed_holder_is_recognised_even_if_its_child_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut holder, grandchild) = spawn_holder(dir.path());
    let refused = held_by(Lock::acquire(dir.path(), "resume"));
    assert_eq!((refused.process.pid, refused.command.as_str()), (holder.id(), "hold"));
    assert_eq!(Holder::of(dir.path()), Some(refused.clone()));

    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(Holder::of(dir.path()), None, "readers see that nobody runs");
    let lock = Lock::acquire(dir.path(), "resume").unwrap();
    assert!(Path::new(&format!("/proc/{grandchild}")).exists(), "the grandchild outlived its parent");
    assert_eq!(lock.predecessor(), Some(&refused));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(grandchild.parse().unwrap()), nix::sys::signal::SIGKILL).unwrap();
}

/// Starts a process that takes the lock, and in turn starts one that sleeps; returns it and the sleeper's pid.
fn spawn_holder(dir: &Path) -> (Child, String) {
    let mut holder = child("journal::lock::child_that_holds", "hold", dir).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    let grandchild = lines.filter_map(|line| line.split_once("sleeper ").map(|(_, pid)| pid.to_owned())).next();
    (holder, grandchild.expect("the child has the lock and says so"))
}

#[test]
#[ignore = "a child process of the test above"]
#[expect(clippy::print_stdout, reason = "this is how the child speaks to its parent")]
fn child_that_holds() {
    let Some((_, dir)) = child_role() else { return };
    let _lock = Lock::acquire(&dir, "hold").unwrap();
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    println!("sleeper {}", sleeper.id());
    sleeper.wait().unwrap();
}

#[test]
fn of_many_at_once_one_gets_it_also_when_the_file_is_removed_in_between() {
    let dir = super::fast_dir();
    let inside = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let lock = loop {
                        match Lock::acquire(dir.path(), "contend") {
                            Ok(lock) => break lock,
                            Err(LockError::Held { .. }) => thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    };
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have the lock");
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    // As one that purges the folder: the file goes, then the lock.
                    fs::remove_file(dir.path().join("lock")).unwrap();
                    drop(lock);
                }
            });
        }
    });
}
