//! What made the run as long as it was.

use super::history::{History, Span};

/// A task on the critical path.
#[derive(Debug, PartialEq)]
pub(super) struct Link {
    /// Its position in the run's tasks.
    pub(super) task: usize,
    pub(super) span: Span,
    /// How long it could have begun earlier, in seconds: it waited for a free slot, a pool, or a decision.
    pub(super) waited: f64,
}

/// When each task could begin: when the last of its needs ended, and which of those that ran that was.
///
/// A need that did not run took no time itself, and passes on what it waited for if it was decided about after that.
pub(super) fn ready(history: &History) -> Vec<(f64, Option<usize>)> {
    let mut ready = vec![(0.0, None); history.tasks.len()];
    for &at in history.progress.order() {
        for &need in &history.progress.tasks()[at].needs {
            let ended = match history.tasks[need].span() {
                Some(span) => (span.end, Some(need)),
                None if history.tasks[need].is_decided_later => ready[need],
                None => continue,
            };
            if ended.0 > ready[at].0 {
                ready[at] = ended;
            }
        }
    }
    ready
}

/// The chain of tasks, each waiting for the one before it, at whose end the run's last task ended.
pub(super) fn path(history: &History) -> Vec<Link> {
    let ready = ready(history);
    let ends = history.tasks.iter().enumerate().filter_map(|(at, task)| Some((at, task.span()?.end)));
    let mut next = ends.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at);
    let mut path = Vec::new();
    while let Some((at, span)) = next.and_then(|at| Some((at, history.tasks[at].span()?))) {
        path.push(Link { task: at, span, waited: (span.begin - ready[at].0).max(0.0) });
        // Each task ended before the next began, unless the events lie; then the chain ends here.
        next = ready[at].1.filter(|&need| history.tasks[need].span().is_some_and(|need| need.end <= span.begin));
        if path.len() > history.tasks.len() {
            break;
        }
    }
    path.reverse();
    path
}

/// How much later each task that ran could have ended, in seconds, without any task that needs it beginning later than
/// the end of the run allows.
pub(super) fn slack(history: &History) -> Vec<Option<f64>> {
    let spans: Vec<_> = history.tasks.iter().map(|task| task.span()).collect();
    let end = spans.iter().flatten().map(|span| span.end).fold(0.0, f64::max);
    let mut latest_end = vec![end; spans.len()];
    for &at in history.progress.order().iter().rev() {
        for &dependent in history.progress.dependents(at) {
            let allowed = match spans[dependent] {
                Some(span) => latest_end[dependent] - span.seconds(),
                None if history.tasks[dependent].is_decided_later => latest_end[dependent],
                None => continue,
            };
            latest_end[at] = latest_end[at].min(allowed);
        }
    }
    let slack = |(span, latest): (&Option<Span>, f64)| span.map(|span| (latest - span.end).max(0.0));
    spans.iter().zip(latest_end).map(slack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventKind};
    use crate::plan::{Action, Decision, Reason};
    use crate::report::testing::{self, Script};

    /// `a` (5 s), then `kept`, then `b` (1 s) after having waited for a slot for 2 s, beside `short` (3 s).
    fn events() -> Vec<Event> {
        let mut script = Script::new(&[("a", &[]), ("kept", &["a"]), ("b", &["kept", "short"]), ("short", &[])]);
        let after = Reason::After { tasks: vec![testing::id("a")] };
        script = script.planning("kept", Action::DecideAfter, after);
        let mut events = vec![script.begin(), script.started("a"), script.started("short")];
        script.wait(3.0);
        events.push(script.succeeded("short", 3.0));
        script.wait(2.0);
        events.push(script.succeeded("a", 5.0));
        let decision = Decision::new(Action::Keep, Reason::UpToDate);
        events.push(script.event(EventKind::TaskDecided { task: testing::id("kept"), decision }));
        script.wait(2.0);
        events.push(script.started("b"));
        script.wait(1.0);
        events.push(script.succeeded("b", 1.0));
        events
    }

    #[test]
    fn the_path_goes_through_tasks_that_did_not_run() {
        let history = History::of(&events()).unwrap();
        let path = path(&history);
        assert_eq!(path.iter().map(|link| (link.task, link.waited)).collect::<Vec<_>>(), [(0, 0.0), (2, 2.0)]);
    }

    #[test]
    fn a_task_that_was_kept_from_the_start_holds_up_nothing() {
        let mut script = Script::new(&[("a", &[]), ("kept", &["a"]), ("b", &["kept"])]);
        script = script.planning("kept", Action::Keep, Reason::UpToDate);
        let mut events = vec![script.begin(), script.started("a")];
        script.wait(2.0);
        events.push(script.started("b"));
        script.wait(1.0);
        events.extend([script.succeeded("a", 3.0), script.succeeded("b", 1.0)]);
        let history = History::of(&events).unwrap();
        let path = path(&history);
        assert_eq!(path.iter().map(|link| (link.task, link.waited)).collect::<Vec<_>>(), [(2, 2.0)]);
        assert_eq!(slack(&history), [Some(0.0), None, Some(0.0)]);
    }

    #[test]
    fn slack_is_what_the_end_of_the_run_leaves() {
        let history = History::of(&events()).unwrap();
        assert_eq!(slack(&history), [Some(2.0), None, Some(0.0), Some(4.0)]);
    }
}
