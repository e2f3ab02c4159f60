//! Signals ask ever more firmly: the first for safe points, the second ends processes, the third leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::{CliError, exit};
use crate::process::{Cancel, Level};

/// Listens to SIGINT, SIGTERM and SIGHUP and raises a token.
pub(super) struct Signals {
    code: Arc<AtomicU8>,
}

impl Signals {
    /// Begins to listen; needs a runtime.
    pub(super) fn listen(cancel: Cancel) -> Result<Self, CliError> {
        let open = |kind| signal(kind).map_err(|error| CliError::caused(exit::FAILED, "listen to signals", &error));
        let signals = (open(SignalKind::interrupt())?, open(SignalKind::terminate())?, open(SignalKind::hangup())?);
        let code = Arc::new(AtomicU8::new(0));
        tokio::spawn(relay(signals, cancel, Arc::clone(&code)));
        Ok(Self { code })
    }

    /// The exit code of a program that was ended by the first signal that came.
    pub(super) fn exit_code(&self) -> u8 {
        match self.code.load(Ordering::SeqCst) {
            0 => exit::INTERRUPTED,
            code => code,
        }
    }
}

async fn relay((mut int, mut term, mut hup): (Signal, Signal, Signal), cancel: Cancel, first: Arc<AtomicU8>) {
    loop {
        // Each branch only waits for a signal: nothing is lost when another one wins.
        let code = tokio::select! {
            _ = int.recv() => exit::INTERRUPTED,
            _ = term.recv() => exit::TERMINATED,
            _ = hup.recv() => exit::TERMINATED,
        };
        let _ = first.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        let next = match cancel.level() {
            Level::None => Level::Asked,
            Level::Asked => Level::End,
            Level::End | Level::Kill => Level::Kill,
        };
        cancel.raise(next);
    }
}
