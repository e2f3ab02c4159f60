//! The way of events from where they happen to the thread that shows and keeps them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::event::{Event, EventKind, VERSION};

/// How many bytes of task output may wait to be shown before more of it is left out: whoever shows it is slower than
/// the task, and the log has all of it.
const OUTPUT_BACKLOG: usize = 4 << 20;

/// Numbers events and sends them on. Clones share the numbering.
#[derive(Clone)]
pub struct EventSink(Arc<Shared>);

struct Shared {
    run: u64,
    next: Mutex<(u64, Sender<Event>)>,
    backlog: Arc<AtomicUsize>,
}

/// The other end of an [`EventSink`].
pub struct EventStream {
    events: Receiver<Event>,
    /// Shared with the sinks, which alone hold the sender: the stream ends with the last of them.
    backlog: Arc<AtomicUsize>,
}

impl EventSink {
    /// A sink for the events of run number `run`, and the stream they come out of.
    pub fn new(run: u64) -> (Self, EventStream) {
        let (sender, events) = channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let shared = Shared { run, next: Mutex::new((1, sender)), backlog: Arc::clone(&backlog) };
        (Self(Arc::new(shared)), EventStream { events, backlog })
    }

    /// Sends an event. Never blocks; output that nobody keeps up with is left out.
    pub fn send(&self, kind: EventKind) {
        if let EventKind::Output { text, .. } = &kind {
            let waiting = self.0.backlog.fetch_add(text.len(), Ordering::Relaxed);
            if waiting > OUTPUT_BACKLOG {
                self.0.backlog.fetch_sub(text.len(), Ordering::Relaxed);
                return;
            }
        }
        // The number and the place in the channel are given under one lock, so that they agree.
        let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event { version: VERSION, seq: next.0, at: now(), run: self.0.run, kind };
        next.0 += 1;
        // Nobody listens any more only when the program is about to end.
        let _ = next.1.send(event);
    }
}

impl EventStream {
    /// The next event; nothing if none comes within `timeout`.
    ///
    /// # Errors
    /// All sinks are gone: there will be no more events.
    pub fn next(&self, timeout: std::time::Duration) -> Result<Option<Event>, Closed> {
        match self.events.recv_timeout(timeout) {
            Ok(event) => {
                if let EventKind::Output { text, .. } = &event.kind {
                    self.backlog.fetch_sub(text.len(), Ordering::Relaxed);
                }
                Ok(Some(event))
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Err(Closed),
        }
    }
}

/// The stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// The present, to the millisecond: what events and records say.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
