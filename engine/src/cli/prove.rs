//! Proving again, for the verbs of products.

use super::error::CliError;
use super::session::Session;
use super::signals::Signals;
use crate::checkpoint::Checkpoint;
use crate::graph::NodeIndex;
use crate::process::{Cancel, Level};
use crate::proving::{self, Check};

impl Session {
    /// Makes the proofs of `tasks` again; see [`proving::prove`]. The first signal leaves out what has not begun, the
    /// second ends commands, the third gives up.
    ///
    /// # Errors
    /// It was interrupted, exit code 130 or 143.
    pub async fn prove(
        &self,
        checkpoint: &Checkpoint,
        tasks: &[NodeIndex],
        disruptive: bool,
        tell: impl FnMut(&Check),
    ) -> Result<Vec<Check>, CliError> {
        let cancel = Cancel::new();
        let signals = Signals::listen(cancel.clone())?;
        let (raise, mut raised) = tokio::sync::watch::channel(Level::None);
        cancel.subscribe(move |level| {
            raise.send_replace(level);
        });
        let interrupted = || CliError::new(signals.exit_code(), "it was interrupted: not all checks were made");
        let checks = tokio::select! {
            checks = proving::prove(&self.world, checkpoint, tasks, disruptive, &cancel, tell) => checks,
            // The sender lives in the token.
            _ = raised.wait_for(|level| *level >= Level::Kill) => return Err(interrupted()),
        };
        if cancel.level() > Level::None { Err(interrupted()) } else { Ok(checks) }
    }

    /// The nodes of the graph whose tasks' ids fulfil a condition.
    pub fn tasks_where(&self, is: impl Fn(&crate::TaskId) -> bool) -> Vec<NodeIndex> {
        let graph = &self.world.graph;
        graph.indices().filter(|index| is(&graph[*index].id)).collect()
    }
}
