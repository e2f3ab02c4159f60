//! From a program's name to the file to execute.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The file that `name` means: with a `/` in it a path, relative to `directory` if that is given, else the first
/// executable file of that name in `path` (by default the driver's own `PATH`).
///
/// Always a path with a `/`: with a bare name `posix_spawn` could not be used.
///
/// # Errors
/// There is no such file, or it may not be executed.
pub(super) fn resolve(name: &OsStr, path: Option<&OsStr>, directory: Option<&Path>) -> io::Result<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        let file = directory.map_or_else(|| PathBuf::from(name), |directory| directory.join(name));
        let file = std::path::absolute(file)?;
        return executable(&file).map(|()| file);
    }
    let path = path.map(OsStr::to_owned).or_else(|| env::var_os("PATH")).unwrap_or_default();
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for folder in env::split_paths(&path).filter(|folder| folder.is_absolute()) {
        let file = folder.join(name);
        match executable(&file) {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A folder that may not be entered tells nothing about what is in it.
            Err(error) if file.exists() => outcome = Err(error),
            Err(_) => {}
        }
    }
    outcome
}

/// What to try when `program` could not be started.
pub(super) fn hint(program: &OsStr, directory: Option<&Path>, error: &io::Error) -> Option<String> {
    let name = Path::new(program).display();
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        return Some(format!("create the folder {}, in which the command is to run", directory.display()));
    }
    let is_path = program.as_encoded_bytes().contains(&b'/');
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::NOEXEC) => {
            Some(format!("{name} is neither a program for this machine nor a script that begins with `#!`"))
        }
        Some(rustix::io::Errno::TOOBIG) => {
            Some("the arguments and the environment are too long: pass the data in a file or on stdin".to_owned())
        }
        Some(rustix::io::Errno::AGAIN | rustix::io::Errno::NOMEM) => {
            Some("the machine has no room for another process: free memory, or raise `ulimit -u`".to_owned())
        }
        _ => match error.kind() {
            io::ErrorKind::PermissionDenied if is_path => Some(format!("make it executable: chmod +x {name}")),
            io::ErrorKind::PermissionDenied => Some(format!("a file {name} is on PATH, but may not be executed")),
            io::ErrorKind::NotFound if is_path && Path::new(program).exists() => {
                Some(format!("the interpreter in the first line of {name} does not exist"))
            }
            io::ErrorKind::NotFound if is_path => Some(format!("there is no file {name}")),
            io::ErrorKind::NotFound => Some(format!("install {name}, or add its folder to PATH")),
            _ => None,
        },
    }
}

fn executable(file: &Path) -> io::Result<()> {
    access(file, Access::EXEC_OK)?;
    if file.is_dir() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_bare_name_is_looked_up_on_the_given_path() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        for folder in [&first, &second] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("tool"), "#!/bin/sh\n").unwrap();
        }
        fs::create_dir(first.join("other")).unwrap();
        let path = env::join_paths([&first, &second]).unwrap();
        let denied = resolve("tool".as_ref(), Some(&path), None).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert!(hint("tool".as_ref(), None, &denied).unwrap().contains("may not be executed"));

        fs::set_permissions(second.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(resolve("tool".as_ref(), Some(&path), None).unwrap(), second.join("tool"));
        assert!(resolve("other".as_ref(), Some(&path), None).is_err(), "a folder is no program");
        let missing = resolve("no-such-tool".as_ref(), None, None).unwrap_err();
        assert!(hint("no-such-tool".as_ref(), None, &missing).unwrap().starts_with("install no-such-tool"));
        assert!(resolve("sh".as_ref(), None, None).unwrap().is_absolute());
    }

    #[test]
    fn a_path_is_relative_to_the_folder_that_the_command_runs_in() {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("tool");
        fs::write(&tool, "").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(resolve("./tool".as_ref(), None, Some(folder.path())).unwrap(), tool);
        assert!(resolve("./tool".as_ref(), None, None).is_err());
    }
}
