//! Phase 1: what services run on.

mod base_runtime;

pub use base_runtime::BaseRuntimeTask;
