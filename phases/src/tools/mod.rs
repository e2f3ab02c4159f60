//! One file for each outside tool or server, each a thin typed client.

pub mod cache;
pub mod debian;
pub mod exporter;
pub mod files;
pub mod go_build;
pub mod grafana;
pub mod haproxy;
pub mod http;
pub mod marked;
pub mod mlflow;
pub mod nvml;
pub mod ports;
pub mod postgres;
pub mod prometheus;
pub mod prometheus_programs;
pub mod python;
pub mod run_as;
pub mod s3;
pub mod scratch;
pub mod secrets;
pub mod ssh;
pub mod supervisor;
pub mod template;
pub mod tls;
pub mod user;
