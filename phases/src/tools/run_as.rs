//! Running programs as the service user.

use std::io;
use std::path::Path;

use taskrun_engine::process::Command;

use crate::outputs::Machine;

/// A command that runs `program` as the service user: through `setpriv` (util-linux) as root, as it is otherwise.
pub fn service_user(machine: &Machine, program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let user = &machine.service_user;
    Command::new("setpriv")
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .args(["--clear-groups", "--"])
        .arg(program)
}

/// The name of the user that this program runs as.
///
/// # Errors
/// The user has no name.
pub fn current_user() -> io::Result<String> {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid).map_err(io::Error::from)? {
        Some(user) => Ok(user.name),
        None => Err(io::Error::other(format!("user {uid} has no name in the user database"))),
    }
}
