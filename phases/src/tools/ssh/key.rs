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
    let show = Command::new("ssh-keygen").args(["-y", "-P", "", "-f"]).arg(&private).timeout(TIMEOUT);
    let public = view.capture(show).await.map_err(|failure| {
        let hint = format!("if it is no key of yours, remove {} and its machines' entries of it", private.display());
        failure.with_hint(hint)
    })?;
    Ok((private, public.trim().to_owned()))
}

async fn make(view: &View, folder: &Path, private: &Path) -> Result<(), Failure> {
    let new = folder.join(format!("{NAME}.new"));
    files::remove(&new)?;
    files::remove(&new.with_extension("new.pub"))?;
    fs::create_dir_all(folder).map_err(|error| files::failure("make", folder, &error))?;
    let comment = format!("taskrun {}", folder.file_name().unwrap_or_default().to_string_lossy());
    let make = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", &comment, "-f"]).arg(&new);
    view.command(make.timeout(TIMEOUT)).await?;
    files::remove(&new.with_extension("new.pub"))?;
    keep(&new, private).map_err(|error| files::failure("write", private, &error))
}

/// Moves the file there, whole also after a power cut.
fn keep(new: &Path, private: &Path) -> io::Result<()> {
    fs::File::open(new)?.sync_all()?;
    fs::rename(new, private)?;
    private.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}
