//! Claims, against a world of machines that start, stop and die, and processes that are killed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::testing::{device, owner, process};
use super::*;

const EVERYBODY_LIVES: fn(&ProcessId) -> bool = |_| true;

fn owners(claims: &Claims) -> Vec<(u8, String)> {
    claims.owned().into_iter().map(|owned| (owned.device.bus, owned.owner.domain_uuid)).collect()
}

fn pairs<const N: usize>(expected: [(u8, &str); N]) -> Vec<(u8, String)> {
    expected.map(|(bus, uuid)| (bus, uuid.to_owned())).to_vec()
}

#[test]
fn a_request_takes_all_or_nothing_and_names_every_conflict() {
    let mut claims = Claims::default();
    let one = claims.claim(&owner("a"), process(1), &[device(1), device(2)], EVERYBODY_LIVES).unwrap();
    claims.keep(&one).unwrap();
    let before = claims.clone();
    let all = [device(3), device(2), device(1), device(2)];
    let conflicts = claims.claim(&owner("b"), process(2), &all, EVERYBODY_LIVES).unwrap_err();
    let told: Vec<_> = conflicts.iter().map(|held| (held.device.bus, &*held.owner.domain_uuid)).collect();
    assert_eq!(told, [(1, "a"), (2, "a")]);
    assert_eq!(claims, before);
}

#[test]
fn what_was_not_started_gives_back_exactly_what_it_took() {
    let mut claims = Claims::default();
    let kept = claims.claim(&owner("a"), process(1), &[device(1)], EVERYBODY_LIVES).unwrap();
    claims.keep(&kept).unwrap();
    let other = claims.claim(&owner("b"), process(1), &[device(3)], EVERYBODY_LIVES).unwrap();
    claims.keep(&other).unwrap();
    let before = claims.owned();
    let more = claims.claim(&owner("a"), process(2), &[device(1), device(2), device(1)], EVERYBODY_LIVES).unwrap();
    assert_eq!(owners(&claims), pairs([(1, "a"), (2, "a"), (3, "b")]));
    claims.give_back(&more);
    assert_eq!(claims.owned(), before);
    claims.give_back(&more);
    claims.give_back(&kept);
    assert_eq!(owners(&claims), pairs([(3, "b")]), "a claim gives back no more than it took");
}

#[test]
fn a_claim_anew_is_as_old_as_the_first_in_this_boot() {
    let mut claims = Claims::default();
    let taken = claims.claim(&owner("a"), process(1), &[device(1)], EVERYBODY_LIVES).unwrap();
    claims.keep(&taken).unwrap();
    let later = Owner { since: "2026-11-27T00:00:00Z".parse().unwrap(), ..owner("a") };
    let again = claims.claim(&later, process(1), &[device(1), device(2)], EVERYBODY_LIVES).unwrap();
    claims.keep(&again).unwrap();
    let since: Vec<_> = claims.owned().into_iter().map(|owned| owned.owner.since).collect();
    assert_eq!(since, [owner("a").since, later.since]);
    let boot_id = "00000000-0000-0000-0000-000000000001".parse().unwrap();
    let _ = claims.claim(&Owner { boot_id, ..later.clone() }, process(1), &[device(1)], EVERYBODY_LIVES).unwrap();
    assert_eq!(claims.owned()[0].owner, Owner { boot_id, ..later }, "that machine is another one");
}

#[test]
fn a_machine_is_started_by_one_process_at_a_time() {
    let mut claims = Claims::default();
    let _ = claims.claim(&owner("a"), process(1), &[device(1)], EVERYBODY_LIVES).unwrap();
    let held = claims.claim(&owner("a"), process(2), &[device(1)], EVERYBODY_LIVES).unwrap_err();
    assert_eq!(held[0].starting, Some(process(1)));
    assert!(claims.release("a", process(2), EVERYBODY_LIVES).is_empty(), "who starts it has it");
    let dead = |starter: &ProcessId| *starter != process(1);
    assert!(claims.claim(&owner("a"), process(2), &[device(1)], dead).is_ok(), "the first was killed");
}

#[test]
fn a_stop_frees_what_that_machine_owns_and_nothing_else() {
    let mut claims = Claims::default();
    for (uuid, devices) in [("a", &[device(1), device(2)][..]), ("b", &[device(3)])] {
        let taken = claims.claim(&owner(uuid), process(1), devices, EVERYBODY_LIVES).unwrap();
        claims.keep(&taken).unwrap();
    }
    assert!(claims.release("c", process(1), EVERYBODY_LIVES).is_empty());
    assert_eq!(claims.release("a", process(1), EVERYBODY_LIVES), [device(1), device(2)]);
    assert_eq!(claims.release("a", process(1), EVERYBODY_LIVES), []);
    assert_eq!(owners(&claims), pairs([(3, "b")]));
}

