//! The user that services run as.

use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use crate::outputs::ServiceUser;

/// The user called `name`, which is made if it does not exist; without root, the present user.
///
/// `made` tells whether it was made for this environment by an earlier attempt.
///
/// # Errors
/// It cannot be made.
pub async fn ensure(view: &View, name: &str, made: bool) -> Result<ServiceUser, Failure> {
    let root = nix::unistd::geteuid();
    if !root.is_root() {
        let user = nix::unistd::User::from_uid(root).map_err(lookup)?;
        let user = user.ok_or_else(|| Failure::permanent(format!("find the name of user {root}")))?;
        return Ok(ServiceUser { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), made: false });
    }
    let (user, made) = match find(name)? {
        Some(user) => (user, made),
        None => {
            view.say(format!("making the system user {name}"));
            let add = Command::new("useradd").args(["--system", "--user-group", "--no-create-home"]);
            let add = add.args(["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", "--comment"]);
            view.command(add.args(["taskrun services", name])).await?;
            let user =
                find(name)?.ok_or_else(|| Failure::permanent(format!("find the user {name} after it was made")))?;
            (user, true)
        }
    };
    Ok(ServiceUser { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), made })
}

/// Removes the user again if it was made for this environment.
///
/// # Errors
/// It cannot be removed.
pub async fn remove(view: &View, user: &ServiceUser) -> Result<(), Failure> {
    if !user.made || find(&user.name)?.is_none() {
        return Ok(());
    }
    view.command(Command::new("userdel").arg(&user.name)).await.map(|_| ())
}

/// The user called `name`.
///
/// # Errors
/// The user database cannot be read.
pub fn find(name: &str) -> Result<Option<nix::unistd::User>, Failure> {
    nix::unistd::User::from_name(name).map_err(lookup)
}

fn lookup(error: nix::errno::Errno) -> Failure {
    Failure::caused(Persistence::Permanent, "read the user database", &error)
}
