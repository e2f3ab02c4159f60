//! What the graph files say, each on its own: ids and names are not resolved yet.

use std::time::Duration;

use super::diagnose::At;
use super::model::{CommandSpec, Retries, WhenSkipped};
use crate::TaskId;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// What all files say together.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    pub(super) pools: Vec<Spanned<(Box<str>, u32)>>,
    pub(super) tasks: Vec<Draft>,
    /// Whether a file was left before its end or an id is broken, so that a name may be unknown for that alone.
    pub(super) incomplete: bool,
}

/// What an entry of `tasks` says.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: TaskId,
    pub(super) at: At,
    pub(super) title: Option<Box<str>>,
    pub(super) needs: Vec<Spanned<Box<str>>>,
    pub(super) needs_at: Option<At>,
    pub(super) when_skipped: Skips,
    pub(super) claims: Vec<(Spanned<Box<str>>, u32)>,
    pub(super) retries: Option<Box<Retries>>,
    pub(super) timeout: Option<Duration>,
    pub(super) uses: Option<Spanned<Box<str>>>,
    pub(super) with: serde_json::Value,
    pub(super) with_at: Option<At>,
    /// The keys of `with`, each with the place of its value.
    pub(super) with_keys: Vec<(Spanned<Box<str>>, At)>,
    pub(super) command: Option<Box<CommandDraft>>,
}

/// What `when_skipped` says.
#[derive(Debug, Default)]
pub(super) struct Skips {
    pub(super) all: WhenSkipped,
    pub(super) some: Vec<(Spanned<Box<str>>, WhenSkipped)>,
}

/// The command fields of an entry, and where those stand that refer to other tasks.
#[derive(Debug)]
pub(super) struct CommandDraft {
    pub(super) spec: CommandSpec,
    /// The tasks whose outputs the environment reads.
    pub(super) reads: Vec<Spanned<TaskId>>,
    /// One for each of `spec.inputs`.
    pub(super) inputs: Vec<At>,
    /// One for each of `spec.outputs`.
    pub(super) outputs: Vec<At>,
}

impl Draft {
    pub(super) fn new(id: TaskId, at: At) -> Self {
        Self {
            id,
            at,
            title: None,
            needs: Vec::new(),
            needs_at: None,
            when_skipped: Skips::default(),
            claims: Vec::new(),
            retries: None,
            timeout: None,
            uses: None,
            with: serde_json::Value::Null,
            with_at: None,
            with_keys: Vec::new(),
            command: None,
        }
    }
}
