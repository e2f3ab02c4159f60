//! Phase 3: the MLOps stack.

mod mlflow;
mod object_store;
mod postgres;

pub use mlflow::MlflowTask;
pub use object_store::ObjectStoreTask;
pub use postgres::Postgres;
