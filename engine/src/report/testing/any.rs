//! Events at random.

use proptest::prelude::*;

use super::{Script, id};
use crate::TaskId;
use crate::event::{Counts, Event, EventKind, PlannedTask, Verb};
use crate::outcome::{Failure, Outcome};
use crate::plan::{Action, Decision, Reason};

/// Any events at all of a graph of a few tasks, sensible or not.
pub(crate) fn any_events() -> impl Strategy<Value = Vec<Event>> {
    (any_beginning(), proptest::collection::vec((any_kind(), 0.0..9.0), 0..60)).prop_map(|(begin, kinds)| {
        let mut script = Script::new(&[]);
        let mut events = vec![script.event(begin)];
        for (kind, seconds) in kinds {
            script.wait(seconds);
            events.push(script.event(kind));
        }
        events
    })
}

fn any_beginning() -> impl Strategy<Value = EventKind> {
    proptest::collection::vec((any_id(), proptest::collection::vec(any_id(), 0..3), any_decision()), 0..8).prop_map(
        |tasks| {
            let planned = |(id, needs, decision)| PlannedTask {
                id,
                title: Some("títle \u{1b}[1m漢字".into()),
                needs,
                decision,
                expected_seconds: Some(3.0),
            };
            EventKind::RunStarted {
                verb: Verb::Run,
                environment: "local".into(),
                jobs: 3,
                tasks: tasks.into_iter().map(planned).collect(),
            }
        },
    )
}

fn any_kind() -> impl Strategy<Value = EventKind> {
    let failure = || "\\PC{0,9}".prop_map(|text| Failure::transient(text).in_step("step").with_hint("try\nharder"));
    let outcome = prop_oneof![
        Just(Outcome::Succeeded),
        Just(Outcome::Degraded { missing: vec!["part".into()] }),
        Just(Outcome::Skipped { reason: "no\u{7} GPU".into() }),
        failure().prop_map(Outcome::from),
        Just(Outcome::Cancelled),
    ];
    prop_oneof![
        1 => any_beginning(),
        4 => (any_id(), any_decision()).prop_map(|(task, decision)| EventKind::TaskDecided { task, decision }),
        9 => (any_id(), any::<u32>()).prop_map(|(task, attempt)| EventKind::TaskStarted { task, attempt, reason: Reason::Forced }),
        3 => (any_id(), ".{0,30}").prop_map(|(task, step)| EventKind::StepStarted { task, step }),
        3 => (any_id(), "[ab]?").prop_map(|(task, step)| EventKind::StepFinished { task, step, kept: true }),
        6 => (any_id(), "(?s).{0,90}").prop_map(|(task, text)| EventKind::Output { task, text }),
        2 => (any_id(), failure(), any::<f64>())
            .prop_map(|(task, error, delay)| EventKind::TaskRetrying { task, attempt: 1, error, delay }),
        6 => (any_id(), outcome, any::<f64>())
            .prop_map(|(task, outcome, seconds)| EventKind::TaskFinished { task, attempt: 1, outcome, seconds }),
        1 => (0_u8..4).prop_map(|level| EventKind::Stopping { level, waiting_for: vec![id("a")] }),
        1 => any::<String>().prop_map(|text| EventKind::Notice { task: None, text }),
        1 => Just(EventKind::RunFinished { counts: Counts::default(), seconds: 1.0, exit_code: 1 }),
    ]
}

fn any_id() -> impl Strategy<Value = TaskId> {
    prop_oneof![Just(id("a")), Just(id("b")), Just(id("CLOUD-3.2")), Just(id("c.10")), Just(id(&"long-".repeat(20)))]
}

fn any_decision() -> impl Strategy<Value = Decision> {
    let reason = prop_oneof![
        Just(Reason::NeverRun),
        any_id().prop_map(|need| Reason::NeedFailed { need }),
        Just(Reason::Stopped { found: "no\nprocess".into() }),
    ];
    let action = prop_oneof![
        3 => Just(Action::Run),
        1 => Just(Action::Keep),
        1 => Just(Action::DecideAfter),
        1 => Just(Action::Skip),
        1 => Just(Action::Blocked),
    ];
    (action, reason).prop_map(|(action, reason)| Decision::new(action, reason))
}
