//! Secrets: values that do not print, references that may be written down, and the one file that holds the values.
//!
//! A [`Secret`] is a value. A [`SecretRef`] says which one, and is all that settings, outputs, keys and the journal carry.
//! The [`SecretStore`] makes the one from the other. A user's own secrets come from where a [`SecretSource`] says.

mod error;
mod file;
mod policy;
mod source;
mod store;
mod value;

pub use error::SecretError;
pub use policy::Policy;
pub use source::SecretSource;
pub use store::SecretStore;
pub use value::{Secret, SecretRef};

#[cfg(test)]
mod tests;
