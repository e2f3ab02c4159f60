//! What workers tell the loop.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::attempt::Ended;
use super::events::EventSink;
use super::journaler::AppendError;
use crate::TaskId;
use crate::checkpoint::StepRecord;
use crate::context::Recorder;
use crate::event::EventKind;
use crate::graph::NodeIndex;
use crate::outcome::Failure;
use crate::plan::Decision;
use crate::plan::inspect::Inspection;
use crate::process::Level;

pub(super) enum Message {
    /// Tasks were judged.
    Judged(Vec<(NodeIndex, Result<Judged, Failure>)>),
    /// An attempt is in a step.
    StepStarted(NodeIndex, String),
    /// An attempt has done a step and waits for that to be durable.
    StepDone(NodeIndex, Box<StepRecord>, oneshot::Sender<()>),
    /// An attempt ended.
    Ended(NodeIndex, Box<Ended>),
    /// A batch is durable, or never will be.
    Durable(Result<(), AppendError>),
    /// A task has waited long enough for its next attempt.
    Retry(NodeIndex),
    /// The run was asked to stop.
    Stop(Level),
}

/// What is to be done with a task, and what it would run with.
pub(super) struct Judged {
    pub(super) decision: Decision,
    pub(super) inspection: Box<Inspection>,
}

pub(super) type Outbox = mpsc::UnboundedSender<Message>;

/// Brings the steps of an attempt to the loop.
pub(super) struct Steps {
    pub(super) index: NodeIndex,
    pub(super) task: TaskId,
    pub(super) outbox: Outbox,
    pub(super) events: EventSink,
}

#[async_trait]
impl Recorder for Steps {
    fn started(&self, step: &str) {
        self.events.send(EventKind::StepStarted { task: self.task.clone(), step: step.to_owned() });
        // The loop is gone only when the program is about to end.
        let _ = self.outbox.send(Message::StepStarted(self.index, step.to_owned()));
    }

    fn kept(&self, step: &str) {
        let event = EventKind::StepFinished { task: self.task.clone(), step: step.to_owned(), kept: true };
        self.events.send(event);
    }

    fn passed(&self, proof: &str) {
        let event = EventKind::StepFinished { task: self.task.clone(), step: proof.to_owned(), kept: false };
        self.events.send(event);
    }

    async fn finished(&self, step: StepRecord) -> Result<(), Failure> {
        let event = EventKind::StepFinished { task: self.task.clone(), step: step.name.clone(), kept: false };
        let (acknowledge, durable) = oneshot::channel();
        let _ = self.outbox.send(Message::StepDone(self.index, Box::new(step), acknowledge));
        // Without an answer the journal is broken, and the run is being stopped.
        durable.await.map_err(|_| Failure::cancelled())?;
        self.events.send(event);
        Ok(())
    }
}
