//! How a task ends, and what an error must say to be of use.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How an attempt at a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The state that the task describes is there, and its proofs passed.
    Succeeded,
    /// The state is there but for the named parts; dependents go on.
    Degraded {
        /// What does not work, and what to do about it.
        missing: Vec<String>,
    },
    /// Nothing was to be done on this machine, for instance because it has no GPU.
    Skipped {
        /// Why, as a fragment such as `no NVIDIA GPU was found`.
        reason: String,
    },
    /// The task gave up.
    Failed {
        /// What went wrong, and what to try.
        error: Box<Failure>,
    },
    /// The run was interrupted while the task ran; the task stopped at a safe point or was ended.
    Cancelled,
}

impl Outcome {
    /// Whether dependents may build upon this.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Degraded { .. })
    }
}

impl From<Failure> for Outcome {
    fn from(error: Failure) -> Self {
        Self::Failed { error: Box::new(error) }
    }
}

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    /// A refused connection, a slow server, a full queue: the same attempt may succeed later.
    Transient,
    /// The same attempt will fail the same way.
    Permanent,
    /// The task stopped because the run was interrupted; no fault of its own.
    Cancelled,
}

/// An error of a task, complete enough to act upon: what, where, the command, its last lines, what to try.
///
/// Made with [`Failure::permanent`] or [`Failure::transient`], widened by the `with_` methods. The engine adds the
/// step in which it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Whether a retry makes sense.
    pub persistence: Persistence,
    /// What went wrong: a lower-case fragment that fits behind "failed to", without a final period.
    pub message: String,
    /// The causes of the message, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The step during which it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The command that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<FailedCommand>>,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The command behind a [`Failure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedCommand {
    /// The command as one would type it, secrets redacted.
    pub line: String,
    /// How it ended: `exit code 1`, `signal 9 (SIGKILL)`, `timed out after 10s`.
    pub ended: String,
    /// The last lines that it wrote, redacted.
    pub tail: String,
    /// The whole log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
}

impl Failure {
    /// An error that a retry will not mend.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(Persistence::Permanent, message)
    }

    /// An error that may go away by itself.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Persistence::Transient, message)
    }

    /// The task stopped at a safe point because the run was interrupted.
    pub fn cancelled() -> Self {
        Self::new(Persistence::Cancelled, "interrupted")
    }

    /// An error of any kind.
    pub fn new(persistence: Persistence, message: impl Into<String>) -> Self {
        Self { persistence, message: message.into(), causes: Vec::new(), step: None, command: None, hint: None }
    }

    /// Puts `error` and the chain of its sources below `message`.
    pub fn caused(persistence: Persistence, message: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut causes = vec![error.to_string()];
        let mut source = error.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            // Many errors repeat their source in their own text.
            if !causes.last().is_some_and(|last| last.ends_with(&text)) {
                causes.push(text);
            }
            source = inner.source();
        }
        Self { causes, ..Self::new(persistence, message) }
    }

    /// Says what to try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the command that failed.
    #[must_use]
    pub fn with_command(mut self, command: FailedCommand) -> Self {
        self.command = Some(Box::new(command));
        self
    }

    /// Names the step, unless an inner one is named already.
    #[must_use]
    pub fn in_step(mut self, step: &str) -> Self {
        self.step.get_or_insert_with(|| step.to_owned());
        self
    }

    /// Whether a retry makes sense.
    pub fn is_transient(&self) -> bool {
        self.persistence == Persistence::Transient
    }

    /// Passes every text of the error through `redact`.
    pub fn map_texts(&mut self, mut redact: impl FnMut(&mut String)) {
        redact(&mut self.message);
        self.causes.iter_mut().for_each(&mut redact);
        if let Some(hint) = &mut self.hint {
            redact(hint);
        }
        if let Some(command) = &mut self.command {
            redact(&mut command.line);
            redact(&mut command.tail);
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_the_chain_without_repeating_it() {
        let io = std::io::Error::other("disk on fire");
        let failure = Failure::caused(Persistence::Permanent, "write the file", &io).with_hint("buy a new one");
        assert_eq!(failure.to_string(), "write the file: disk on fire");
        assert!(!failure.is_transient());
    }

    #[test]
    fn the_innermost_step_stays() {
        let failure = Failure::transient("connect").in_step("create bucket").in_step("outer");
        assert_eq!(failure.step.as_deref(), Some("create bucket"));
    }

    #[test]
    fn an_outcome_survives_its_json() {
        let outcome = Outcome::from(Failure::permanent("x"));
        let json = serde_json::to_string(&outcome).unwrap();
        assert_eq!(json, r#"{"outcome":"failed","error":{"persistence":"permanent","message":"x"}}"#);
        assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
    }
}
