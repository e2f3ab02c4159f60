//! What stands between the supervisor and a service: the secrets are put into its environment, and it loses the rights
//! of root. So no file but the secrets file holds a secret, and no service can read those of another.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use taskrun_engine::process::Cookie;
use taskrun_engine::redact::Redactor;
use taskrun_engine::secret::SecretStore;

use super::Service;

/// The hidden verb by which the supervisor calls this program.
pub const VERB: &str = "launch-service";

/// The environment variable by which a service's processes are known: the state folder and the service's name.
pub const MARK: &str = "TASKRUN_SERVICE";

/// What the launcher reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The service.
    pub service: Service,
    /// The user that it runs as; nothing for the present one.
    pub user: Option<(u32, u32)>,
    /// The file with the secrets.
    pub secrets: PathBuf,
    /// The value of [`MARK`].
    pub mark: String,
    /// The folder for its temporary files, which are nobody else's business. It is emptied before each start.
    pub temporary: PathBuf,
}

/// Becomes the service that `file` describes; returns only if that is impossible, and says why in the service's log.
pub fn run(file: &Path) -> ExitCode {
    let error = match prepare(file) {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    };
    // Nobody is left to tell when that fails too.
    let _ = writeln!(io::stderr(), "taskrun: start the service: {error}");
    ExitCode::FAILURE
}

fn prepare(file: &Path) -> io::Result<Command> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
    let launch: Launch =
        serde_json::from_slice(&fs::read(file).map_err(named)?).map_err(io::Error::from).map_err(named)?;
    let Launch { service, user, secrets, mark, temporary } = launch;
    let (program, args) = service.command.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let mut command = Command::new(program);
    command.args(args).current_dir(&service.dir).env_clear();
    for name in ["PATH", "LANG", "LC_ALL", "TZ"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // What its last life has left there is of no use to this one.
    match fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(&temporary)?,
    }
    if let Some((uid, gid)) = user {
        std::os::unix::fs::chown(&temporary, Some(uid), Some(gid))?;
    }
    command
        .env("HOME", &service.dir)
        .env("TMPDIR", &temporary)
        .env(MARK, mark)
        .env_remove(Cookie::VARIABLE)
        .envs(&service.env);
    if !service.secret_env.is_empty() || !service.secret_files.is_empty() {
        let store = SecretStore::open(&secrets, Redactor::new()).map_err(io::Error::other)?;
        for (name, wanted) in &service.secret_env {
            let secret = store.get(&wanted.secret).map_err(io::Error::other)?;
            command.env(name, fill(wanted.template.as_deref(), secret.expose()));
        }
        for (number, wanted) in service.secret_files.numbered() {
            let secret = store.get(wanted).map_err(io::Error::other)?;
            open_in_memory(number, user, secret.expose().as_bytes())?;
        }
    }
    if let Some((uid, gid)) = user {
        // As root, the standard library also drops the supplementary groups.
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// Leaves a file in memory open under this number, for the service that this process becomes and its user.
fn open_in_memory(number: i32, user: Option<(u32, u32)>, contents: &[u8]) -> io::Result<()> {
    let mut file = fs::File::from(memfd_create(c"secret", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(contents)?;
    if let Some((uid, gid)) = user {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(0o400))?;
    // The lowest free number from there on, which stays open and survives the call of another program.
    match fcntl(&file, FcntlArg::F_DUPFD(number))? {
        taken if taken == number => Ok(()),
        other => {
            nix::unistd::close(other)?;
            Err(io::Error::other(format!("file {number} is open already")))
        }
    }
}

/// Puts a secret into its template.
pub(crate) fn fill(template: Option<&str>, secret: &str) -> String {
    match template {
        None => secret.to_owned(),
        Some(template) if template.contains("://") => template.replace("{}", &encoded(secret)),
        Some(template) => template.replace("{}", secret),
    }
}

/// A text as it stands in any part of a URL.
pub(crate) fn encoded(text: &str) -> String {
    let encoded = url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    // Outside of a query a space is %20, not +.
    encoded.replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_in_memory_and_can_be_read_again_and_again() {
        // Other tests of this process have files of their own, the lowest numbers first.
        let free = |number: &i32| open_in_memory(*number, None, b"hidden").is_ok();
        let number = [60_000, 16_000, 4000, 1000, 250].into_iter().find(free).unwrap();
        let path = &PathBuf::from(format!("/proc/self/fd/{number}"));
        assert_eq!((fs::read(path).unwrap(), fs::read(path).unwrap()), (b"hidden".to_vec(), b"hidden".to_vec()));
        assert!(fs::read_link(path).unwrap().to_string_lossy().starts_with("/memfd:secret"));
        assert!(open_in_memory(number, None, b"").is_err());
    }

    #[test]
    fn a_secret_survives_its_place_in_a_url() {
        assert_eq!(fill(Some("db://u:{}@h/d"), "a b/c+d@e"), "db://u:a%20b%2Fc%2Bd%40e@h/d");
        assert_eq!(fill(Some("x={}"), "a b"), "x=a b");
        assert_eq!(fill(None, "a b"), "a b");
    }
}
