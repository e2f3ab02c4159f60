//! Outside programs: spawned in a process group of their own, read, timed, ended, and found again after a crash.
//!
//! The API blocks: it is called on worker threads, never on the loop. What is promised:
//!
//! - **Cheap.** No thread, no signal handler and no fork of the driver's memory per command: the program is resolved to
//!   a path first, so that the standard library can use `posix_spawn`, a script of plain words goes without its shell, and
//!   one `poll` watches the output, the end of the process, the [`Cancel`] token and the deadline.
//! - **Nothing outlives its attempt unnoticed.** Each attempt has a [`Cookie`] in the environment of everything that it
//!   starts. A command that is timed out or cancelled is ended with all that carries the cookie, also what left its
//!   process group; after a crash of the driver [`find_orphans`] finds the rest. [`Command::run`] says what is noticed
//!   when a command ends by itself.
//! - **Services are no orphans.** What is meant to outlive the run is started by [`Command::spawn_detached`], without the
//!   cookie and in a session of its own.

mod cancel;
mod command;
mod cookie;
mod detached;
mod error;
mod exit;
mod fence;
mod id;
mod output;
mod program;
mod running;
mod spawn;
mod sweep;
mod table;
mod words;

pub use cancel::{Cancel, Level};
pub use command::{Command, DEFAULT_GRACE};
pub use cookie::{Cookie, CookieError};
pub use error::CommandError;
pub use exit::{Exit, Status};
pub use fence::{FenceError, Orphan, Refusal, end_orphans, find_orphans};
pub use id::{BootId, BootIdError, ProcessId};
pub use output::{Discard, OutputSink};
pub use running::Running;
