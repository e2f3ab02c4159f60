//! Integration tests of the program and its plugins: one binary, one module a subject.

mod attack;
mod bad_config;
mod cli;
mod detached;
mod embedded;
mod full_disk;
mod local;
mod monitoring;
mod pipes;
mod program;
mod retries;
