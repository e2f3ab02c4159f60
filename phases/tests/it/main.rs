//! Integration tests of the program and its plugins: one binary, one module a subject.
