//! What was fetched or built once serves all environments of a user.

use std::path::{Path, PathBuf};

use taskrun_engine::outcome::Failure;

use super::files;

/// What uv fetched.
pub const UV: &str = "uv";
/// Go's toolchain, and what it fetched and built.
pub const GO: &str = "go";
/// The MinIO that was built, by its version.
pub const MINIO: &str = "minio";
/// The archives of Grafana, by their checksums.
pub const GRAFANA: &str = "grafana";
/// The Alertmanager that was built, by its version.
pub const ALERTMANAGER: &str = "alertmanager";

/// The disk images that others are built upon, by their checksums.
pub const IMAGES: &str = "images";

/// The folder of it all.
///
/// # Errors
/// The user has no home.
pub fn folder() -> Result<PathBuf, Failure> {
    if let Some(folder) = std::env::var_os("TASKRUN_CACHE_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    home.map(|home| home.join("taskrun")).ok_or_else(|| {
        Failure::permanent("find a folder for caches: HOME is not set").with_hint("set TASKRUN_CACHE_DIR")
    })
}

/// Removes what is cached, and the folder unless somebody else keeps something in it.
///
/// # Errors
/// Something cannot be removed.
pub fn purge() -> Result<(), Failure> {
    let folder = folder()?;
    for part in [UV, GO, MINIO, ALERTMANAGER, GRAFANA, IMAGES] {
        files::remove(&folder.join(part))?;
    }
    let _ = std::fs::remove_dir(&folder);
    Ok(())
}
