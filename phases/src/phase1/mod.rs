//! Phase 1: what services run on.

mod base_runtime;
mod model_runtime;
pub mod python_environment;

pub use base_runtime::BaseRuntimeTask;
pub use model_runtime::ModelRuntimeTask;
pub use python_environment::PythonEnvironmentTask;
