//! The thread that makes records durable, one batch at a time.
//!
//! While a batch is on its way to the disk, the next one collects: records that become ready together share one sync.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Appends a payload durably: when it returns, the payload survives a power failure.
pub type Append = Box<dyn FnMut(&[u8]) -> Result<(), AppendError> + Send>;

/// The journal could not be written; the run stops.
#[derive(Debug, thiserror::Error)]
#[error("write the journal")]
pub struct AppendError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

pub(super) struct Journaler {
    batches: Option<Sender<Vec<u8>>>,
    thread: Option<JoinHandle<Append>>,
}

impl Journaler {
    /// Starts the thread; `done` is called on it after each batch.
    pub(super) fn start(
        append: Append,
        done: impl Fn(Result<(), AppendError>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, batches) = channel();
        let work = move || serve(append, &batches, &done);
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(work)?;
        Ok(Self { batches: Some(sender), thread: Some(thread) })
    }

    /// Hands over a batch.
    pub(super) fn write(&self, payload: Vec<u8>) {
        if let Some(batches) = &self.batches {
            // The thread ends only after this end of the channel is gone.
            let _ = batches.send(payload);
        }
    }
}

impl Drop for Journaler {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut append: Append, batches: &Receiver<Vec<u8>>, done: &dyn Fn(Result<(), AppendError>)) -> Append {
    while let Ok(payload) = batches.recv() {
        done(append(&payload));
    }
    append
}
