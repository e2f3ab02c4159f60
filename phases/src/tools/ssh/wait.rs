//! Waiting for a machine that is starting.

use std::time::Duration;

use taskrun_engine::context::View;
use taskrun_engine::process::Level;
use tokio::time::{Instant, sleep};

use super::{Script, SshError, SshErrorKind, SshTarget};

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(30);

/// What cloud-init says of itself, where there is one.
const CLOUD_INIT: &str = "if command -v cloud-init >/dev/null; then cloud-init status || true; else echo none; fi";

impl SshTarget {
    /// Waits until somebody is let in and cloud-init, where there is one, is done: at most for `timeout`.
    ///
    /// # Errors
    /// The time is over ([`SshErrorKind::NotUp`], with the last reason), the host key is another, cloud-init ended with an
    /// error, ssh cannot be run here, or the run was asked to end its processes.
    pub async fn wait_until_up(&self, view: &View, timeout: Duration) -> Result<(), SshError> {
        let start = Instant::now();
        loop {
            let why = match self.run_script(view, &Script::new(CLOUD_INIT).timeout(TRY)).await {
                Ok(said) => match cloud_init(&said) {
                    CloudInit::Done => return Ok(()),
                    CloudInit::Failed => return Err(SshError::new(self, SshErrorKind::CloudInit)),
                    CloudInit::Running => "cloud-init is still running".to_owned(),
                },
                Err(error) if error.stays_while_starting() => return Err(error),
                Err(error) => error.reason(),
            };
            if start.elapsed() >= timeout {
                return Err(SshError::new(self, SshErrorKind::NotUp { after: timeout, why }));
            }
            if view.cancel().level() >= Level::Asked {
                return Err(SshError::new(self, SshErrorKind::Cancelled));
            }
            sleep(PAUSE).await;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum CloudInit {
    Running,
    Done,
    Failed,
}

fn cloud_init(said: &str) -> CloudInit {
    match said.lines().find_map(|line| line.strip_prefix("status:")).map(str::trim) {
        Some("running" | "not run" | "not started") => CloudInit::Running,
        Some("error") => CloudInit::Failed,
        _ => CloudInit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cloud_init_says_is_understood() {
        for (said, means) in [
            ("none\n", CloudInit::Done),
            ("status: done\n", CloudInit::Done),
            ("status: disabled\n", CloudInit::Done),
            ("\nstatus: running\n", CloudInit::Running),
            ("status: not run\n", CloudInit::Running),
            ("status: error\n", CloudInit::Failed),
        ] {
            assert_eq!(cloud_init(said), means, "{said}");
        }
    }
}
