//! Phase 1: what services run on.

mod base_image;
mod base_runtime;
mod gpu_worker_image;
mod host_base;
mod host_gpu;
mod model_runtime;
pub mod python_environment;

pub use base_image::BaseImageTask;
pub use base_runtime::BaseRuntimeTask;
pub use gpu_worker_image::GpuWorkerImageTask;
pub use host_base::{HostBase, HostBaseTask};
pub use host_gpu::{HostGpu, HostGpuTask};
pub use model_runtime::ModelRuntimeTask;
pub use python_environment::PythonEnvironmentTask;
