//! The ledger in the hands of other processes, which are this test program again.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use rand::RngExt as _;

use super::*;

/// Says to a child what it does, and in which folder.
const ROLE: &str = "TASKRUN_TEST_LEDGER";

/// A child; killed when it is dropped.
struct Starter(Child);

impl Starter {
    fn spawn(role: &str, folder: &Path, number: usize) -> Self {
        let child = child_command(Command::new(std::env::current_exe().unwrap()), role, folder, number)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Waits for its end, which must be a success.
    fn succeed(mut self) {
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success() && said.contains("1 passed"), "{said}");
    }

    /// Kills it; it must not have ended by itself.
    fn kill(mut self) {
        self.0.kill().unwrap();
        let status = self.0.wait().unwrap();
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(status.signal(), Some(9), "{said}");
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child_command(mut command: Command, role: &str, folder: &Path, number: usize) -> Command {
    command
        .args(["passthrough::ledger::tests::processes::child", "--exact", "--ignored"])
        .env(ROLE, format!("{role} {number} {}", folder.display()))
        .stdin(Stdio::null());
    command
}

#[test]
#[ignore = "a child process of the other tests"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let (role, number, folder) = (word(), word().parse::<u8>().unwrap(), PathBuf::from(word()));
    match role {
        "start" => start_once(&folder, number),
        "loop" => start_and_stop(&folder, number),
        "hold" => hold_the_lock(&folder),
        "full" => meet_a_full_disk(&folder),
        other => panic!("no role {other}"),
    }
}

/// The machines that run: a file each, with a number that is never used again and the machine's devices.
struct Machines(PathBuf);

impl Machines {
    fn of(folder: &Path) -> Self {
        let machines = folder.join("machines");
        fs::create_dir_all(&machines).unwrap();
        Self(machines)
    }

    fn alive(&self, owner: &Owner) -> Alive {
        if self.0.join(&owner.domain_uuid).exists() { Alive::Running } else { Alive::Gone }
    }

