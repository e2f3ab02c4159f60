//! Phase 3: the MLOps stack.

mod object_store;
mod postgres;

pub use object_store::ObjectStoreTask;
pub use postgres::Postgres;
