//! Integration tests of the engine: one binary, one module a subject.

mod bad_graphs;
mod driver;
mod process;
mod snapshot;
