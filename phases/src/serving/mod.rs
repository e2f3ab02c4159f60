//! Model serving: what is wanted is a file for each model, and a controller brings it about.
//!
//! - [`InferenceService`] describes a model that is served, [`Status`] tells what has become of it.
//! - [`Client`] deploys and deletes, by writing and removing descriptions.
//! - The [`controller`], a service itself, reconciles: it starts and stops replicas under the supervisor, adds them to
//!   and drains them from the proxy, and scales by what the proxy measures. It keeps nothing in memory that it cannot
//!   read again, so it may be killed at any instant while the replicas go on serving.

mod client;
mod spec;
mod status;
mod store;

pub use client::{Client, ServingError};
pub use spec::{Autoscaling, InferenceService, MOST_REPLICAS, Replicas, Resources, Runtime, SpecError};
pub use status::{Condition, ConditionKind, Reason, Status, Truth};
