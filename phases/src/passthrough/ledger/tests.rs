//! The ledger on a disk, in many hands.

mod processes;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Barrier, Mutex};

use taskrun_engine::testing::{Fault, FaultyDisk, is_crash};

use super::testing::{device, owner};
use super::*;

fn owned(ledger: &Ledger) -> Vec<(u8, String)> {
    let owners = ledger.owners().unwrap();
    owners.into_iter().map(|owned| (owned.device.bus, owned.owner.domain_uuid)).collect()
}

fn pairs<const N: usize>(expected: [(u8, &str); N]) -> Vec<(u8, String)> {
    expected.map(|(bus, uuid)| (bus, uuid.to_owned())).to_vec()
}

fn all_are(alive: Alive) -> impl Fn(&Owner) -> Alive {
    move |_| alive
}

#[test]
fn a_device_goes_from_one_cluster_to_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path().join("devices"));
    assert!(ledger.owners().unwrap().is_empty() && ledger.release("a").unwrap().is_empty());
    assert_eq!(ledger.reconcile(all_are(Alive::Gone)).unwrap(), Reconciled::default());
    drop(ledger.claim(&owner("a"), &[]).unwrap());
    assert!(!ledger.folder().exists(), "who wants nothing needs no ledger");

    let claim = ledger.claim(&owner("a"), &[device(1), device(2)]).unwrap();
    assert_eq!(claim.devices(), [device(1), device(2)]);
    claim.keep().unwrap();
    let error = ledger.claim(&owner("b"), &[device(2), device(1), device(3)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0000:01:00.0 and 0000:02:00.0 belong to cloud-gpu-worker-a of cluster cloud in environment lab \
         since 2026-11-26T07:00:00Z"
    );
    let hint = "stop the owner first: taskrun --config '/srv/my lab.yaml' vm stop cloud-gpu-worker-a";
    assert_eq!(error.hint().as_deref(), Some(hint));
    assert!(ledger.release("b").unwrap().is_empty());
    assert_eq!(owned(&ledger), pairs([(1, "a"), (2, "a")]));
    ledger.claim(&owner("a"), &[device(1)]).unwrap().keep().unwrap();
    assert_eq!(ledger.release("a").unwrap(), [device(1), device(2)]);
    ledger.claim(&owner("b"), &[device(1)]).unwrap().keep().unwrap();
    assert_eq!(owned(&ledger), pairs([(1, "b")]));
}

#[test]
fn a_start_that_fails_gives_back_what_it_took() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path());
    ledger.claim(&owner("a"), &[device(1)]).unwrap().keep().unwrap();
    drop(ledger.claim(&owner("a"), &[device(1), device(2)]).unwrap());
    assert_eq!(owned(&ledger), pairs([(1, "a")]));
    ledger.claim(&owner("b"), &[device(2)]).unwrap().roll_back().unwrap();
    assert_eq!(owned(&ledger), pairs([(1, "a")]));
    assert_eq!(ledger.owners().unwrap()[0].starting, None, "it runs, as before");
}

#[test]
fn what_is_being_started_is_not_taken_for_dead() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path());
    let claim = ledger.claim(&owner("a"), &[device(1)]).unwrap();
    assert_eq!(ledger.reconcile(all_are(Alive::Gone)).unwrap(), Reconciled::default());
    let error = ledger.claim(&owner("b"), &[device(1)]).unwrap_err();
    let (error, hint, pid) = (error.to_string(), error.hint().unwrap(), std::process::id());
    assert!(error.starts_with("0000:01:00.0 is being given to cloud-gpu-worker-a"), "{error}");
    assert_eq!(hint, format!("wait until process {pid} has started it or given up"));
    claim.keep().unwrap();
    assert_eq!(ledger.reconcile(all_are(Alive::Gone)).unwrap().freed.len(), 1);
}

