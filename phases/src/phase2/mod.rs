//! Phase 2: the platform that services run on.

mod platform_up;

pub use platform_up::PlatformUp;
