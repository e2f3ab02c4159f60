//! The graph in the language of Graphviz.

use std::fmt::{self, Write};

use super::{CRITICAL, Class, Drawing, Look, Overlay};
use crate::graph::{Graph, NodeIndex};

/// The graph for `dot -Tsvg`, from left to right, one box per phase.
pub fn dot(graph: &Graph, overlay: &Overlay) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, &Drawing::new(graph, overlay));
    text
}

fn write(out: &mut String, drawing: &Drawing<'_>) -> fmt::Result {
    writeln!(out, "digraph taskrun {{")?;
    writeln!(out, "  graph [rankdir=LR, ranksep=0.6, nodesep=0.25, newrank=true, bgcolor=\"#ffffff\"];")?;
    writeln!(out, "  graph [fontname=\"Helvetica,Arial,sans-serif\", fontsize=12, labeljust=l];")?;
    writeln!(out, "  node [fontname=\"Helvetica,Arial,sans-serif\", fontsize=11, shape=box, margin=\"0.14,0.07\"];")?;
    writeln!(out, "  edge [color=\"#666666\", arrowsize=0.7];")?;
    for (phase, tasks) in drawing.phases() {
        let Some(phase) = phase else {
            tasks.into_iter().try_for_each(|task| node(out, drawing, task))?;
            continue;
        };
        writeln!(out, "  subgraph \"cluster_{phase}\" {{")?;
        writeln!(out, "    label=\"{phase}\"; style=\"rounded,filled\"; color=\"#bbbbbb\"; fillcolor=\"#f7f7f7\";")?;
        for task in tasks {
            out.push_str("  ");
            node(out, drawing, task)?;
        }
        writeln!(out, "  }}")?;
    }
    for edge in drawing.edges() {
        let (from, to) = (&drawing.graph[edge.from].id, &drawing.graph[edge.to].id);
        let look = match (edge.critical, edge.optional) {
            (true, _) => format!("color=\"{CRITICAL}\", penwidth=3, tooltip=\"{from} -> {to}, on the critical path\""),
            (false, true) => format!("style=dashed, tooltip=\"{from} -> {to}, can do without\""),
            (false, false) => format!("tooltip=\"{from} -> {to}\""),
        };
        writeln!(out, "  \"{from}\" -> \"{to}\" [{look}];")?;
    }
    legend(out, &drawing.classes(), !drawing.on_path.is_empty())?;
    writeln!(out, "}}")
}

fn node(out: &mut String, drawing: &Drawing<'_>, task: NodeIndex) -> fmt::Result {
    let node = &drawing.graph[task];
    let label: Vec<String> = drawing.label(task).iter().map(|line| escaped(line)).collect();
    let mut tooltip = node.id.to_string();
    let state = drawing.state(task).map(|state| format!("{}: {}", state.class.name(), state.label));
    for part in node.title.iter().map(|title| title.to_string()).chain(state) {
        write!(tooltip, "\n{part}")?;
    }
    let critical = drawing.on_path.contains(&task);
    write!(out, "  \"{}\" [label=\"{}\", {}", node.id, label.join("\\n"), style(&drawing.look(task), critical))?;
    writeln!(out, ", tooltip=\"{}\"];", escaped(&tooltip))
}

fn style(look: &Look, critical: bool) -> String {
    let Look { fill, border, text, dashed } = look;
    let style = if *dashed { "rounded,filled,dashed" } else { "rounded,filled" };
    let (border, width) = if critical { (CRITICAL, 3) } else { (*border, 1) };
    format!("style=\"{style}\", fillcolor=\"{fill}\", color=\"{border}\", fontcolor=\"{text}\", penwidth={width}")
}

/// One node with a table, so that the legend takes little room and the layout does not depend on it.
fn legend(out: &mut String, classes: &[Class], critical: bool) -> fmt::Result {
    if classes.is_empty() {
        return Ok(());
    }
    write!(out, "  \"/legend\" [shape=plain, tooltip=\"legend\", label=<<table border=\"0\" cellspacing=\"3\">")?;
    for class in classes {
        let Look { fill, border, text, dashed } = class.look();
        let style = if dashed { "rounded,dashed" } else { "rounded" };
        write!(out, "<tr><td border=\"1\" style=\"{style}\" bgcolor=\"{fill}\" color=\"{border}\">")?;
        write!(out, "<font color=\"{text}\">{} {}</font></td></tr>", class.mark(), class.name())?;
    }
    if critical {
        write!(out, "<tr><td border=\"3\" style=\"rounded\" color=\"{CRITICAL}\">critical path</td></tr>")?;
    }
    writeln!(out, "</table>>];")
}

/// `text` for between double quotes; a line break is written as one.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            // In SVG, `&` would begin an entity.
            '&' => escaped.push_str("&amp;"),
            '\n' => escaped.push_str("\\n"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
