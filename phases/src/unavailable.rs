//! Tasks that a platform does not have in this version. They are skipped, with that reason, and already in the plan.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::Failure;
use taskrun_engine::task::{Applied, Earlier, Made, Output, Probe, Task, Traces};

/// A task that is not there on a platform.
pub(crate) struct Unavailable {
    why: String,
}

/// What such a task would give; it never does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Nothing {}

impl Output for Nothing {
    const KIND: &'static str = "nothing";
}

impl Unavailable {
    /// The task, for a platform.
    pub(crate) fn on(platform: &str) -> Self {
        Self { why: format!("this version does not have it on the platform `{platform}`") }
    }

    fn refusal(&self) -> Failure {
        Failure::permanent(&*self.why).with_hint("leave it out: taskrun run --until CLOUD-1.2")
    }
}

#[async_trait]
impl Task for Unavailable {
    type Settings = ();
    type Output = Nothing;

    fn settings(&self) -> &() {
        &()
    }

    async fn relevant(&self, _view: &View) -> Result<(), String> {
        Err(self.why.clone())
    }

    async fn probe(&self, _view: &View, _made: &Made<Self>) -> Probe {
        Probe::Missing(self.why.clone())
    }

    async fn apply(&self, _context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Nothing>, Failure> {
        Err(self.refusal())
    }

    async fn destroy(&self, _context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        Ok(())
    }
}
