//! The key of a task as it would run now, and the state of the files that it made.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::TaskId;
use crate::checkpoint::{FileRole, FileStamp, TaskState};
use crate::context::UpstreamOutput;
use crate::fingerprint::{Digest, KeyParts};
use crate::graph::{CommandSpec, EnvValue, NodeIndex, NodeKind, Run};
use crate::outcome::{Failure, Persistence};
use crate::plan::Reason;
use crate::plan::files::{self, Look};
use crate::world::{Upstream, World, upstream_output};

/// What is known of a task before it is judged: collected on the loop, cheap, and sent to a worker.
pub(crate) struct Brief {
    pub(crate) index: NodeIndex,
    pub(crate) state: Option<Arc<TaskState>>,
    /// The successes of the tasks whose outputs it reads; nothing for one that is still to run or is skipped.
    pub(crate) reads: Vec<(NodeIndex, Option<Arc<TaskState>>)>,
}

/// What a task would run with now.
pub(crate) struct Inspection {
    /// Of a command without its settings, which are seldom needed: see [`whole_parts`](Self::whole_parts).
    parts: KeyParts,
    /// The key; nothing as long as a part is not known.
    pub(crate) key: Option<Digest>,
    pub(crate) upstream: Upstream,
    pub(crate) inputs: Vec<FileStamp>,
    /// A file that it made and that is not as it was left.
    pub(crate) damage: Option<Reason>,
}

impl Inspection {
    /// All that the key is made of.
    pub(crate) fn whole_parts(&self, world: &World, index: NodeIndex) -> KeyParts {
        let mut parts = self.parts.clone();
        if let NodeKind::Command(command) = &world.graph[index].kind {
            parts.settings = command.settings();
        }
        parts
    }
}

/// Looks at everything that a task's key is made of. Reads files: not for the loop.
///
/// `unsettled` tells whether a task, or one below it, is still to run.
pub(crate) fn inspect(
    world: &World,
    look: &dyn Look,
    brief: &Brief,
    unsettled: &dyn Fn(NodeIndex) -> bool,
) -> Result<Inspection, Failure> {
    let mut upstream = BTreeMap::new();
    let mut known = true;
    for (index, state) in &brief.reads {
        match state.as_deref().and_then(|state| state.done.as_deref()) {
            _ if unsettled(*index) => known = false,
            Some(done) => {
                let output = upstream_output(world.output_kind(*index), done);
                upstream.extend(output.map(|output| (world.graph[*index].id.clone(), output)));
            }
            None => {}
        }
    }
    let mut looked =
        Looked { world, look, brief, parts: KeyParts::default(), settings: None, inputs: Vec::new(), known };
    match &world.graph[brief.index].kind {
        NodeKind::Plugin { uses, .. } => looked.plugin(uses, &upstream)?,
        NodeKind::Command(command) => looked.command(command, &upstream, unsettled)?,
    }
    let Looked { parts, settings, inputs, known, .. } = looked;
    let key = known.then(|| {
        let settings = settings.unwrap_or_else(|| Digest::of_json(&parts.settings));
        parts.key_with_settings(&world.graph[brief.index].id, settings)
    });
    let damage = look_for_damage(world, look, brief)?;
    Ok(Inspection { parts, key, upstream: Arc::new(upstream), inputs, damage })
}

/// What a `destroy` needs to know of the node even when the graph no longer has it.
pub(crate) fn aside(world: &World, index: NodeIndex) -> Value {
    let needs: Value = world.graph.needs(index).map(|(need, _)| json!(world.graph[need].id)).collect();
    match &world.graph[index].kind {
        NodeKind::Command(command) => {
            json!({"needs": needs, "destroy": command.destroy.as_ref().map(Run::to_json)})
        }
        NodeKind::Plugin { with, .. } => json!({"needs": needs, "with": with}),
    }
}

struct Looked<'a> {
    world: &'a World,
    look: &'a dyn Look,
    brief: &'a Brief,
    parts: KeyParts,
    /// The digest of the settings, where it is known already.
    settings: Option<Digest>,
    inputs: Vec<FileStamp>,
    known: bool,
}

