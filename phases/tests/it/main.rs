//! Integration tests of the program and its plugins: one binary, one module a subject.

mod acceptance;
mod attack;
mod backup;
mod bad_config;
mod cli;
mod dashboards;
mod detached;
mod embedded;
mod expose;
mod external;
mod faults;
mod federation;
mod full_disk;
mod given_hosts;
mod given_nodes;
mod gpu;
#[cfg(feature = "libvirt")]
mod hypervisor;
mod images;
mod load;
mod local;
mod minio;
mod model_sync;
mod monitoring;
mod other_host;
mod pipes;
mod preflight;
mod program;
mod retries;
mod serving;
mod transfer;
mod virtual_host;
mod workstation;
