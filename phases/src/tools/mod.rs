//! One file for each outside tool or server, each a thin typed client.

pub mod cache;
pub mod debian;
pub mod exporter;
pub mod files;
pub mod haproxy;
pub mod marked;
pub mod minio_build;
pub mod mlflow;
pub mod nvml;
pub mod ports;
pub mod postgres;
pub mod python;
pub mod run_as;
pub mod s3;
pub mod scratch;
pub mod supervisor;
pub mod user;
