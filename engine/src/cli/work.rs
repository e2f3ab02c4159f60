//! Work that a verb of a product does on a task's behalf, such as starting what the task has defined.

use super::error::CliError;
use super::session::Session;
use super::signals::Signals;
use crate::TaskId;
use crate::context::View;
use crate::process::{Cancel, Level};

/// A task's view of the world, for a verb. What it says goes into the log of the task's probes; a signal asks it to stop,
/// a second one ends its commands.
pub struct Work {
    view: View,
    signals: Signals,
}

impl Session {
    /// Begins work on behalf of a task. It sees no outputs: ask for them by [`Session::output`].
    ///
    /// # Errors
    /// Signals cannot be listened to.
    pub fn work(&self, task: &TaskId) -> Result<Work, CliError> {
        let cancel = Cancel::new();
        let signals = Signals::listen(cancel.clone())?;
        Ok(Work { view: self.world.view(task, &Default::default(), &cancel), signals })
    }
}

impl Work {
    /// The view.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The error of a verb that was interrupted, exit code 130 or 143; nothing if it was not.
    pub fn interrupted(&self) -> Option<CliError> {
        let stopped = self.view.cancel().level() > Level::None;
        stopped.then(|| CliError::new(self.signals.exit_code(), "it was interrupted"))
    }
}
