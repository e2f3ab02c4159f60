//! The key pair of an environment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;

use crate::tools::files;

/// The file of the private key.
const NAME: &str = "id_ed25519";
const TIMEOUT: Duration = Duration::from_secs(30);

/// Two tasks may want the first key at the same time; other programs are kept out of the state folder by its lock.
static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The key pair in `folder`: the file of the private key and the line of the public one. It is made, without a
/// passphrase and readable by its owner only, if it is not there; a run that is killed meanwhile leaves no half key.
///
/// # Errors
/// ssh-keygen(1) is missing, or the folder cannot be written to, or the file there holds no key.
pub async fn ensure_key(view: &View, folder: &Path) -> Result<(PathBuf, String), Failure> {
    let _making = MAKING.lock().await;
    let private = folder.join(NAME);
    if !private.is_file() {
        make(view, folder, &private).await?;
    }
    let public = view.capture(show(&private)).await.map_err(|failure| {
        let hint = format!("if it is no key of yours, remove {} and its machines' entries of it", private.display());
        failure.with_hint(hint)
    })?;
    Ok((private, public.trim().to_owned()))
}

async fn make(view: &View, folder: &Path, private: &Path) -> Result<(), Failure> {
    let new = folder.join(format!("{NAME}.new"));
    let public = new.with_extension("new.pub");
    files::remove(&new)?;
    files::remove(&public)?;
    fs::create_dir_all(folder).map_err(|error| files::failure("make", folder, &error))?;
    view.command(generate(&new, folder)).await?;
    files::remove(&public)?;
    keep(&new, private).map_err(|error| files::failure("write", private, &error))
}

fn generate(new: &Path, folder: &Path) -> Command {
    let comment = format!("taskrun {}", folder.file_name().unwrap_or_default().to_string_lossy());
    let generate = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", &comment, "-f"]);
    generate.arg(new).timeout(TIMEOUT)
}

fn show(private: &Path) -> Command {
    Command::new("ssh-keygen").args(["-y", "-P", "", "-f"]).arg(private).timeout(TIMEOUT)
}

/// Moves the file there, whole also after a power cut.
fn keep(new: &Path, private: &Path) -> io::Result<()> {
    fs::File::open(new)?.sync_all()?;
    fs::rename(new, private)?;
    private.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use taskrun_engine::process::{Cancel, Discard};

    use super::*;

    #[test]
    fn a_key_is_for_its_owner_only_and_tells_its_public_half() {
        let folder = tempfile::tempdir().unwrap();
        let (new, private) = (folder.path().join("id_ed25519.new"), folder.path().join(NAME));
        let made = generate(&new, folder.path()).run(&Cancel::new(), &mut Discard).unwrap();
        assert!(made.status.is_success(), "{}", made.tail);
        keep(&new, &private).unwrap();
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        let (shown, public) = show(&private).read(&Cancel::new(), &mut Discard).unwrap();
        assert!(shown.status.is_success(), "{}", shown.tail);
        let written = fs::read(folder.path().join("id_ed25519.new.pub")).unwrap();
        assert!(written.starts_with(b"ssh-ed25519 ") && public == written);
    }
}