#[test]
fn a_start_whose_ledger_began_anew_takes_what_is_free_and_names_what_is_not() {
    let mut claims = Claims::default();
    let taken = claims.claim(&owner("a"), process(1), &[device(1), device(2)], EVERYBODY_LIVES).unwrap();
    let mut anew = Claims::default();
    let _ = anew.claim(&owner("c"), process(2), &[device(3)], EVERYBODY_LIVES).unwrap();
    anew.give_back(&taken);
    let _ = anew.claim(&owner("b"), process(2), &[device(2)], EVERYBODY_LIVES).unwrap();
    let lost = anew.keep(&taken).unwrap_err();
    assert_eq!((lost.len(), lost[0].device, &*lost[0].owner.domain_uuid), (1, device(2), "b"));
    assert_eq!(owners(&anew), pairs([(1, "a"), (2, "b"), (3, "c")]));
}

#[test]
fn only_who_is_known_to_be_gone_loses_its_devices() {
    let mut claims = Claims::default();
    for (uuid, bus) in [("running", 1), ("gone", 2), ("unclear", 3)] {
        let taken = claims.claim(&owner(uuid), process(1), &[device(bus)], EVERYBODY_LIVES).unwrap();
        claims.keep(&taken).unwrap();
    }
    // Killed before and after it started its machine; and one that is alive.
    for (uuid, bus, by) in [("not started", 4, 2), ("started", 5, 2), ("starting", 6, 3)] {
        let _ = claims.claim(&owner(uuid), process(by), &[device(bus)], EVERYBODY_LIVES).unwrap();
    }
    let alive = |owner: &Owner| match &*owner.domain_uuid {
        "running" | "started" => Alive::Running,
        "unclear" => Alive::CannotTell,
        _ => Alive::Gone,
    };
    let seen = claims.settled(|starter| *starter != process(2));
    let boot_id = "00000000-0000-0000-0000-000000000001".parse().unwrap();
    let freed = claims.settle(&seen, alive, boot_id);
    let freed: Vec<_> = freed.iter().map(|owned| &*owned.owner.domain_uuid).collect();
    assert_eq!(freed, ["gone", "not started"]);
    let left = [(1, "running"), (3, "unclear"), (5, "started"), (6, "starting")];
    assert_eq!(owners(&claims), pairs(left));
    let starting: Vec<_> = claims.owned().iter().map(|owned| owned.starting.map(|by| by.pid)).collect();
    assert_eq!(starting, [None, None, None, Some(3)]);
    assert_eq!(claims.owned()[0].owner.boot_id, boot_id, "it was seen in this boot");
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    /// A process claims devices for a machine.
    Claim { owner: u8, devices: BTreeSet<u8>, by: u32 },
    /// The machine of a claim starts.
    Start(usize),
    /// A claim is kept if its machine was started, else it is given back.
    End(usize),
    /// A process is killed, and with it its claims' guards.
    Kill(u32),
    /// A machine dies by itself.
    Die(u8),
    /// A machine is stopped and what it owns released.
    Stop { owner: u8, by: u32 },
    /// Somebody looks which machines run, but cannot tell of one, ...
    Look { unclear: u8 },
    /// ... and acts on the last look.
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    let (owners, processes) = (0..4u8, 0..4u32);
    let devices = prop::collection::btree_set(0..4u8, 1..4);
    prop_oneof![
        6 => (owners.clone(), devices, processes.clone())
            .prop_map(|(owner, devices, by)| Event::Claim { owner, devices, by }),
        5 => any::<usize>().prop_map(Event::Start),
        5 => any::<usize>().prop_map(Event::End),
        1 => processes.clone().prop_map(Event::Kill),
        2 => owners.clone().prop_map(Event::Die),
        2 => (owners, processes).prop_map(|(owner, by)| Event::Stop { owner, by }),
        3 => (0..8u8).prop_map(|unclear| Event::Look { unclear }),
        3 => Just(Event::Settle),
    ]
}

/// A claim in the hands of a process.
struct Guard {
    taken: Taken,
    owner: u8,
    devices: BTreeSet<u8>,
    by: ProcessId,
    started: bool,
}

