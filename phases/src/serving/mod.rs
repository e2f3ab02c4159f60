//! Model serving: what is wanted is a file for each model, and a controller brings it about.
//!
//! - [`InferenceService`] describes a model that is served, [`Status`] tells what has become of it.
//! - [`Client`] deploys and deletes, by writing and removing descriptions.
//! - The [`controller`], a service itself, reconciles: it starts and stops replicas under the supervisor, adds them to
//!   and drains them from the proxy, and scales by what the proxy measures. It keeps nothing in memory that it cannot
//!   find again, so it may be killed at any instant while the replicas go on serving.
//! - The [`proxy`] is HAProxy: one address for all models, health checks, even spreading, queues, metrics.

mod autoscaler;
mod client;
mod conditions;
pub mod controller;
mod memory;
mod metrics;
mod observe;
mod plan;
pub mod proxy;
mod replica;
mod setup;
mod spec;
mod status;
mod store;
mod sweep;

pub use client::{Client, ServingError};
pub use setup::Setup;
pub use spec::{Autoscaling, InferenceService, MOST_REPLICAS, Replicas, Resources, Runtime, SpecError};
pub use status::{Condition, ConditionKind, Reason, Status, Truth};
pub use store::StoreError;

/// The controller's service. By its name it is stopped before the replicas, which it would start again.
pub const CONTROLLER: &str = "inference-controller";

/// The proxy's service.
pub const PROXY: &str = "inference-proxy";

/// The folder of what belongs to all replicas, among those of services.
pub const SERVICE: &str = "serving";
