//! How things are written for people.

use std::fmt::Write as _;

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::error::{CliError, exit};
use crate::event::Counts;
use crate::graph::{Graph, GraphErrors, NodeIndex};
use crate::plan::{Action, Decision, Plan};

/// The problems of a file, each with its place underlined.
impl From<GraphErrors> for CliError {
    fn from(errors: GraphErrors) -> Self {
        let theme = if colored() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width()).with_links(false);
        let mut out = String::new();
        if errors.problems().len() > 1 {
            let _ = writeln!(out, "error: {errors}");
        }
        for problem in errors.problems() {
            if handler.render_report(&mut out, problem).is_err() {
                let _ = writeln!(out, "error: {problem}");
            }
        }
        Self::report(exit::USAGE, out)
    }
}

/// Whether stderr may be coloured.
pub(super) fn colored() -> bool {
    console::colors_enabled_stderr() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn width() -> usize {
    console::Term::stderr().size_checked().map_or(100, |(_, columns)| usize::from(columns).clamp(40, 160))
}

/// A plan as a table: what is done with each task, and why.
pub(super) fn plan(graph: &Graph, plan: &Plan) -> String {
    let mut rows: Vec<(NodeIndex, &Decision)> = plan.iter().collect();
    rows.sort_by(|a, b| graph[a.0].id.cmp(&graph[b.0].id));
    let ids = rows.iter().map(|(index, _)| graph[*index].id.as_str().len()).max().unwrap_or(0);
    let mut out = String::new();
    for (index, decision) in &rows {
        let id = &graph[*index].id;
        let _ = writeln!(out, "{:<12}  {id:<ids$}  {}", decision.action, decision.reason);
    }
    let _ = writeln!(out, "{}", plan_summary(plan));
    out
}

/// How many tasks a plan does what with, in one line.
pub(super) fn plan_summary(plan: &Plan) -> String {
    let count = |action| plan.iter().filter(|(_, decision)| decision.action == action).count();
    let told = [Action::Run, Action::DecideAfter, Action::Keep, Action::Skip, Action::Blocked].into_iter().filter_map(
        |action| match count(action) {
            0 => None,
            n => Some(match action {
                Action::Run => format!("{n} to run"),
                Action::DecideAfter => format!("{n} to be decided"),
                Action::Keep => format!("{n} up to date"),
                Action::Skip => format!("{n} skipped"),
                Action::Blocked => format!("{n} blocked"),
            }),
        },
    );
    let told: Vec<String> = told.collect();
    if told.is_empty() { "no tasks".to_owned() } else { told.join(", ") }
}

/// Whether a run came to what was asked for.
pub(super) fn is_success(counts: &Counts, strict: bool) -> bool {
    let bad = counts.failed + counts.blocked + counts.cancelled;
    bad == 0 && !(strict && counts.degraded + counts.skipped > 0)
}

/// A table with aligned columns; the last one is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == row.len() {
                line.push_str(cell);
            } else {
                let _ = write!(line, "{cell:<width$}  ", width = widths[column]);
            }
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}
