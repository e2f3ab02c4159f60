//! What can be wrong with a graph file.

use std::fmt;
use std::path::PathBuf;

use crate::{TaskId, TaskIdError};

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says in its message what it and its fields are")]
#[non_exhaustive]
pub enum ProblemKind {
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("`{}` is a folder, not a graph file", path.display())]
    Folder { path: PathBuf },
    #[error("`{}` is larger than {limit} MiB", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("the file is not UTF-8 text")]
    NotUtf8,
    #[error("the file is empty")]
    Empty,
    #[error("the YAML is broken: {0}")]
    Syntax(String),
    #[error("a second YAML document begins here")]
    SecondDocument,
    #[error("lists and mappings are nested deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("anchors and aliases copy more than {limit} values")]
    TooManyCopies { limit: usize },
    #[error("the alias stands for a value that it is part of")]
    AliasInsideItself,
    #[error("the tag `{tag}` means nothing here")]
    Tag { tag: String },

    #[error("expected {expected}, found {found}")]
    WrongType { expected: &'static str, found: &'static str },
    #[error("`{text}` is not {expected}")]
    BadValue { text: String, expected: &'static str },
    #[error("{of} has no field `{field}`")]
    UnknownField { field: String, of: &'static str, nearest: Option<String> },
    #[error("{of} needs the field `{field}`")]
    MissingField { field: &'static str, of: &'static str },
    #[error("`{key}` stands here twice, first in line {first}")]
    DuplicateKey { key: String, first: usize },
    #[error("a text holds a NUL character")]
    Nul,
    #[error("{what} of 0 makes no sense")]
    Zero { what: &'static str },
    #[error("`{text}` is not a duration")]
    Duration { text: String },
    #[error("`{text}` is not a glob: {reason}")]
    Glob { text: String, reason: String },
    #[error("an environment variable cannot be called `{name}`")]
    EnvName { name: String },
    #[error(
        "the value of an environment variable is a text, `{{from: ID}}`, `{{from: ID, field: PATH}}` or `{{secret: NAME}}`"
    )]
    EnvForm,

    #[error("the file does not say its format's version")]
    NoVersion,
    #[error("the file is made for a newer taskrun: its version is {found}, the newest known here is {known}")]
    NewerVersion { found: u64, known: u64 },
    #[error("there are no tasks")]
    NoTasks,
    #[error("`{id}` cannot be the id of a task: {source}")]
    BadId { id: String, source: TaskIdError },
    #[error("the task `{id}` is declared twice, first at {first}")]
    DuplicateTask { id: TaskId, first: String },
    #[error("the pool `{name}` is declared twice, first at {first}")]
    DuplicatePool { name: String, first: String },
    #[error("a graph has at most {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("`uses` and `with` are for plugins, and this task has a command (`run`)")]
    PluginFieldOfCommand,
    #[error("`{field}` belongs to a command, and this task has none (`run`)")]
    CommandFieldWithoutRun { field: &'static str },

    #[error("there is no task `{id}`")]
    UnknownTask { id: String, nearest: Option<String> },
    #[error("`{id}` is needed twice")]
    DuplicateNeed { id: TaskId },
    #[error("`{id}` needs itself")]
    SelfNeed { id: TaskId },
    #[error("`{id}` is not among the task's needs")]
    NotANeed { id: String },
    #[error("the tasks need each other: {}", written_out(cycle))]
    Cycle { cycle: Vec<TaskId> },
    #[error("there is no pool `{name}`")]
    UnknownPool { name: String, nearest: Option<String> },
    #[error("{amount} of `{pool}` can never be had, its capacity is {capacity}")]
    OverCapacity { pool: String, amount: u32, capacity: u32 },
    #[error("an output of `{from}` is read, and `{from}` is no ancestor of `{reader}`")]
    OutputOfNoAncestor { from: TaskId, reader: TaskId },
    #[error("`{id}` reads an output of its own")]
    OwnOutput { id: TaskId },
    #[error("`{path}` is made by `{producer}`, which is no ancestor of `{reader}`")]
    FileOfNoAncestor { path: String, producer: TaskId, reader: TaskId },
    #[error("`{path}` is made by two tasks, first by `{first}`")]
    SameOutput { path: String, first: TaskId },
    #[error("there is no plugin `{name}`")]
    UnknownPlugin { name: String, nearest: Option<String>, is_id: bool },
    #[error("the plugin `{plugin}` has no parameter `{name}`")]
    UnknownParameter { plugin: String, name: String, nearest: Option<String>, known: &'static [&'static str] },
    #[error("`{id}` cannot be made by its plugin: {why}")]
    Parameters { id: TaskId, why: String },
    #[error("`{id}` reads the output `{kind}`, which no task that it needs makes")]
    OutputMissing { id: TaskId, kind: String, makers: Vec<TaskId>, plugins: Vec<&'static str> },
    #[error("`{id}` reads the output `{kind}` of `{from}`, which makes something else")]
    OutputOfOtherKind { id: TaskId, from: TaskId, kind: String },
    #[error("`{id}` reads the output `{kind}`, which more than one task makes that it needs: {}", listed(makers))]
    OutputAmbiguous { id: TaskId, kind: String, makers: Vec<TaskId> },
    #[error("{message}")]
    Other { message: String, hint: Option<String> },
}

impl ProblemKind {
    /// What to try, if there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Empty | Self::NoVersion => "begin it with `version: 1`".to_owned(),
            Self::NoTasks => "declare one under `tasks:`, such as `hello: {run: echo hello}`".to_owned(),
            Self::NotUtf8 => "save it as UTF-8".to_owned(),
            Self::SecondDocument => "one file holds one document; put the rest into a file of its own".to_owned(),
            Self::NewerVersion { .. } => "update taskrun".to_owned(),
            Self::UnknownField { nearest, .. }
            | Self::UnknownTask { nearest, .. }
            | Self::UnknownPool { nearest, .. } => format!("did you mean `{}`?", nearest.as_ref()?),
            Self::UnknownPlugin { nearest, is_id, .. } => match (nearest, is_id) {
                (Some(nearest), _) => format!("did you mean `{nearest}`?"),
                (None, true) => "a task without `run` is a plugin: name one with `uses`, or add `run`".to_owned(),
                (None, false) => return None,
            },
            Self::UnknownParameter { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            Self::UnknownParameter { known: [], .. } => "it takes none: take it away".to_owned(),
            Self::UnknownParameter { known, .. } => format!("it has {}", listed(known)),
            Self::Duration { .. } => {
                "write a number and a unit: ms, s, m, h or d, such as 500ms, 10s, 5m, 1h30m".to_owned()
            }
            Self::Cycle { .. } => "take one of these needs away".to_owned(),
            Self::SelfNeed { .. } | Self::DuplicateNeed { .. } => "take it away".to_owned(),
            Self::NotANeed { id } => format!("add `{id}` to `needs`, or take it away here"),
            Self::OutputOfNoAncestor { from: producer, .. } | Self::FileOfNoAncestor { producer, .. } => {
                format!("add `{producer}` to `needs`")
            }
            Self::Other { hint, .. } => return hint.clone(),
            Self::OutputMissing { makers, plugins, .. } => match (&makers[..], &plugins[..]) {
                ([], []) => return None,
                ([], plugins) => {
                    format!("add a task that makes it to `needs`; that is what {} is for", listed(plugins))
                }
                ([maker], _) => format!("`{maker}` makes it: add it to `needs`"),
                (makers, _) => format!("add one that makes it to `needs`: {}", listed(makers)),
            },
            Self::OutputAmbiguous { .. } => "need only one of them".to_owned(),
            Self::SameOutput { .. } => "let each file be made by one task".to_owned(),
            Self::CommandFieldWithoutRun { .. } => "add `run: COMMAND`".to_owned(),
            Self::PluginFieldOfCommand => "take them away, or `run`".to_owned(),
            _ => return None,
        })
    }
}

/// The names one after the other; of many, only the first.
fn listed(names: &[impl fmt::Display]) -> String {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        shown.push(format!("{} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

/// A cycle with its first task repeated at the end; of a long one the middle is left out.
fn written_out(cycle: &[TaskId]) -> String {
    const SHOWN: usize = 12;
    let mut ids: Vec<&str> = cycle.iter().chain(cycle.first()).map(TaskId::as_str).collect();
    let left_out = format!("({} more)", ids.len().saturating_sub(SHOWN));
    if ids.len() > SHOWN + 1 {
        ids.splice(SHOWN / 2..ids.len() - SHOWN / 2, [&*left_out]);
    }
    ids.join(" -> ")
}
