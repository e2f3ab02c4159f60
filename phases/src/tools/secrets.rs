//! The user's own secrets, by the names that the configuration gives them.

use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;
use taskrun_engine::secret::SecretRef;

/// The present version of a secret.
///
/// # Errors
/// There is none of this name.
pub fn reference(view: &View, name: &str) -> Result<SecretRef, Failure> {
    let found = view.secrets().present(name).map(|(reference, _)| reference);
    found.ok_or_else(|| Failure::permanent(format!("find the secret `{name}`")))
}
