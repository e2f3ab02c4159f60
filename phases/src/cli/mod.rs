//! The verbs that this product adds.

pub(crate) mod bench;
pub(crate) mod cloud;
pub(crate) mod docs;
pub(crate) mod model;
pub(crate) mod open;

use taskrun_engine::checkpoint::Checkpoint;
use taskrun_engine::task::Output;

/// The output of type `O` that the journal tells of, if a task has made it.
pub(crate) fn output<O: Output>(checkpoint: &Checkpoint) -> Option<O> {
    let records = checkpoint.tasks.values().filter_map(|state| state.done.as_ref()?.output.as_ref());
    let values = records.filter_map(|record| Some((record.schema, serde_json::from_str(record.value.get()).ok()?)));
    let mut current = values.filter_map(|(schema, value)| O::migrate(schema, value));
    // A record does not name its type; the fields of one do not fit another.
    current.find_map(|value| serde_json::from_value(value).ok())
}
