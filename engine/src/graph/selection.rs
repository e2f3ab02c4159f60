//! Which tasks a person means.

use super::diagnose::nearest;
use super::{Graph, NodeIndex};
use crate::TaskId;

/// What a person asks for on the command line: ids, or the phases that ids begin with (`CLOUD-3` for `CLOUD-3.2`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// These and everything that they need.
    pub until: Vec<String>,
    /// These and everything that depends on them, again.
    pub from: Vec<String>,
    /// Exactly these; excludes `until` and `from`.
    pub only: Vec<String>,
    /// These are left out, whatever else is asked for.
    pub skip: Vec<String>,
    /// These run even if nothing has changed.
    pub force: Vec<String>,
}

/// A [`Selection`] of a graph: one flag per task, by its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Whether the task belongs to the run.
    pub wanted: Vec<bool>,
    /// Whether it runs even if nothing has changed.
    pub forced: Vec<bool>,
    /// Whether it is left out because the person said so.
    pub skipped: Vec<bool>,
}

/// Why a [`Selection`] means nothing; all reasons at once, at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct SelectionErrors {
    /// The reasons in the order of what was asked for.
    pub reasons: Vec<SelectionError>,
}

/// One reason why a [`Selection`] means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// A name is neither a task nor a phase.
    #[error("there is no task or phase `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// The id or phase that is most like it, if one is alike.
        nearest: Option<String>,
    },
    /// `only` stands together with `until` or `from`.
    #[error("`only` cannot be combined with `until` or `from`")]
    OnlyAndMore,
}

impl SelectionError {
    /// What to try.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest, .. } => nearest.as_ref().map(|nearest| format!("did you mean `{nearest}`?")),
            Self::OnlyAndMore => None,
        }
    }
}

impl Selection {
    /// The selection of everything that `names` need, and of the whole graph without names.
    pub fn until(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { until: names.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Finds the tasks in `graph`.
    ///
    /// With neither `until`, `from` nor `only` all tasks are wanted; with `until` and `from` what either asks for. A
    /// task of `from` brings its ancestors and those of its descendants into the run, but only it and its descendants
    /// are forced.
    ///
    /// # Errors
    /// Names each name that is unknown, and what cannot be combined.
    pub fn resolve(&self, graph: &Graph) -> Result<Selected, SelectionErrors> {
        let mut names = Names { graph, reasons: Vec::new() };
        let restricted = !(self.until.is_empty() && self.from.is_empty());
        if restricted && !self.only.is_empty() {
            names.reasons.push(SelectionError::OnlyAndMore);
        }
        let until = names.find(&self.until);
        let from = names.find(&self.from);
        let only = names.find(&self.only);
        let skip = names.find(&self.skip);
        let force = names.find(&self.force);
        if !names.reasons.is_empty() {
            return Err(SelectionErrors { reasons: names.reasons });
        }
        let again = graph.with_descendants(from);
        let wanted = if !self.only.is_empty() {
            flags(graph, only)
        } else if restricted {
            graph.with_ancestors(until.into_iter().chain(graph.indices().filter(|task| again[task.index()])))
        } else {
            vec![true; graph.len()]
        };
        let mut forced = flags(graph, force);
        forced.iter_mut().zip(again).for_each(|(forced, again)| *forced |= again);
        Ok(Selected { wanted, forced, skipped: flags(graph, skip) })
    }
}

fn flags(graph: &Graph, tasks: Vec<NodeIndex>) -> Vec<bool> {
    let mut flags = vec![false; graph.len()];
    tasks.into_iter().for_each(|task| flags[task.index()] = true);
    flags
}

struct Names<'a> {
    graph: &'a Graph,
    reasons: Vec<SelectionError>,
}

impl Names<'_> {
    /// The tasks that `names` stand for; an id wins over a phase.
    fn find(&mut self, names: &[String]) -> Vec<NodeIndex> {
        let mut found = Vec::new();
        for name in names {
            let exact = TaskId::new(name).ok().and_then(|id| self.graph.find(&id));
            match exact {
                Some(task) => found.push(task),
                None => {
                    let before = found.len();
                    found.extend(self.graph.indices().filter(|task| is_within(&self.graph[*task].id, name)));
                    if found.len() == before {
                        self.unknown(name);
                    }
                }
            }
        }
        found
    }

