//! Phase 3: the MLOps stack.

mod external_database;
mod external_object_store;
mod gateway;
pub(crate) mod mlflow;
pub(crate) mod model_serving;
mod object_store;
mod postgres;

pub use external_database::{DatabaseSettings, ExternalDatabase};
pub use external_object_store::{ExternalObjectStore, ExternalStore, ObjectStoreSettings};
pub use mlflow::MlflowTask;
pub use model_serving::ModelServingTask;
pub use object_store::ObjectStoreTask;
pub use postgres::Postgres;
