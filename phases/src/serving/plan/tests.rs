//! The plan against a small world: replicas that start, answer, fail, drain and stop as real ones do, in any order.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::serving::conditions;

/// A model with its replicas, and the controller's file about it.
struct World {
    wanted: Option<Wanted>,
    status: Option<Status>,
    seen: Vec<Seen>,
    desired: u32,
    /// The revisions whose model cannot be loaded.
    broken: Vec<u32>,
    /// The requests that a drained replica still has.
    requests: u32,
    room: u32,
}

impl World {
    fn new() -> Self {
        let wanted = Wanted { generation: 1, service: InferenceService::new("m", "/1") };
        Self {
            wanted: Some(wanted),
            status: None,
            seen: Vec::new(),
            desired: 1,
            broken: Vec::new(),
            requests: 0,
            room: u32::MAX,
        }
    }

    fn deploy(&mut self, uri: &str) {
        let generation = self.wanted.as_ref().map_or(0, |wanted| wanted.generation) + 1;
        self.wanted = Some(Wanted { generation, service: InferenceService::new("m", uri) });
    }

    fn plan(&self) -> (Plan, Option<Status>) {
        let held = self.seen.len() as u32;
        let scene = Scene {
            wanted: self.wanted.as_ref(),
            before: self.status.as_ref(),
            seen: &self.seen,
            desired: self.desired,
            room: self.room.saturating_sub(held),
            may_start: true,
        };
        let plan = plan(&scene);
        let tell = |wanted| conditions::status(&scene, wanted, &plan, String::new(), None, Timestamp::UNIX_EPOCH);
        let status = self.wanted.as_ref().map(tell);
        (plan, status)
    }

    /// One look of the controller.
    fn look(&mut self) -> Plan {
        let (plan, status) = self.plan();
        if status.is_some() {
            self.status = status;
        }
        for seen in &mut self.seen {
            let before = seen.traffic.slot;
            seen.traffic.slot = plan.slots.get(&seen.replica.slot).copied().unwrap_or_default();
            seen.traffic.up = matches!(seen.traffic.slot, Slot::Ready(_)) && seen.phase == Phase::Ready;
            let draining = matches!(seen.traffic.slot, Slot::Drain(_));
            if draining && before != seen.traffic.slot {
                seen.traffic.requests = self.requests;
            }
        }
        for action in plan.actions.clone() {
            match action {
                Action::Make(revision) => self.make(revision),
                Action::Start(name) => self.find(&name).phase = Phase::Starting,
                Action::Stop(name) => self.find(&name).phase = Phase::Stopping,
                Action::Forget(name) => self.seen.retain(|seen| seen.replica.name() != name),
            }
        }
        plan
    }

    fn make(&mut self, revision: u32) {
        let free = |slot: &usize| self.seen.iter().all(|seen| seen.replica.slot != *slot);
        let own = self.seen.iter().filter(|seen| seen.replica.revision == revision);
        let number = own.map(|seen| seen.replica.number).max().unwrap_or(0) + 1;
        let slot = (0..).find(free).unwrap();
        let replica = Replica {
            model: "m".to_owned(),
            revision,
            number,
            slot,
            port: 1000 + slot as u16,
            made: Timestamp::UNIX_EPOCH,
            gpus: Vec::new(),
        };
        self.seen.push(Seen { replica, phase: Phase::Starting, running: true, traffic: Traffic::default() });
    }

    fn find(&mut self, name: &str) -> &mut Seen {
        let found = self.seen.iter_mut().find(|seen| seen.replica.name() == name).unwrap();
        found.running = true;
        found
    }

    /// What happens by itself to the replica at `at`.
    fn happen(&mut self, at: usize) {
        let count = self.seen.len().max(1);
        let broken = self.broken.clone();
        let Some(seen) = self.seen.get_mut(at % count) else { return };
        match seen.phase {
            Phase::Starting if broken.contains(&seen.replica.revision) => {
                seen.phase = Phase::Failed(Reason::ModelLoadFailed, "no such model".to_owned());
                seen.running = false;
            }
            Phase::Starting => seen.phase = Phase::Ready,
            Phase::Stopping => (seen.phase, seen.running) = (Phase::Stopped, false),
            _ => seen.traffic.requests = seen.traffic.requests.saturating_sub(1),
        }
        seen.traffic.up = matches!(seen.traffic.slot, Slot::Ready(_)) && seen.phase == Phase::Ready;
    }

    /// Everything happens until nothing does any more.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.look();
            (0..self.seen.len()).for_each(|at| self.happen(at));
        }
        let (plan, _) = self.plan();
        assert_eq!(plan.actions, [], "it does not come to rest");
    }

    /// The replicas that get requests and answer, by revision.
    fn serving(&self) -> Vec<u32> {
        self.seen.iter().filter(|seen| seen.traffic.up).map(|seen| seen.replica.revision).collect()
    }

    fn reason(&self) -> (bool, Option<Reason>) {
        let status = self.status.as_ref().unwrap();
        (status.is_ready(), status.failed().map(|failed| failed.reason))
    }
}

#[test]
fn a_model_comes_up_scales_and_goes() {
    let mut world = World::new();
    world.settle();
    assert_eq!((world.serving(), world.reason()), (vec![1], (true, None)));
    world.desired = 3;
    world.settle();
    assert_eq!(world.serving(), [1, 1, 1]);
    (world.desired, world.requests) = (1, 2);
    world.settle();
    assert_eq!(world.serving(), [1]);
    world.wanted = None;
    world.settle();
    assert_eq!(world.seen, []);
}

