//! What a task may ask of the place that it deploys to.
//!
//! A workload task describes a [`Service`]; the platform makes it run, keeps it running, and forgets it again.

pub mod launch;
mod local;
mod service;
pub mod targets;

pub use local::{Local, failure, healthy};
pub use service::{Health, Login, Metrics, SecretEnv, SecretFiles, Service, ServiceState};
