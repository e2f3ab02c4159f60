//! Calls to a hypervisor from asynchronous code: on threads of their own, each with a time-out.

use std::sync::Arc;
use std::time::Duration;

use super::{Hypervisor, HypervisorError};

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a call may take.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long the start of a domain may take: its memory is prepared and its devices are reset.
pub const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A hypervisor that is waited for.
#[derive(Clone)]
pub struct Patient {
    hypervisor: Arc<dyn Hypervisor>,
}

impl Patient {
    /// Connects to libvirt at `uri`, such as `qemu:///system`.
    ///
    /// # Errors
    /// It does not answer in time or refuses, or this program was built without libvirt.
    pub async fn connect(uri: &str) -> Result<Self, HypervisorError> {
        let uri = uri.to_owned();
        within(format!("connect to the hypervisor at {uri}"), CONNECT_TIMEOUT, move || connect(&uri)).await
    }

    /// Waits for this hypervisor.
    pub fn new(hypervisor: impl Hypervisor) -> Self {
        Self { hypervisor: Arc::new(hypervisor) }
    }

    /// Makes a call; `what` says what is asked, for the error, such as `define the network lab`.
    ///
    /// # Errors
    /// Those of the call, or it takes longer than [`TIMEOUT`]. It then still goes on, unseen, on its thread.
    pub async fn call<T: Send + 'static>(
        &self,
        what: impl Into<String>,
        work: impl FnOnce(&dyn Hypervisor) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.call_within(TIMEOUT, what, work).await
    }

    /// As [`call`](Self::call), with a time-out of its own.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_within<T: Send + 'static>(
        &self,
        timeout: Duration,
        what: impl Into<String>,
        work: impl FnOnce(&dyn Hypervisor) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let hypervisor = self.hypervisor.clone();
        within(what.into(), timeout, move || work(&*hypervisor)).await
    }

    /// Starts a domain, unless it runs.
    ///
    /// # Errors
    /// As [`call`](Self::call), with [`START_TIMEOUT`].
    pub async fn start_domain(&self, name: &str) -> Result<(), HypervisorError> {
        let (what, name) = (format!("start {name}"), name.to_owned());
        self.call_within(START_TIMEOUT, what, move |hypervisor| hypervisor.start_domain(&name)).await
    }
}

#[cfg(feature = "libvirt")]
fn connect(uri: &str) -> Result<Patient, HypervisorError> {
    super::libvirt::Libvirt::connect(uri).map(Patient::new)
}

#[cfg(not(feature = "libvirt"))]
fn connect(_uri: &str) -> Result<Patient, HypervisorError> {
    Err(HypervisorError::NotBuilt)
}

async fn within<T: Send + 'static>(
    what: String,
    timeout: Duration,
    work: impl FnOnce() -> Result<T, HypervisorError> + Send + 'static,
) -> Result<T, HypervisorError> {
    let call = tokio::task::spawn_blocking(work);
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(result)) => result,
        Ok(Err(broken)) => Err(HypervisorError::refused(what, broken)),
        Err(_) => Err(HypervisorError::TimedOut { what, after: timeout }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_hangs_is_given_up_and_a_result_comes_through() {
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let hung = within("list the domains".to_owned(), Duration::from_millis(50), move || {
            let _ = hang.recv();
            Ok(())
        });
        let error = hung.await.unwrap_err();
        assert_eq!(error.to_string(), "list the domains: no answer after 50ms");
        assert!(error.is_transient());
        drop(release);
        let seven = within("count".to_owned(), Duration::from_secs(60), || Ok(7)).await;
        assert_eq!(seven.unwrap(), 7);
    }

    #[cfg(not(feature = "libvirt"))]
    #[tokio::test]
    async fn a_program_without_libvirt_says_how_to_get_it() {
        let Err(error) = Patient::connect("qemu:///system").await else { panic!("it was built without") };
        assert!(error.hint().unwrap().contains("make build-workstation"));
    }
}
