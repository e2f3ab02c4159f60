//! Phase 1: what services run on.

mod base_runtime;
pub mod python_environment;

pub use base_runtime::BaseRuntimeTask;
pub use python_environment::PythonEnvironmentTask;