#[test]
fn a_machine_that_died_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path());
    for (uuid, bus) in [("dead", 1), ("elsewhere", 2), ("running", 3)] {
        ledger.claim(&owner(uuid), &[device(bus), device(10 + bus)]).unwrap().keep().unwrap();
    }
    let asked = Mutex::new(Vec::new());
    let look = |owner: &Owner| {
        asked.lock().unwrap().push(owner.domain_uuid.clone());
        match &*owner.domain_uuid {
            "dead" => Alive::Gone,
            "running" => Alive::Running,
            _ => Alive::CannotTell,
        }
    };
    let found = ledger.reconcile(look).unwrap();
    let told = |owned: &[Owned]| owned.iter().map(|owned| owned.device.bus).collect::<Vec<_>>();
    assert_eq!((told(&found.freed), told(&found.unclear)), (vec![1, 11], vec![2, 12]));
    assert_eq!(asked.lock().unwrap().len(), 3, "each machine is looked at once");
    let left = [(2, "elsewhere"), (3, "running"), (12, "elsewhere"), (13, "running")];
    assert_eq!(owned(&ledger), pairs(left));
    // While somebody looks, the machine is started again: what was seen counts no more.
    let look = |owner: &Owner| {
        if owner.domain_uuid == "running" {
            ledger.claim(owner, &[device(3), device(13)]).unwrap().keep().unwrap();
        }
        Alive::Gone
    };
    assert_eq!(told(&ledger.reconcile(look).unwrap().freed), [2, 12]);
    assert_eq!(owned(&ledger), pairs([(3, "running"), (13, "running")]));
}