/// What really is.
#[derive(Default)]
struct World {
    claims: Claims,
    guards: Vec<Guard>,
    /// The devices of the machines that run.
    running: BTreeMap<u8, BTreeSet<u8>>,
    /// How often each process was killed; the next one is another.
    killed: BTreeMap<u32, u64>,
    look: Option<(Claims, BTreeMap<String, Alive>)>,
}

impl World {
    fn process(&self, number: u32) -> ProcessId {
        ProcessId { start_time: self.killed.get(&number).copied().unwrap_or_default(), ..process(number) }
    }

    fn happens(&mut self, event: Event) {
        let killed = self.killed.clone();
        let lives = |process: &ProcessId| process.start_time == killed.get(&process.pid).copied().unwrap_or_default();
        match event {
            Event::Claim { owner: number, devices, by } => {
                let by = self.process(by);
                let wanted: Vec<_> = devices.iter().map(|bus| device(*bus)).collect();
                let in_use = self.running.iter().any(|(other, has)| *other != number && !has.is_disjoint(&devices))
                    || self.guards.iter().any(|guard| !guard.devices.is_disjoint(&devices));
                if let Ok(taken) = self.claims.claim(&owner(&number.to_string()), by, &wanted, lives) {
                    assert!(!in_use, "{wanted:?} are in use");
                    self.guards.push(Guard { taken, owner: number, devices, by, started: false });
                }
            }
            Event::Start(at) if !self.guards.is_empty() => {
                let at = at % self.guards.len();
                let guard = &mut self.guards[at];
                guard.started = true;
                self.running.entry(guard.owner).or_default().extend(&guard.devices);
            }
            Event::End(at) if !self.guards.is_empty() => {
                let guard = self.guards.swap_remove(at % self.guards.len());
                match guard.started {
                    true => assert!(self.claims.keep(&guard.taken).is_ok(), "nobody else took it"),
                    false => self.claims.give_back(&guard.taken),
                }
            }
            Event::Kill(number) => {
                let by = self.process(number);
                self.guards.retain(|guard| guard.by != by);
                *self.killed.entry(number).or_default() += 1;
            }
            Event::Die(owner) => drop(self.running.remove(&owner)),
            // The lock of its environment keeps apart who starts and who stops a machine.
            Event::Stop { owner, by } if self.guards.iter().all(|guard| guard.owner != owner) => {
                self.running.remove(&owner);
                let by = self.process(by);
                self.claims.release(&owner.to_string(), by, lives);
            }
            Event::Look { unclear } => {
                let tell = |number: u8| match self.running.contains_key(&number) {
                    _ if number == unclear => Alive::CannotTell,
                    true => Alive::Running,
                    false => Alive::Gone,
                };
                let told = (0..4).map(|number| (number.to_string(), tell(number))).collect();
                self.look = Some((self.claims.settled(lives), told));
            }
            Event::Settle => {
                if let Some((seen, told)) = self.look.take() {
                    let freed = self.claims.settle(&seen, |owner| told[&owner.domain_uuid], owner("0").boot_id);
                    assert!(freed.iter().all(|owned| told[&owned.owner.domain_uuid] == Alive::Gone));
                }
            }
            Event::Start(_) | Event::End(_) | Event::Stop { .. } => {}
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        let owned: BTreeMap<u8, String> = owners(&self.claims).into_iter().collect();
        let mut used = BTreeMap::new();
        for (machine, devices) in &self.running {
            for bus in devices {
                assert_eq!(used.insert(bus, machine), None, "device {bus} is used by two machines");
                assert_eq!(owned.get(bus), Some(&machine.to_string()), "device {bus} is used by who does not own it");
            }
        }
        for guard in &self.guards {
            let uuid = guard.owner.to_string();
            assert!(guard.devices.iter().all(|bus| owned.get(bus) == Some(&uuid)), "a claim in hand was lost");
        }
    }

    /// At the end everybody is killed, and one look frees what is not used.
    fn end(mut self) {
        for number in 0..4 {
            self.happens(Event::Kill(number));
        }
        self.happens(Event::Look { unclear: u8::MAX });
        self.happens(Event::Settle);
        self.check();
        let used: BTreeSet<u8> = owners(&self.claims).into_iter().map(|(_, uuid)| uuid.parse().unwrap()).collect();
        assert!(used.iter().all(|machine| self.running.contains_key(machine)), "a claim of nobody stays");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_device_ever_has_two_owners(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::default();
        for event in events {
            world.happens(event);
            world.check();
        }
        world.end();
    }
}
