//! The graph in the language of Mermaid, which READMEs can show.

use std::fmt::{self, Write};

use super::{CRITICAL, Drawing, Look, Overlay};
use crate::graph::{Graph, NodeIndex};

/// The graph as a Mermaid flowchart, from left to right, one box per phase.
pub fn mermaid(graph: &Graph, overlay: &Overlay) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, &Drawing::new(graph, overlay));
    text
}

fn write(out: &mut String, drawing: &Drawing<'_>) -> fmt::Result {
    writeln!(out, "flowchart LR")?;
    for (number, (phase, tasks)) in drawing.phases().into_iter().enumerate() {
        match phase {
            None => tasks.into_iter().try_for_each(|task| node(out, drawing, task))?,
            Some(phase) => {
                writeln!(out, "  subgraph phase{number}[\"{phase}\"]")?;
                for task in tasks {
                    out.push_str("  ");
                    node(out, drawing, task)?;
                }
                writeln!(out, "  end")?;
            }
        }
    }
    for edge in drawing.edges() {
        let arrow = match (edge.critical, edge.optional) {
            (true, _) => "==>",
            (false, true) => "-.->",
            (false, false) => "-->",
        };
        writeln!(out, "  t{} {arrow} t{}", edge.from.index(), edge.to.index())?;
    }
    for class in drawing.classes() {
        let Look { fill, border, text, dashed } = class.look();
        let dashes = if dashed { ",stroke-dasharray:5 3" } else { "" };
        writeln!(out, "  classDef {} fill:{fill},stroke:{border},color:{text}{dashes}", class.name())?;
    }
    let critical = drawing.overlay.critical.iter().filter(|task| drawing.shows(**task));
    critical
        .into_iter()
        .try_for_each(|task| writeln!(out, "  style t{} stroke:{CRITICAL},stroke-width:3px", task.index()))
}

fn node(out: &mut String, drawing: &Drawing<'_>, task: NodeIndex) -> fmt::Result {
    let label: Vec<String> = drawing.label(task).iter().map(|line| escaped(line)).collect();
    let class = drawing.state(task).map(|state| format!(":::{}", state.class.name())).unwrap_or_default();
    writeln!(out, "  t{}[\"{}\"]{class}", task.index(), label.join("<br/>"))
}

/// `text` for between double quotes: what Mermaid, Markdown or HTML would take for something else becomes an entity.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' | ';' | '*' | '_' | '[' | ']' => {
                escaped.push_str(&format!("#{};", u32::from(c)));
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
