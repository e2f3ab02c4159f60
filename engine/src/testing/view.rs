//! Views for tests of what tasks do.

use std::path::Path;
use std::sync::Arc;

use crate::TaskId;
use crate::context::{Dirs, View};
use crate::process::{Cancel, Cookie};
use crate::redact::Redactor;
use crate::run::log::AttemptLog;
use crate::secret::SecretStore;

/// The view of a task called `task` in the state folder `state`, which is the graph's folder too. It sees no outputs; its
/// log is `view.log` there.
///
/// # Panics
/// `task` is no id, or the folder holds secrets that cannot be read.
pub fn view(task: &str, state: &Path) -> View {
    let task = TaskId::new(task).expect("it is an id");
    let redactor = Redactor::new();
    let secrets = SecretStore::open(state.join("secrets.json"), redactor.clone()).expect("the secrets can be read");
    View {
        log: AttemptLog::new(task.clone(), state.join("view.log"), None),
        task,
        dirs: Dirs { state: state.to_owned(), graph: state.to_owned() },
        outputs: Arc::default(),
        secrets: Arc::new(secrets),
        redactor,
        cancel: Cancel::new(),
        cookie: Cookie::random(),
        accept_data_loss: false,
    }
}