    fn start(&self, uuid: &str, devices: &BTreeSet<u8>) {
        let mut text = rand::random::<u64>().to_string();
        devices.iter().for_each(|bus| text.push_str(&format!(" {bus}")));
        let new = self.0.join(format!("{uuid}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.0.join(uuid)).unwrap();
    }

    fn stop(&self, uuid: &str) {
        let _ = fs::remove_file(self.0.join(uuid));
    }

    fn running(&self) -> Vec<(String, String, BTreeSet<u8>)> {
        let machines = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let machines = machines.filter(|name| !name.ends_with(".new"));
        let read = |uuid: String| {
            let text = fs::read_to_string(self.0.join(&uuid)).ok()?;
            let devices = text.split(' ').skip(1).map(|bus| bus.parse().unwrap()).collect();
            Some((uuid, text, devices))
        };
        machines.filter_map(read).collect()
    }
}

#[test]
fn twenty_processes_have_one_winner() {
    for round in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let machines = Machines::of(folder.path());
        let starters: Vec<_> = (0..20).map(|number| Starter::spawn("start", folder.path(), number)).collect();
        while fs::read_dir(folder.path()).unwrap().count() < 21 {
            thread::sleep(Duration::from_millis(5));
        }
        fs::write(folder.path().join("go"), "").unwrap();
        starters.into_iter().for_each(Starter::succeed);
        let running = machines.running();
        assert_eq!(running.len(), 1, "round {round}: {running:?}");
        let winner = &*running[0].0;
        let ledger = Ledger::at(folder.path().join("devices"));
        assert_eq!(owned(&ledger), pairs([(1, winner), (2, winner)]));
        assert_eq!(ledger.owners().unwrap()[0].starting, None);
    }
}

fn start_once(folder: &Path, number: u8) {
    let machines = Machines::of(folder);
    let ledger = Ledger::at(folder.join("devices")).waiting(Duration::from_secs(120));
    fs::write(folder.join(format!("ready-{number}")), "").unwrap();
    while !folder.join("go").exists() {
        thread::sleep(Duration::from_millis(1));
    }
    let uuid = number.to_string();
    ledger.reconcile(|owner| machines.alive(owner)).unwrap();
    match ledger.claim(&owner(&uuid), &[device(1), device(2)]) {
        Ok(claim) => {
            machines.start(&uuid, &[1, 2].into());
            claim.keep().unwrap();
        }
        Err(LedgerError::Conflict { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn killed_anywhere_it_can_be_read() {
    const KILLS: usize = 100;
    const WORKERS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let machines = Machines::of(folder.path());
    let ledger = Ledger::at(folder.path().join("devices"));
    let spawn = |number| Starter::spawn("loop", folder.path(), number);
    let mut workers: Vec<_> = (0..WORKERS).map(|number| Some(spawn(number))).collect();
    let mut owned_at_a_kill = 0;
    for kill in 0..KILLS {
        let victim = rand::rng().random_range(0..WORKERS);
        // Long enough that it has begun.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !folder.path().join(format!("loops-{victim}")).exists() {
            assert!(Instant::now() < deadline, "worker {victim} does not begin");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(rand::rng().random_range(0..15_000)));
        // There is no other process that starts and stops this machine: its environment's lock sees to it.
        workers[victim].take().unwrap().kill();
        let before = machines.running();
        let owners = ledger.owners().unwrap_or_else(|error| panic!("after {kill} kills: {error}"));
        let after = machines.running();
        owned_at_a_kill += usize::from(owners.iter().any(|owned| owned.owner.domain_uuid == victim.to_string()));
        for (uuid, _, devices) in before.iter().filter(|machine| after.contains(machine)) {
            let has =
                |bus: &u8| owners.iter().any(|owned| owned.device == device(*bus) && owned.owner.domain_uuid == *uuid);
            assert!(devices.iter().all(has), "after {kill} kills {uuid} runs with what it does not own: {owners:?}");
        }
        assert!(!folder.path().join("violation").exists(), "after {kill} kills two machines had one device");
        fs::remove_file(folder.path().join(format!("loops-{victim}"))).unwrap();
        workers[victim] = Some(spawn(victim));
    }
    workers.into_iter().flatten().for_each(Starter::kill);
    assert!(owned_at_a_kill > 5, "the kills hit nobody: {owned_at_a_kill}");
    // All are dead: what does not run is free, and what runs keeps its devices.
    ledger.reconcile(|owner| machines.alive(owner)).unwrap();
    let used: BTreeSet<String> = machines.running().into_iter().map(|(uuid, ..)| uuid).collect();
    assert!(owned(&ledger).iter().all(|(_, uuid)| used.contains(uuid)));
    used.iter().for_each(|uuid| machines.stop(uuid));
    ledger.reconcile(|owner| machines.alive(owner)).unwrap();
    ledger.claim(&owner("last"), &[device(1), device(2), device(3)]).unwrap().keep().unwrap();
}

/// Starts and stops one machine again and again, with other devices each time.
fn start_and_stop(folder: &Path, number: u8) {
    let machines = Machines::of(folder);
    let ledger = Ledger::at(folder.join("devices")).waiting(Duration::from_secs(120));
    let uuid = number.to_string();
    let alone = |devices: &BTreeSet<u8>| {
        let others = machines.running().into_iter().filter(|(other, ..)| *other != uuid);
        let shared = others.filter(|(_, _, other)| !other.is_disjoint(devices)).collect::<Vec<_>>();
        if !shared.is_empty() {
            fs::write(folder.join("violation"), format!("{uuid} with {devices:?}: {shared:?}")).unwrap();
        }
    };
    // One that was killed may have left its machine running.
    machines.stop(&uuid);
    ledger.release(&uuid).unwrap();
    loop {
        fs::write(folder.join(format!("loops-{number}")), "").unwrap();
        ledger.reconcile(|owner| machines.alive(owner)).unwrap();
        let devices: BTreeSet<u8> = (1..=3).filter(|_| rand::random()).collect();
        let wanted: Vec<_> = devices.iter().map(|bus| device(*bus)).collect();
        match ledger.claim(&owner(&uuid), &wanted) {
            Ok(claim) if rand::random::<u8>() < 64 => claim.roll_back().unwrap(),
            Ok(claim) => {
                alone(&devices);
                machines.start(&uuid, &devices);
                claim.keep().unwrap();
                alone(&devices);
                machines.stop(&uuid);
                ledger.release(&uuid).unwrap();
            }
            Err(LedgerError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn who_holds_the_lock_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = example(&folder.path().join("devices")).waiting(Duration::from_millis(300));
    let holder = Starter::spawn("hold", folder.path(), 0);
    while !folder.path().join("held").exists() {
        thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    let error = ledger.claim(&owner("c"), &[device(4)]).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let (text, pid) = (error.to_string(), holder.0.id());
    assert!(text.contains("was locked for 300ms, by process ") && text.contains(&pid.to_string()), "{text}");
    assert_eq!(error.hint(), Some(format!("see what process {pid} does; the lock ends with it")));
    assert!(error.is_transient());
    assert_eq!(owned(&ledger).len(), 3, "a reader does not wait");
    holder.kill();
    ledger.claim(&owner("c"), &[device(4)]).unwrap().keep().unwrap();
}

fn hold_the_lock(folder: &Path) {
    let _lock = Ledger::at(folder.join("devices")).lock().unwrap();
    fs::write(folder.join("held"), "").unwrap();
    thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_full_disk_leaves_the_old_state() {
    let folder = tempfile::tempdir().unwrap();
    let in_own_mounts = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", program]);
        command
    };
    let probe = in_own_mounts("mount").args(["-t", "tmpfs", "tmpfs"]).arg(folder.path()).output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        #[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
        {
            eprintln!("SKIPPED: no tmpfs of one's own can be mounted here: {probe:?}");
        }
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = child_command(in_own_mounts(program.to_str().unwrap()), "full", folder.path(), 0).output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

fn meet_a_full_disk(folder: &Path) {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder).status();
    assert!(mounted.unwrap().success());
    let ledger = example(folder);
    let before = ledger.owners().unwrap();
    let ballast = folder.join("ballast");
    let bytes = vec![0; 1 << 17];
    assert!(fs::write(&ballast, bytes).is_err(), "the disk is full");
    let size = fs::metadata(&ballast).unwrap().len();
    // Without any room, and with room for the name in the lock only.
    for freed in [0, 4096] {
        fs::OpenOptions::new().write(true).open(&ballast).unwrap().set_len(size - freed).unwrap();
        let errors = [
            ledger.claim(&owner("c"), &[device(4)]).unwrap_err(),
            ledger.release("a").unwrap_err(),
            ledger.reconcile(all_are(Alive::Gone)).unwrap_err(),
        ];
        for error in errors {
            let full = matches!(&error, LedgerError::Disk { source, .. }
                if source.kind() == io::ErrorKind::StorageFull);
            assert!(full, "{freed} bytes free: {error}: {error:?}");
            assert!(error.hint().unwrap().starts_with("make room"));
        }
        assert_eq!(ledger.owners().unwrap(), before);
    }
    fs::remove_file(&ballast).unwrap();
    assert_eq!(ledger.release("a").unwrap().len(), 2);
}