    fn unknown(&mut self, name: &str) {
        let ids = || self.graph.indices().map(|task| &self.graph[task].id);
        let known = ids().map(TaskId::as_str).chain(ids().filter_map(TaskId::phase));
        let nearest = nearest(name, known).map(str::to_owned);
        self.reasons.push(SelectionError::Unknown { name: name.to_owned(), nearest });
    }
}

/// Whether `id` is `phase` with a dot and more behind it.
fn is_within(id: &TaskId, phase: &str) -> bool {
    id.as_str().strip_prefix(phase).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::super::testing::graph;
    use super::*;

    fn chosen(flags: &[bool], graph: &Graph) -> String {
        let chosen = graph.indices().filter(|task| flags[task.index()]).map(|task| graph[task].id.to_string());
        chosen.collect::<Vec<_>>().join(" ")
    }

    fn sample() -> Graph {
        graph("{P-1.1: {}, P-1.2: {needs: P-1.1}, P-2.1: {needs: P-1.2}, P-2.2: {needs: P-1.1}, P-10.1: {}, P-1: {}}")
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn until_brings_ancestors() {
        let graph = sample();
        let selected = Selection::until(["P-1.2", "P-10"]).resolve(&graph).unwrap();
        assert_eq!(chosen(&selected.wanted, &graph), "P-1.1 P-1.2 P-10.1");
        assert_eq!(chosen(&selected.forced, &graph), "");
    }

    #[test]
    fn nothing_asked_for_is_everything() {
        let graph = sample();
        let selected = Selection { skip: names(&["P-2"]), ..Selection::default() }.resolve(&graph).unwrap();
        assert!(selected.wanted.iter().all(|wanted| *wanted));
        assert_eq!(chosen(&selected.skipped, &graph), "P-2.1 P-2.2");
    }

    #[test]
    fn from_forces_descendants_and_brings_what_they_need() {
        let graph = sample();
        let selection = Selection { from: names(&["P-1.2"]), force: names(&["P-10.1"]), ..Selection::default() };
        let selected = selection.resolve(&graph).unwrap();
        assert_eq!(chosen(&selected.wanted, &graph), "P-1.1 P-1.2 P-2.1");
        assert_eq!(chosen(&selected.forced, &graph), "P-1.2 P-2.1 P-10.1");
    }

    #[test]
    fn until_and_from_together_want_both() {
        let graph = sample();
        let selection = Selection { until: names(&["P-10.1"]), from: names(&["P-2.2"]), ..Selection::default() };
        assert_eq!(chosen(&selection.resolve(&graph).unwrap().wanted, &graph), "P-1.1 P-2.2 P-10.1");
    }

    #[test]
    fn an_exact_id_wins_over_a_phase() {
        let graph = sample();
        let selected = Selection { only: names(&["P-1", "P-2"]), ..Selection::default() }.resolve(&graph).unwrap();
        assert_eq!(chosen(&selected.wanted, &graph), "P-2.1 P-2.2 P-1");
    }

    #[test]
    fn says_all_that_is_wrong_at_once() {
        let graph = sample();
        let selection = Selection { until: names(&["P-1.3", "x"]), only: names(&["Q-2"]), ..Selection::default() };
        let errors = selection.resolve(&graph).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "`only` cannot be combined with `until` or `from`; there is no task or phase `P-1.3`; \
             there is no task or phase `x`; there is no task or phase `Q-2`"
        );
        let hints: Vec<_> = errors.reasons.iter().filter_map(SelectionError::hint).collect();
        assert_eq!(hints, ["did you mean `P-1.1`?", "did you mean `P-2`?"]);
    }
}
