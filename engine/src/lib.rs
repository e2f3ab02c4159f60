//! A small DAG engine: it brings a machine to a described state, and can be killed at any instant.
//!
//! `graph.yaml` says what depends on what, a [plan](plan) says what will happen and why, one [loop](run) makes it
//! happen, and a [journal](journal) remembers it so exactly that the power cord may be pulled. Everything a person
//! sees is a fold over one stream of [events](event).
//!
//! # The promises, and the tests that try to break them
//! 1. **Killed anywhere, at any byte of any write, a resume ends as an undisturbed run would**, and no finished task or
//!    step is lost or done again: `crash_matrix` (every persistence point, on graphs of several shapes),
//!    `journal` (cut and flipped at every byte, power lost at every point), and with the real program
//!    `cli::killed_anywhere_it_ends_as_if_undisturbed`.
//! 2. **A success is recorded after its outputs were checked, and before anything that depends on it starts**:
//!    `properties::every_run_keeps_its_promises`.
//! 3. **Two runs never work on one state folder; a reader never waits for a writer**:
//!    `cli::a_second_run_is_refused_and_a_reader_is_not`, `journal::tail`.
//! 4. **A process started for a task never outlives its attempt unnoticed**: the tests of [`process`], and the
//!    grandchildren of `cli::killed_anywhere_it_ends_as_if_undisturbed`.
//! 5. **A dry run changes nothing and says what the run then does**: `cli::a_graph_is_planned_run_and_stands`,
//!    `properties::every_run_keeps_its_promises`.
//! 6. **A secret reaches the process that needs it, and no journal, log, event, report, error or command line**: the
//!    tests of [`redact`], and with real servers `local::the_embedded_platform_survives_what_can_happen_to_it`.
//! 7. **A journal that cannot be written stops the run; a damaged one is reported with the place, kept aside, never
//!    guessed at**: `journal::crash`,
//!    `cli::a_damaged_journal_is_set_aside_and_recovered`.
//! 8. **A failure names the task, the step, the command, its last lines, the log, and what to try**:
//!    `cli::a_failure_is_told_with_its_command_and_its_last_lines`.
//!
//! `cli::` and `local::` are tests of the program, `phases/tests/it`.

pub mod checkpoint;
pub mod cli;
pub mod context;
pub mod event;
pub mod fingerprint;
pub mod graph;
pub mod id;
pub mod journal;
pub mod outcome;
pub mod plan;
pub mod process;
pub mod proving;
pub mod redact;
pub mod registry;
pub mod report;
pub mod run;
pub mod secret;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
pub mod world;

pub use id::{TaskId, TaskIdError};