#[test]
fn a_replica_is_stopped_only_after_its_last_request() {
    let mut world = World::new();
    world.desired = 2;
    world.settle();
    (world.desired, world.requests) = (1, 3);
    world.look();
    let drained = world.seen.iter().position(|seen| matches!(seen.traffic.slot, Slot::Drain(_))).unwrap();
    for _ in 0..3 {
        assert_eq!(world.look().actions, []);
        world.seen[drained].traffic.requests -= 1;
    }
    assert!(matches!(&*world.look().actions, [Action::Stop(_)]));
    // However long they last, there is an end.
    world.seen[drained].phase = Phase::Ready;
    world.seen[drained].traffic = Traffic { requests: 9, drained_for: DRAIN_TIMEOUT, ..world.seen[drained].traffic };
    assert!(matches!(&*world.look().actions, [Action::Stop(_)]));
}

#[test]
fn a_revision_that_cannot_load_leaves_the_old_one_alone_and_is_not_tried_for_ever() {
    let mut world = World::new();
    world.desired = 2;
    world.settle();
    world.broken = vec![2];
    world.deploy("/2");
    world.settle();
    assert_eq!(world.serving(), [1, 1]);
    assert_eq!(world.reason(), (false, Some(Reason::ModelLoadFailed)));
    // The old one still is a model like any other.
    world.desired = 3;
    world.settle();
    assert_eq!(world.serving(), [1, 1, 1]);
    // The same description again is another try, a good one the end of it.
    world.deploy("/2");
    world.settle();
    assert_eq!(world.status.as_ref().unwrap().latest, 3);
    assert_eq!(world.serving(), [3, 3, 3]);
    assert_eq!(world.reason(), (true, None));
}

#[test]
fn a_first_revision_that_cannot_load_is_told_and_left() {
    let mut world = World::new();
    world.broken = vec![1];
    world.settle();
    assert_eq!((world.seen.len(), world.reason()), (0, (false, Some(Reason::ModelLoadFailed))));
    let ready = world.status.as_ref().unwrap().condition(crate::serving::ConditionKind::Ready).unwrap().clone();
    assert_eq!(ready.message, "no such model");
}

#[test]
fn without_room_for_both_the_old_revision_ends_first() {
    let mut world = World::new();
    world.room = 1;
    world.settle();
    world.deploy("/2");
    world.settle();
    assert_eq!((world.serving(), world.reason()), (vec![2], (true, None)));
    // And without any room at all, it is said.
    let mut none = World::new();
    none.room = 0;
    none.settle();
    assert_eq!(none.reason(), (false, Some(Reason::InsufficientGpu)));
    none.room = 1;
    none.settle();
    assert_eq!(none.reason(), (true, None));
}

#[test]
fn only_numbers_of_replicas_make_no_new_revision() {
    let mut world = World::new();
    world.settle();
    world.deploy("/1");
    if let Some(wanted) = &mut world.wanted {
        wanted.service.replicas.max = 5;
    }
    world.settle();
    assert_eq!((world.serving(), world.status.as_ref().unwrap().latest), (vec![1], 1));
}

/// Something that may happen at any time.
#[derive(Debug, Clone)]
enum Event {
    Look,
    Happen(usize),
    Crash(usize),
    Scale(u32),
    Deploy(u8),
    Forgetful,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Look),
        6 => (0usize..8).prop_map(Event::Happen),
        1 => (0usize..8).prop_map(Event::Crash),
        1 => (1u32..4).prop_map(Event::Scale),
        1 => (0u8..4).prop_map(Event::Deploy),
        1 => Just(Event::Forgetful),
    ]
}

proptest! {
    /// Whatever happens in whatever order, the plan itself never takes the last replica that answers out of the
    /// proxy, and in the end what is wanted is served.
    #[test]
    fn requests_always_have_somewhere_to_go(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        world.settle();
        for event in events {
            match event {
                Event::Look => {
                    let before = world.serving().len();
                    world.look();
                    prop_assert!(before == 0 || !world.serving().is_empty(), "{:#?}", world.seen);
                }
                Event::Happen(at) => world.happen(at),
                Event::Crash(at) => {
                    let count = world.seen.len().max(1);
                    if let Some(seen) = world.seen.get_mut(at % count).filter(|seen| seen.phase == Phase::Ready) {
                        seen.phase = Phase::Starting;
                        seen.traffic.up = false;
                    }
                }
                Event::Scale(desired) => world.desired = desired,
                Event::Deploy(number) => world.deploy(&format!("/{number}")),
                // A proxy that was killed comes back with what its file says: drained slots are off.
                Event::Forgetful => for seen in &mut world.seen {
                    if matches!(seen.traffic.slot, Slot::Drain(_)) {
                        seen.traffic = Traffic::default();
                    }
                },
            }
        }
        world.settle();
        let latest = world.status.as_ref().unwrap().latest;
        prop_assert_eq!(world.serving(), vec![latest; world.desired as usize]);
        prop_assert_eq!(world.reason(), (true, None));
        prop_assert_eq!(world.seen.len(), world.desired as usize);
    }
}
