//! Phase 2: the platform that services run on.

pub mod gpu;
mod platform_up;

pub use gpu::GpuTask;
pub use platform_up::PlatformUp;
