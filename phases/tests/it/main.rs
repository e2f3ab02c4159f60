//! Integration tests of the program and its plugins: one binary, one module a subject.

mod cli;
mod local;
mod program;
