//! Phase 7: acceptance.

mod test_framework;

pub use test_framework::TestFrameworkTask;