impl Looked<'_> {
    fn plugin(&mut self, uses: &str, upstream: &BTreeMap<TaskId, UpstreamOutput>) -> Result<(), Failure> {
        let Some(task) = &self.world.bound.node(self.brief.index).task else {
            return Err(Failure::permanent(format!("no plugin is called `{uses}`")));
        };
        self.parts.plugin = uses.to_owned();
        self.parts.version = task.version();
        self.parts.settings = task.settings()?;
        self.parts.reads = upstream.iter().map(|(id, output)| (id.clone(), output.value.clone())).collect();
        for name in task.secrets() {
            self.secret(&name);
        }
        let assets = task.assets().into_iter();
        self.parts.assets = assets.map(|(name, bytes)| (name.to_owned(), Digest::of(bytes))).collect();
        for path in task.inputs() {
            self.input(&self.world.dirs.graph.clone(), &path.to_string_lossy())?;
        }
        Ok(())
    }

    fn command(
        &mut self,
        command: &CommandSpec,
        upstream: &BTreeMap<TaskId, UpstreamOutput>,
        unsettled: &dyn Fn(NodeIndex) -> bool,
    ) -> Result<(), Failure> {
        self.parts.plugin = COMMAND.to_owned();
        self.parts.version = 1;
        self.settings = Some(command.settings_digest);
        for (_, value) in &command.env {
            match value {
                EnvValue::Literal(_) => {}
                EnvValue::Secret { secret } => self.secret(secret),
                EnvValue::From { from, field } => {
                    let Some(output) = upstream.get(from) else { continue };
                    let value = field_of(&output.value, field.as_deref()).cloned().unwrap_or_default();
                    let read = self.parts.reads.entry(from.clone()).or_insert_with(|| Value::Object(Map::new()));
                    read[field.as_deref().unwrap_or(WHOLE)] = value;
                }
            }
        }
        let folder = self.world.folder_of(command);
        let waits = || self.world.graph.needs(self.brief.index).any(|(need, _)| unsettled(need));
        for pattern in &command.inputs {
            let to_be_made = match files::is_glob(pattern) {
                // Which files match is not known before everything below has run.
                true => waits(),
                false => waits() && self.world.producer_of(&folder.join(&**pattern)).is_some_and(unsettled),
            };
            if to_be_made {
                self.known = false;
            } else {
                self.input(&folder, pattern)?;
            }
        }
        Ok(())
    }

    fn secret(&mut self, name: &str) {
        // The user's own may have changed since it was last fetched; one that does not exist yet is made by the task.
        let own = self.world.sources.iter().find(|(own, _)| own == name);
        let own = own.and_then(|(_, source)| self.world.secrets.preview(name, source).ok());
        let version = own.map_or_else(|| self.world.secrets.expected(name), |reference| reference.version);
        self.parts.secrets.insert(name.to_owned(), version);
    }

    fn input(&mut self, folder: &std::path::Path, pattern: &str) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::caused(Persistence::Permanent, format!("read the input `{pattern}`"), &error)
        };
        let found = files::expand(self.look, folder, pattern).map_err(failed)?;
        if found.is_empty() && !files::is_glob(pattern) {
            self.parts.inputs.insert(pattern.to_owned(), None);
        }
        for path in found {
            let known = stamps(self.brief).find(|stamp| stamp.role == FileRole::Input && *stamp.path == *path);
            let stamp = files::stamp(self.look, folder, &path, FileRole::Input, known).map_err(failed)?;
            self.parts.inputs.insert(path, stamp.as_ref().map(|stamp| stamp.digest));
            self.inputs.extend(stamp);
        }
        Ok(())
    }
}

/// What the whole of an output is called among the fields that a command reads of it.
const WHOLE: &str = "(all)";

/// What stands for a plugin's name in the key of a plain command.
pub(crate) const COMMAND: &str = "command";

fn stamps(brief: &Brief) -> impl Iterator<Item = &FileStamp> {
    brief.state.iter().filter_map(|state| state.done.as_ref()).flat_map(|done| &done.files)
}

fn look_for_damage(world: &World, look: &dyn Look, brief: &Brief) -> Result<Option<Reason>, Failure> {
    let NodeKind::Command(command) = &world.graph[brief.index].kind else { return Ok(None) };
    let folder = world.folder_of(command);
    for made in stamps(brief).filter(|stamp| stamp.role == FileRole::Output) {
        let damage = files::damage(look, &folder, made).map_err(|error| {
            Failure::caused(Persistence::Permanent, format!("read the output `{}`", made.path), &error)
        })?;
        if damage.is_some() {
            return Ok(damage);
        }
    }
    Ok(None)
}

/// The value at a dotted path.
pub(crate) fn field_of<'v>(value: &'v Value, field: Option<&str>) -> Option<&'v Value> {
    let Some(field) = field else { return Some(value) };
    // A name may itself hold dots: the longest that fits wins.
    if let Some(found) = value.get(field) {
        return Some(found);
    }
    field.match_indices('.').rev().find_map(|(at, _)| {
        let inner = match value.get(&field[..at]) {
            Some(inner) => inner,
            None => value.get(field[..at].parse::<usize>().ok()?)?,
        };
        field_of(inner, Some(&field[at + 1..]))
    })
}
