//! Trying again: a server may be started anew while a transfer is under way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};

use super::Progress;
use crate::tools::s3::S3Error;

/// How often it is said that something is tried again.
const EVERY: Duration = Duration::from_secs(5);

/// Tries again for about half a minute, and says so.
pub(super) struct Patience {
    progress: Arc<dyn Progress>,
    told: Mutex<Option<Instant>>,
}

impl Patience {
    pub(super) fn new(progress: Arc<dyn Progress>) -> Self {
        Self { progress, told: Mutex::default() }
    }

    /// Does `work`, again and again where that may help.
    pub(super) async fn with<T, F>(&self, work: impl FnMut() -> F) -> Result<T, S3Error>
    where
        F: Future<Output = Result<T, S3Error>>,
    {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(8))
            .with_max_times(8)
            .with_jitter();
        work.retry(pauses).when(S3Error::is_transient).notify(|error, _| self.tell(error)).await
    }

    fn tell(&self, error: &S3Error) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < EVERY) {
            return;
        }
        *told = Some(Instant::now());
        self.progress.note(&format!("trying again: {error}"));
    }
}
