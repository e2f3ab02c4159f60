//! A plain command of the graph as something that can be run.

use serde_json::Value;

use crate::graph::{CommandSpec, EnvValue, Run};
use crate::outcome::Failure;
use crate::plan::inspect::field_of;
use crate::process::Command;
use crate::world::{Upstream, World};

/// `run` (one of the command lines of `spec`) with the node's folder and environment.
///
/// # Errors
/// A field that the environment reads is not in the output, or a secret does not exist.
pub(crate) fn build(world: &World, spec: &CommandSpec, run: &Run, upstream: &Upstream) -> Result<Command, Failure> {
    let mut command = line(run)?.dir(world.folder_of(spec));
    for (name, value) in &spec.env {
        command = match value {
            EnvValue::Literal(text) => command.env(&**name, &**text),
            EnvValue::Secret { secret } => {
                let (_, found) = world.secrets.present(secret).ok_or_else(|| {
                    Failure::permanent(format!("set {name}: there is no secret `{secret}`"))
                        .with_hint("see which there are: taskrun secret list")
                })?;
                command.env(&**name, found.expose())
            }
            EnvValue::From { from, field } => {
                let Some(output) = upstream.get(from) else {
                    // The task was skipped and this one can do without: the variable is not set.
                    continue;
                };
                let value = field_of(&output.value, field.as_deref()).ok_or_else(|| {
                    let field = field.as_deref().unwrap_or_default();
                    Failure::permanent(format!("set {name}: the output of {from} has no field `{field}`"))
                        .with_hint(format!("see what it has: taskrun output {from}"))
                })?;
                command.env(&**name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            }
        };
    }
    Ok(command)
}

/// `run` as it was recorded for a node that the graph no longer has: with its folder and the literal part of its
/// environment.
pub(crate) fn bare(world: &World, run: &Run, settings: &Value) -> Result<Command, Failure> {
    let folder = world.dirs.graph.join(settings["dir"].as_str().unwrap_or_default());
    let env = settings["env"].as_object().into_iter().flatten();
    let literal = env.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    Ok(literal.fold(line(run)?.dir(folder), |command, (name, value)| command.env(name, value)))
}

fn line(run: &Run) -> Result<Command, Failure> {
    match run {
        Run::Shell(script) => Ok(Command::shell(&**script)),
        Run::Argv(words) => {
            let (program, args) = words.split_first().ok_or_else(|| Failure::permanent("run an empty command"))?;
            Ok(Command::new(&**program).args(args.iter().map(|arg| &**arg)))
        }
    }
}
