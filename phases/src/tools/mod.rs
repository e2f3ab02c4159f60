//! One file for each outside tool or server, each a thin typed client.

pub mod files;
pub mod marked;
pub mod postgres;
pub mod run_as;
pub mod s3;
pub mod supervisor;
