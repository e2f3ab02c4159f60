//! Phase 3: the MLOps stack.

mod gateway;
pub(crate) mod mlflow;
pub(crate) mod model_serving;
mod object_store;
mod postgres;

pub use mlflow::MlflowTask;
pub use model_serving::ModelServingTask;
pub use object_store::ObjectStoreTask;
pub use postgres::Postgres;
