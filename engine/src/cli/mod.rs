//! The command line of a program made with the engine: one file a verb.
//!
//! Results go to stdout, everything else to stderr. A closed pipe ends the program quietly.

pub mod args;
mod destroy;
mod detach;
pub mod error;
mod execute;
mod inspect;
mod logs;
mod main;
mod meta;
mod outputs;
mod plan;
mod product;
mod prove;
mod recover;
mod request;
mod run;
mod secret;
mod session;
mod show;
mod signals;
mod status;
mod work;

pub use error::{CliError, exit};
pub use main::{command, main, print, say};
pub use product::{ConfigureOptions, Configured, Product};
pub use session::{Purpose, Session, Writing};
pub use work::Work;
