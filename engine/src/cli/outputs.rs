//! `output` and `env`: what tasks gave, for people and scripts.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::args::{EnvArgs, OutputArgs};
use super::error::{CliError, exit};
use super::main::print;
use super::session::Session;
use super::status::now_of;
use crate::TaskId;
use crate::checkpoint::{Checkpoint, Status, TaskState};
use crate::plan::inspect::field_of;

/// The outputs in the journal, by task, in the order of the ids.
fn outputs(session: &Session, checkpoint: &Checkpoint) -> Vec<(TaskId, Value)> {
    let given = checkpoint.tasks.iter().filter_map(|(id, state)| {
        let record = state.done.as_ref()?.output.as_ref()?;
        let mut value = serde_json::from_str(record.value.get()).ok()?;
        session.world.redactor.redact_json(&mut value);
        Some((id.clone(), value))
    });
    let mut outputs: Vec<(TaskId, Value)> = given.collect();
    outputs.sort_by(|a, b| a.0.cmp(&b.0));
    outputs
}

pub(super) fn output(session: &Session, args: &OutputArgs) -> Result<u8, CliError> {
    let (checkpoint, driven) = session.observe()?;
    let outputs = outputs(session, &checkpoint);
    let Some(id) = &args.id else {
        let all: Map<String, Value> = outputs.into_iter().map(|(id, value)| (id.to_string(), value)).collect();
        return print(&format!("{:#}\n", Value::Object(all)));
    };
    let id = session.task_id(&checkpoint, id)?;
    let Some((_, value)) = outputs.iter().find(|(known, _)| *known == id) else {
        return Err(nothing_given(&id, checkpoint.tasks.get(&id), driven));
    };
    let Some(value) = field_of(value, args.field.as_deref()) else {
        let fields: Vec<&String> = value.as_object().map(|fields| fields.keys().collect()).unwrap_or_default();
        let field = args.field.as_deref().unwrap_or_default();
        return Err(CliError::usage(format!("the output of {id} has no field `{field}`"))
            .with_hint(format!("it has: {}", fields.iter().map(|f| f.as_str()).collect::<Vec<_>>().join(", "))));
    };
    match value {
        Value::String(text) if !args.json => print(&format!("{text}\n")),
        other => print(&format!("{other:#}\n")),
    }
}

/// Why a task has no output.
fn nothing_given(id: &TaskId, state: Option<&Arc<TaskState>>, driven: bool) -> CliError {
    if state.is_some_and(|state| state.done.is_some()) {
        return CliError::usage(format!("{id} gives no output"))
            .with_hint("a command gives what it writes to the file $TASKRUN_OUTPUT, as JSON");
    }
    let status = now_of(state, driven);
    let hint = match status {
        Status::Running => "wait for its end: taskrun watch".to_owned(),
        Status::Failed => format!("see what it wrote: taskrun logs {id}; then: taskrun run {id}"),
        _ => format!("bring it up: taskrun run {id}"),
    };
    CliError::new(exit::FAILED, format!("{id} has given nothing yet: it is {status}")).with_hint(hint)
}

pub(super) fn env(session: &Session, args: &EnvArgs) -> Result<u8, CliError> {
    let checkpoint = session.read()?;
    let named: Vec<TaskId> =
        args.ids.iter().map(|name| session.task_id(&checkpoint, name)).collect::<Result<_, _>>()?;
    let mut out = String::new();
    for (id, value) in outputs(session, &checkpoint).iter().filter(|(id, _)| named.is_empty() || named.contains(id)) {
        export(&mut out, &variable(id.as_str()), value);
    }
    print(&out)
}

/// One line for each leaf of the output: `export CLOUD_3_3_TRACKING_URL='http://…'`.
fn export(out: &mut String, name: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(field, value)| export(out, &format!("{name}_{}", variable(field)), value));
        }
        Value::Null => {}
        Value::String(text) => line(out, name, text),
        other => line(out, name, &other.to_string()),
    }
}

fn line(out: &mut String, name: &str, text: &str) {
    out.push_str(&format!("export {name}='{}'\n", text.replace('\'', r"'\''")));
}

fn variable(name: &str) -> String {
    let upper = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let name: String = upper.collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outputs_become_shell_variables_that_survive_any_text() {
        let mut out = String::new();
        export(
            &mut out,
            &variable("CLOUD-3.3"),
            &json!({"url": "http://x", "n": 3, "deep": {"a b": "it's"}, "no": null}),
        );
        assert_eq!(
            out,
            "export CLOUD_3_3_DEEP_A_B='it'\\''s'\nexport CLOUD_3_3_N='3'\nexport CLOUD_3_3_URL='http://x'\n"
        );
    }
}