#[test]
fn twenty_starters_have_one_winner() {
    const ROUNDS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path()).waiting(Duration::from_secs(120));
    for round in 0..ROUNDS {
        let (barrier, running) = (Barrier::new(20), Mutex::new(BTreeSet::new()));
        let look = |owner: &Owner| match running.lock().unwrap().contains(&owner.domain_uuid) {
            true => Alive::Running,
            false => Alive::Gone,
        };
        let start = |number: usize| {
            let uuid = format!("{round}-{number}");
            // Each asks in an order of its own.
            let mut devices = [device(1), device(2)];
            devices.rotate_left(number % 2);
            barrier.wait();
            ledger.reconcile(look).unwrap();
            let claim = match ledger.claim(&owner(&uuid), &devices) {
                Ok(claim) => claim,
                Err(LedgerError::Conflict { .. }) => return false,
                Err(error) => panic!("{error}"),
            };
            thread::sleep(Duration::from_millis(2));
            running.lock().unwrap().insert(uuid);
            claim.keep().unwrap();
            true
        };
        let start = &start;
        let winners = thread::scope(|scope| {
            let threads: Vec<_> = (0..20).map(|number| scope.spawn(move || start(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(winners, 1, "round {round}");
        let winner = running.lock().unwrap().first().cloned().unwrap();
        assert_eq!(owned(&ledger), pairs([(1, &winner), (2, &winner)]));
        // It dies; the next round notices.
    }
}

/// A folder for a test that does not depend on what a real disk has synced, and need not wait for it.
fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

/// A ledger in which `a` owns devices 1 and 2, and `b` owns 3.
fn example(folder: &Path) -> Ledger {
    let ledger = Ledger::at(folder);
    ledger.claim(&owner("a"), &[device(1), device(2)]).unwrap().keep().unwrap();
    ledger.claim(&owner("b"), &[device(3)]).unwrap().keep().unwrap();
    ledger
}

#[test]
fn power_lost_at_any_point() {
    type Change = fn(&Ledger) -> Result<(), LedgerError>;
    let changes: [(&str, Change); 5] = [
        ("claim and keep", |ledger| ledger.claim(&owner("c"), &[device(4), device(5)])?.keep()),
        ("claim and roll back", |ledger| ledger.claim(&owner("c"), &[device(4), device(5)])?.roll_back()),
        ("claim more", |ledger| ledger.claim(&owner("a"), &[device(2), device(4)])?.keep()),
        ("release", |ledger| ledger.release("a").map(drop)),
        ("reconcile", |ledger| ledger.reconcile(all_are(Alive::Gone)).map(drop)),
    ];
    let begun = tempfile::tempdir().unwrap();
    let before = owned(&example(begun.path()));
    let file = fs::read(begun.path().join("ledger.json")).unwrap();
    let faults = Fault::CRASHES.into_iter().chain([Fault::Error(io::ErrorKind::StorageFull)]);
    for fault in faults {
        for (name, change) in changes {
            let mut point = 0;
            loop {
                let folder = in_memory();
                fs::write(folder.path().join("ledger.json"), &file).unwrap();
                let disk = FaultyDisk::with(point, fault);
                let faulty = Ledger { disk: Arc::new(disk.clone()), ..Ledger::at(folder.path()) };
                let result = change(&faulty);
                let context = format!("{name}, {fault:?} at point {point}");
                let after = Ledger::at(folder.path());
                let found = owned(&after);
                let all_or_nothing = match name {
                    "claim and keep" | "claim and roll back" => {
                        found == before || found == [&before[..], &pairs([(4, "c"), (5, "c")])].concat()
                    }
                    "claim more" => found == before || found == [&before[..], &pairs([(4, "a")])].concat(),
                    "release" => found == before || found == pairs([(3, "b")]),
                    _ => found == before || found.is_empty(),
                };
                assert!(all_or_nothing, "{context}: {found:?}");
                assert!(!matches!(result, Err(LedgerError::Damaged { .. })), "{context}: {result:?}");
                let crashed = disk.has_crashed();
                assert_eq!(crashed, result.as_ref().is_err_and(|error| is_crash(error)), "{context}: {result:?}");
                // Who comes next can work with it, whatever lies there.
                after.claim(&owner("d"), &[device(9)]).unwrap().keep().unwrap();
                after.release("d").unwrap();
                assert_eq!(owned(&after), found, "{context}");
                let through = disk.points() <= point;
                point += 1;
                if through {
                    assert!(point > 4, "{context}: {result:?}");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_reported_and_kept() {
    let folder = in_memory();
    let ledger = example(folder.path());
    let path = folder.path().join("ledger.json");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let errors = [
            ledger.owners().unwrap_err(),
            ledger.claim(&owner("c"), &[device(4)]).unwrap_err(),
            ledger.release("a").unwrap_err(),
            ledger.reconcile(all_are(Alive::Gone)).unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(matches!(error, LedgerError::Damaged { .. }), "cut at {length}: {text}");
            assert!(text.contains("ledger.json is damaged: ") && text.contains("line "), "cut at {length}: {text}");
            assert!(error.hint().is_some_and(|hint| hint.contains("mv ")));
        }
        assert_eq!(fs::read(&path).unwrap(), whole[..length], "it was touched");
    }
    fs::write(&path, &whole[..100]).unwrap();
    let aside = ledger.set_aside().unwrap().unwrap();
    assert_eq!(fs::read(aside).unwrap(), whole[..100]);
    assert!(ledger.owners().unwrap().is_empty());
    ledger.claim(&owner("c"), &[device(4)]).unwrap().keep().unwrap();
    assert_eq!(ledger.set_aside().unwrap(), None, "a sound one stays");
    assert_eq!(owned(&ledger), pairs([(4, "c")]));
}

#[test]
fn no_flipped_bit_changes_who_owns_what() {
    let folder = in_memory();
    let ledger = example(folder.path());
    let path = folder.path().join("ledger.json");
    let (whole, before) = (fs::read(&path).unwrap(), ledger.owners().unwrap());
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).unwrap();
        match ledger.owners() {
            Ok(owners) => assert_eq!(owners, before, "byte {at}"),
            Err(LedgerError::Damaged { .. } | LedgerError::Newer { .. }) => {}
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn the_ledger_of_a_newer_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = example(folder.path());
    let path = folder.path().join("ledger.json");
    let newer = fs::read_to_string(&path).unwrap().replace("\"version\": 1,", "\"version\": 2, \"pools\": [],");
    fs::write(&path, &newer).unwrap();
    let error = ledger.claim(&owner("c"), &[device(4)]).unwrap_err();
    assert!(error.to_string().ends_with("has version 2, and this program reads up to 1"), "{error}");
    assert!(matches!(ledger.set_aside(), Err(LedgerError::Newer { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn what_was_found_is_told_in_sentences() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path());
    let boot_id = "00000000-0000-0000-0000-000000000001".parse().unwrap();
    let earlier = Owner { boot_id, ..owner("b") };
    for (owner, bus) in [(owner("a"), 1), (earlier, 2), (owner("c"), 3)] {
        ledger.claim(&owner, &[device(bus)]).unwrap().keep().unwrap();
    }
    let look = |owner: &Owner| if owner.domain_uuid == "c" { Alive::CannotTell } else { Alive::Gone };
    assert_eq!(
        ledger.reconcile(look).unwrap().notices(),
        [
            "0000:01:00.0 is free again: cloud-gpu-worker-a (environment lab) does not run any more",
            "0000:02:00.0 is free again: cloud-gpu-worker-b (environment lab) does not run since this host was \
             started anew",
            "0000:03:00.0 stays with cloud-gpu-worker-c (environment lab): whether that runs, only qemu:///system \
             can say",
        ]
    );
}

#[test]
fn a_ledger_that_cannot_be_used_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path().join("devices"));
    assert_eq!(ledger.problem(), None);
    assert!(!ledger.folder().exists());
    let ledger = example(ledger.folder());
    assert_eq!(ledger.problem(), None);
    fs::write(ledger.folder().join("ledger.json"), "{\n").unwrap();
    let problem = ledger.problem().unwrap();
    assert!(problem.message.contains("is damaged: EOF while parsing an object at line 2"), "{problem:?}");
    let problem = Ledger::at(ledger.folder().join("lock/devices")).problem().unwrap();
    assert!(problem.message.contains("lock/devices/ledger.json: Not a directory"), "{problem:?}");
    let denied = |what, path: &str| disk(what, Path::new(path))(io::ErrorKind::PermissionDenied.into()).hint().unwrap();
    assert_eq!(denied("make", "/v/devices"), "let it be made as root: install -d -g libvirt -m 2775 /v/devices");
    for file in ["/v/devices/lock", "/v/devices/ledger.json"] {
        let hint = "run as root, or let the group that may use libvirt write there: \
                    chgrp -R libvirt /v/devices && chmod -R g+w /v/devices && chmod g+s /v/devices";
        assert_eq!(denied("write", file), hint);
    }
}

#[test]
fn the_folder_is_that_of_the_host_unless_another_is_named() {
    let there = tempfile::tempdir().unwrap();
    let (host, absent) = (there.path(), there.path().join("absent"));
    let set = |pairs: &'static [(&str, &str)]| {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
    };
    let home: &[_] = &[("HOME", "/home/ada")];
    let xdg: &[_] = &[("HOME", "/home/ada"), ("XDG_STATE_HOME", "/data")];
    let named: &[_] = &[("HOME", "/home/ada"), (FOLDER_VARIABLE, "/srv/devices")];
    let at = |text: &str| Some(PathBuf::from(text));
    assert_eq!(folder(set(home), true, &absent), Some(absent.clone()));
    assert_eq!(folder(set(home), false, host), Some(host.to_owned()), "devices are the host's");
    assert_eq!(folder(set(home), false, &absent), at("/home/ada/.local/state/taskrun/devices"));
    assert_eq!(folder(set(xdg), false, &absent), at("/data/taskrun/devices"));
    assert_eq!(folder(set(named), true, host), at("/srv/devices"));
    assert_eq!(folder(set(&[]), false, &absent), None);
}

#[test]
fn a_group_that_may_write_in_the_folder_may_take_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(folder.path());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o2775)).unwrap();
    ledger.claim(&owner("a"), &[device(1)]).unwrap().keep().unwrap();
    let mode = fs::metadata(folder.path().join("lock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o664);
}
