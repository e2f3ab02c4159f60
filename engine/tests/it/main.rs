//! Integration tests of the engine: one binary, one module a subject.

mod bad_graphs;
mod bind;
mod checkpoint;
mod crash_matrix;
mod driver;
mod journal;
mod process;
mod properties;
mod proving;
mod snapshot;
mod stand;
