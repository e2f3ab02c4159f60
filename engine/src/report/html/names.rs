//! Which tasks have a row in the table, and links to them.

use serde::Serialize;

use super::critical::Link;
use super::history::History;
use super::page::SHOWN_TASKS;
use crate::report::fold::State;
use crate::report::text::clean;

/// Names the tasks of a run.
pub(super) struct Names<'a> {
    history: &'a History,
    shown: Vec<bool>,
    critical: Vec<bool>,
}

/// A task's name, with a link where its row is shown.
#[derive(Serialize)]
pub(super) struct Name {
    id: String,
    title: Option<String>,
    anchor: Option<usize>,
}

impl<'a> Names<'a> {
    /// Shows all tasks, or of too many those that failed, then those on the critical path, then the longest.
    pub(super) fn new(history: &'a History, path: &[Link]) -> Self {
        let tasks = history.progress.tasks();
        let mut critical = vec![false; tasks.len()];
        for link in path {
            critical[link.task] = true;
        }
        let mut shown = vec![tasks.len() <= SHOWN_TASKS; tasks.len()];
        if tasks.len() > SHOWN_TASKS {
            let weight = |at: usize| match tasks[at].state {
                State::Failed { .. } => f64::INFINITY,
                _ if critical[at] => f64::MAX,
                _ => history.tasks[at].span().map_or(-1.0, |span| span.seconds()),
            };
            let mut heaviest: Vec<usize> = (0..tasks.len()).collect();
            heaviest.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)));
            heaviest[..SHOWN_TASKS].iter().for_each(|&at| shown[at] = true);
        }
        Self { history, shown, critical }
    }

    pub(super) fn is_shown(&self, at: usize) -> bool {
        self.shown[at]
    }

    pub(super) fn is_critical(&self, at: usize) -> bool {
        self.critical[at]
    }

    pub(super) fn of(&self, at: usize) -> Name {
        let task = &self.history.progress.tasks()[at];
        Name {
            id: task.id.to_string(),
            title: task.title.as_ref().map(|title| clean(title).into_owned()),
            anchor: self.shown[at].then_some(at),
        }
    }
}
