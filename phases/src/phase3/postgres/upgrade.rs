//! Bringing the data of an older major version of PostgreSQL to the version of the programs, by PostgreSQL's own
//! `pg_upgrade`, which copies: the older data stays beside the new until somebody removes it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use taskrun_engine::context::Context;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;

use super::{PROGRAM_TIMEOUT, Place, SERVICE, data_version};
use crate::backup::guard;
use crate::outputs::PostgresPrograms;
use crate::platform::Local;
use crate::tools::postgres::SUPERUSER;
use crate::tools::{debian, files, run_as};

/// How long copying the data may take.
const COPY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(6 * 3600);

/// What is asked of programs of another version than the data's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: the versions are the same.
    Nothing,
    /// The data is of the older version `from`.
    Up { from: u32 },
    /// The programs are older than the data.
    Down,
}

impl Step {
    fn between(data: &str, programs: &str) -> Self {
        let major = |version: &str| version.split('.').next().and_then(|major| major.trim().parse::<u32>().ok());
        match (major(data), major(programs)) {
            (Some(data), Some(programs)) if data == programs => Self::Nothing,
            (Some(from), Some(programs)) if from < programs => Self::Up { from },
            _ => Self::Down,
        }
    }
}

/// Makes the data fit the programs, where it is of an older version `data`; `initialise` makes an empty cluster in the
/// folder that it is given.
pub(super) async fn upgrade(context: &Context, place: &Place, data: &str) -> Result<(), Failure> {
    let own = &place.programs.version;
    match Step::between(data, own) {
        Step::Nothing => keep_older(place),
        Step::Down => Err(Failure::permanent(format!("start PostgreSQL {own} on data of version {data}"))
            .with_hint(format!("set `tools.postgres` to the programs of PostgreSQL {data}: data only goes up"))),
        Step::Up { from } => {
            let what = format!("bring the data of PostgreSQL {from} to version {own}");
            guard(context.state_dir(), &what)?;
            let old = debian::of_major(from)?.ok_or_else(|| {
                let bin = debian::folder(from);
                Failure::permanent(format!(
                    "{what}: its own programs are needed for that, and {} lacks them",
                    bin.display()
                ))
                .with_hint(format!(
                    "install postgresql-{from}, or name the programs of version {from} as `tools.postgres`"
                ))
            })?;
            context.say(format!("PostgreSQL {from} becomes {own}; the data of version {from} stays beside the new"));
            Local::new(&place.machine)?.remove(context, SERVICE).await?;
            run(context, place, from, &old).await
        }
    }
}

async fn run(context: &Context, place: &Place, from: u32, old: &PostgresPrograms) -> Result<(), Failure> {
    let folder = place.folder.join("upgrade");
    files::remove(&folder)?;
    files::service_folder(&folder, &place.machine.service_user, 0o700)?;
    // A server that was killed has left work to be done again from its log, and pg_upgrade wants none.
    let recover = service_command(place, old, "postgres", &folder)
        .args(["--single", "-D"])
        .arg(&place.data)
        .args(options(&place.folder))
        .arg(SUPERUSER)
        .stdin("");
    context.command(recover).await?;
    let new = place.new_data();
    files::remove(&new)?;
    let mut initdb = place.initdb(&new);
    if !has_checksums(context, place, old, &folder).await? && place.programs.version.split('.').next() >= Some("18") {
        // It has them by default, and both must be alike.
        initdb = initdb.arg("--no-data-checksums");
    }
    context.command(initdb).await?;
    let options = options(&place.folder).join(" ");
    let upgrade = service_command(place, &place.programs, "pg_upgrade", &folder)
        .args(["--username", SUPERUSER, "--old-bindir"])
        .arg(&old.bin)
        .arg("--new-bindir")
        .arg(&place.programs.bin)
        .arg("--old-datadir")
        .arg(&place.data)
        .arg("--new-datadir")
        .arg(&new)
        .arg("--socketdir")
        .arg(&place.server.socket_dir)
        .args(["--old-port", &place.server.port.to_string(), "--new-port", &place.server.port.to_string()])
        .args(["--old-options", &options, "--new-options", &options])
        .timeout(COPY_TIMEOUT);
    context.command(upgrade).await.map_err(|failure| {
        failure.with_hint(format!("nothing was changed; PostgreSQL's own words are in {}", new.display()))
    })?;
    // Whenever the power fails, there is a whole cluster at the place of the data.
    renameat2(AT_FDCWD, &new, AT_FDCWD, &place.data, RenameFlags::RENAME_EXCHANGE)
        .map_err(|error| files::failure("exchange", &place.data, &error.into()))?;
    files::remove(&folder)?;
    tracing::debug!(from, "the data was upgraded");
    keep_older(place)
}

/// Gives the data of an older version, which the new has taken the place of, a name of its own.
fn keep_older(place: &Place) -> Result<(), Failure> {
    let (older, now) = (data_version(&place.new_data()), data_version(&place.data));
    match (older, now) {
        (Some(older), Some(now)) if matches!(Step::between(&older, &now), Step::Up { .. }) => {
            let kept = place.data.with_extension(&older);
            files::remove(&kept)?;
            fs::rename(place.new_data(), &kept).map_err(|error| files::failure("keep the older data as", &kept, &error))
        }
        _ => Ok(()),
    }
}

/// Whether the pages of the data have checksums.
async fn has_checksums(context: &Context, place: &Place, old: &PostgresPrograms, dir: &Path) -> Result<bool, Failure> {
    let asked = service_command(place, old, "pg_controldata", dir).env("LC_ALL", "C").arg(&place.data);
    let told = context.capture(asked).await?;
    let line = told.lines().find_map(|line| line.strip_prefix("Data page checksum version:"));
    Ok(line.is_some_and(|version| version.trim() != "0"))
}

/// Who may connect, for a server that is started on the data itself.
fn options(folder: &Path) -> [String; 4] {
    let file = |option: &str, name: &str| format!("{option}={}", folder.join(name).display());
    ["-c".to_owned(), file("hba_file", "pg_hba.conf"), "-c".to_owned(), file("ident_file", "pg_ident.conf")]
}

fn service_command(place: &Place, programs: &PostgresPrograms, name: &str, dir: &Path) -> Command {
    let command = run_as::service_user(&place.machine, &programs.program(name));
    programs.with_libraries(command.dir(dir).timeout(PROGRAM_TIMEOUT))
}

impl Place {
    /// Where a cluster is made before it takes its place.
    pub(super) fn new_data(&self) -> PathBuf {
        self.data.with_extension("new")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_up_and_never_down() {
        assert_eq!(Step::between("15\n", "15.18"), Step::Nothing);
        assert_eq!(Step::between("9", "10.1"), Step::Up { from: 9 });
        assert_eq!(Step::between("15", "17.2"), Step::Up { from: 15 });
        assert_eq!(Step::between("17", "15.18"), Step::Down);
        assert_eq!(Step::between("", "15.18"), Step::Down);
    }
}
