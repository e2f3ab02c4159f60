//! CLOUD-3.2: PostgreSQL with the database of the tracking server.
//!
//! A cluster of its own on a port of its own, never the machine's. Proof: the effective settings are the ones that were
//! asked for, the owner logs in and a wrong password is refused, rows survive a dump and restore and a restart.

mod upgrade;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::secret::Policy;
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Proof, Read, Task, Traces};

use super::external_database::DatabaseSettings;
use crate::backup::record::What;
use crate::config::{Config, DatabaseConfig};
use crate::outputs::{BaseRuntime, Database, Machine, Platform, PostgresPrograms};
use crate::platform::{Health, Local, Login, SecretFiles, Service};
use crate::tools::postgres::{Configuration, PROOF_DATABASE, PostgresError, SUPERUSER, Server};
use crate::tools::{files, run_as};

/// The service's name.
const SERVICE: &str = "postgres";

/// The secret that holds the owner's password.
const PASSWORD: &str = "database-password";

/// The extension that works only where the server loads it at its start.
const STATISTICS: &str = "pg_stat_statements";

/// How long `initdb`, `pg_dump` and `pg_restore` may take.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(300);

/// The task.
pub struct Postgres {
    all: DatabaseSettings,
    settings: DatabaseConfig,
}

/// All that a verb works with.
struct Place {
    machine: Machine,
    programs: PostgresPrograms,
    folder: PathBuf,
    data: PathBuf,
    server: Server,
}

impl Postgres {
    /// The task for a configuration.
    pub fn new(config: &Config) -> Self {
        let settings = config.database.clone();
        Self { all: DatabaseSettings::Embedded(settings.clone()), settings }
    }

    fn service(&self, place: &Place, configuration: &Configuration) -> Service {
        let postgres = place.programs.program("postgres").display().to_string();
        let file = place.folder.join("postgresql.conf").display().to_string();
        let mut env = place.programs.environment();
        // The server reads its files at its start only: other contents make the platform restart it.
        let files = [&configuration.main, &configuration.hba, &configuration.ident].map(String::as_str).concat();
        env.insert("TASKRUN_CONFIGURATION".to_owned(), Digest::of(files.as_bytes()).to_string());
        Service {
            name: SERVICE.to_owned(),
            command: vec![postgres, format!("--config-file={file}")],
            env,
            secret_env: BTreeMap::new(),
            secret_files: SecretFiles::default(),
            dir: place.folder.clone(),
            endpoints: [("postgres".to_owned(), format!("postgresql://127.0.0.1:{}", place.server.port))].into(),
            health: Health::Socket(place.server.socket_dir.join(format!(".s.PGSQL.{}", place.server.port))),
            metrics: Vec::new(),
            login: Some(Login { user: self.settings.name.clone(), secret: PASSWORD.to_owned() }),
            // Fast shutdown: sessions are ended, data is written.
            stop_signal: "INT".to_owned(),
            stop_seconds: 60,
        }
    }

    fn configuration(&self, place: &Place) -> Result<Configuration, Failure> {
        let mut superusers = vec![place.machine.service_user.name.clone(), run_as::current_user().map_err(lookup)?];
        superusers.sort();
        superusers.dedup();
        let mut settings = self.settings.settings.clone();
        if self.settings.extensions.iter().any(|extension| extension == STATISTICS) {
            settings.entry("shared_preload_libraries".to_owned()).or_insert_with(|| STATISTICS.to_owned());
        }
        Ok(Configuration::new(&place.folder, &place.data, &place.server, &settings, &superusers))
    }

    /// Makes the cluster, unless there is one, which is brought to the version of the programs. A half made one was never
    /// used and holds nothing.
    async fn initialise(&self, context: &Context, place: &Place, existed: bool) -> Result<(), Failure> {
        if let Some(version) = data_version(&place.data) {
            return upgrade::upgrade(context, place, &version).await;
        }
        if existed && !context.accepts_data_loss() {
            return Err(Failure::permanent(format!("find the data in {}: it is gone", place.data.display()))
                .with_hint("restore it from a backup, or make it anew, empty: taskrun run --accept-data-loss"));
        }
        let new = place.new_data();
        files::remove(&new)?;
        context.command(place.initdb(&new)).await?;
        fs::rename(&new, &place.data).map_err(|error| files::failure("name the data folder", &place.data, &error))
    }

    async fn ensure_database(&self, context: &Context, place: &Place, earlier: &Earlier<Self>) -> Result<(), Failure> {
        let name = &self.settings.name;
        let superuser = place.server.superuser(SUPERUSER).await.map_err(failure)?;
        let policy = Policy::letters_and_digits(32).ok_or_else(|| Failure::permanent("make a password"))?;
        let (_, password) = context.secrets().get_or_generate(PASSWORD, &policy).map_err(lookup)?;
        let before = embedded(earlier).map(|made| &made.output);
        if let Some(before) = before.filter(|before| before.database != *name)
            && superuser.has_database(&before.database).await.map_err(failure)?
            && !superuser.has_database(name).await.map_err(failure)?
        {
            superuser.rename_database(&before.database, name).await.map_err(failure)?;
        }
        let fits = superuser.has_role(name).await.map_err(failure)?
            && place.server.login(name, password.expose(), name).await.is_ok();
        if !fits {
            superuser.set_role(name, password.expose()).await.map_err(failure)?;
        }
        if !superuser.has_database(name).await.map_err(failure)? {
            if before.is_some() && !context.accepts_data_loss() {
                return Err(Failure::permanent(format!("find the database {name}: it is gone"))
                    .with_hint("restore it from a backup, or make it anew, empty: taskrun run --accept-data-loss"));
            }
            superuser.create_database(name, name).await.map_err(failure)?;
        }
        superuser.ensure_monitoring_role().await.map_err(failure)?;
        let inside = place.server.superuser(name).await.map_err(failure)?;
        for extension in &self.settings.extensions {
            inside.create_extension(extension).await.map_err(failure)?;
        }
        if embedded(earlier).is_some_and(|made| made.output.version != place.programs.version) {
            // What is known of the tables does not come along with their rows.
            inside.analyze().await.map_err(failure)?;
        }
        Ok(())
    }

    async fn prove_backup(&self, view: &View, place: &Place) -> Result<(), Failure> {
        let name = &self.settings.name;
        let inside = place.server.superuser(name).await.map_err(failure)?;
        inside.write_rows().await.map_err(failure)?;
        let result = self.dump_and_restore(view, place, &inside).await;
        // Cleaned up whatever came out.
        inside.drop_rows().await.map_err(failure)?;
        inside.drop_proof_database().await.map_err(failure)?;
        result
    }

    async fn dump_and_restore(
        &self,
        view: &View,
        place: &Place,
        inside: &crate::tools::postgres::Superuser,
    ) -> Result<(), Failure> {
        let dump = place.folder.join("proof.dump");
        inside.drop_proof_database().await.map_err(failure)?;
        inside.create_database(PROOF_DATABASE, SUPERUSER).await.map_err(failure)?;
        let run = |program: &str, database: &str| {
            let command = run_as::service_user(&place.machine, &place.programs.program(program))
                .arg("--host")
                .arg(&place.server.socket_dir)
                .args(["--port", &place.server.port.to_string(), "--username", SUPERUSER, "--no-password"])
                .args(["--dbname", database])
                .dir(&place.folder)
                .timeout(PROGRAM_TIMEOUT);
            place.programs.with_libraries(command)
        };
        // The tracking server may write meanwhile: both sides are compared as of one instant.
        let source = place.server.superuser(&self.settings.name).await.map_err(failure)?;
        let snapshot = source.hold_snapshot().await.map_err(failure)?;
        let dumped = run("pg_dump", &self.settings.name).arg(format!("--snapshot={snapshot}"));
        view.command(dumped.args(["--format=custom", "--file"]).arg(&dump)).await?;
        let one = source.digest_rows().await.map_err(failure)?;
        drop(source);
        view.command(run("pg_restore", PROOF_DATABASE).args(["--exit-on-error"]).arg(&dump)).await?;
        files::remove(&dump)?;
        let restored = place.server.superuser(PROOF_DATABASE).await.map_err(failure)?;
        let other = restored.digest_rows().await.map_err(failure)?;
        if one == other { Ok(()) } else { Err(Failure::permanent("find equal rows after dump and restore")) }
    }

    async fn prove_restart(&self, view: &View, place: &Place) -> Result<(), Failure> {
        let inside = place.server.superuser(&self.settings.name).await.map_err(failure)?;
        inside.write_rows().await.map_err(failure)?;
        let before = inside.digest_rows().await.map_err(failure)?;
        let service = self.service(place, &self.configuration(place)?);
        Local::new(&place.machine)?.restart(view, &service).await?;
        let inside = place.server.superuser(&self.settings.name).await.map_err(failure)?;
        let after = inside.digest_rows().await.map_err(failure)?;
        inside.drop_rows().await.map_err(failure)?;
        if before == after { Ok(()) } else { Err(Failure::permanent("find the same rows after a restart")) }
    }
}

impl Place {
    fn new(view: &View) -> Result<Self, Failure> {
        let machine: Machine = view.output()?;
        let programs = view.output::<BaseRuntime>()?.postgres;
        let folder = machine.service_dir(SERVICE);
        let server = Server { socket_dir: machine.sockets.join("postgres"), port: machine.ports.database };
        Ok(Self { data: folder.join("data"), folder, machine, programs, server })
    }

    /// Makes an empty cluster in the folder `data`.
    fn initdb(&self, data: &Path) -> Command {
        let initdb = run_as::service_user(&self.machine, &self.programs.program("initdb"))
            .args(["--username", SUPERUSER, "--auth-local=peer", "--auth-host=reject", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-instructions", "--pgdata"])
            .arg(data)
            .dir(&self.folder)
            .timeout(PROGRAM_TIMEOUT);
        self.programs.with_libraries(initdb)
    }

    /// Makes the folders, which belong to the service user, and writes the configuration.
    fn prepare(&self, configuration: &Configuration) -> Result<(), Failure> {
        for folder in [&self.folder, &self.server.socket_dir] {
            files::service_folder(folder, &self.machine.service_user, 0o711)?;
        }
        let Configuration { main, hba, ident } = configuration;
        for (name, text) in [("postgresql.conf", main), ("pg_hba.conf", hba), ("pg_ident.conf", ident)] {
            files::service_file(&self.folder.join(name), &self.machine.service_user, text)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Task for Postgres {
    type Settings = DatabaseSettings;
    type Output = Database;

    /// 2: there is a role for the monitoring.
    fn version(&self) -> u32 {
        2
    }

    fn settings(&self) -> &DatabaseSettings {
        &self.all
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<BaseRuntime>(), Read::of::<Platform>()]
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned()]
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let place = match Place::new(view) {
            Ok(place) => place,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        if data_version(&place.data).is_none() {
            return Probe::DataLost(format!("there is no cluster in {}", place.data.display()));
        }
        let configuration = match self.configuration(&place) {
            Ok(configuration) => configuration,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        let local = match Local::new(&place.machine) {
            Ok(local) => local,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        match local.probe(&self.service(&place, &configuration)).await {
            Probe::Holds => look_inside(&place.server, &made.output, &self.settings).await,
            other => other,
        }
    }

    async fn apply(&self, context: &Context, earlier: &Earlier<Self>) -> Result<Applied<Database>, Failure> {
        let place = Place::new(context)?;
        let configuration = self.configuration(&place)?;
        place.prepare(&configuration)?;
        self.initialise(context, &place, embedded(earlier).is_some()).await?;
        context.safe_point()?;
        Local::new(&place.machine)?.ensure(context, &self.service(&place, &configuration)).await?;
        let server = place.server.clone();
        let answers =
            || async { server.superuser(SUPERUSER).await.map(|_| ()).map_err(|error| failure(error).to_string()) };
        context.wait_until("PostgreSQL to answer", Duration::from_secs(60), answers).await?;
        context.safe_point()?;
        self.ensure_database(context, &place, earlier).await?;
        let (password, _) = context
            .secrets()
            .present(PASSWORD)
            .ok_or_else(|| Failure::permanent("find the password that was just made"))?;
        let (name, port) = (self.settings.name.clone(), place.server.port);
        Ok(Applied::complete(Database {
            host: "127.0.0.1".to_owned(),
            port,
            socket_dir: Some(place.server.socket_dir),
            database: name.clone(),
            user: name,
            password,
            version: place.programs.version,
            ca: None,
        }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::quick("the owner logs in with its password"),
            Proof::quick("the effective settings are the ones asked for"),
            Proof::quick("the extensions are there"),
            Proof::safe("a wrong password is refused"),
            Proof::safe("rows survive dump and restore"),
            Proof::disruptive("rows survive a restart"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &Database) -> Result<(), Failure> {
        let place = Place::new(view)?;
        let Database { user, database, .. } = output;
        match proof {
            "the owner logs in with its password" => {
                let password = view.secret(PASSWORD)?;
                place.server.login(user, password.expose(), database).await.map(|_| ()).map_err(failure)
            }
            "the effective settings are the ones asked for" => {
                let superuser = place.server.superuser(SUPERUSER).await.map_err(failure)?;
                match superuser.other_settings(&self.settings.settings).await.map_err(failure)?.first() {
                    None => Ok(()),
                    Some((name, wanted, found)) => {
                        Err(Failure::permanent(format!("find {name} = {wanted}: it is {found}")))
                    }
                }
            }
            "the extensions are there" => {
                let inside = place.server.superuser(database).await.map_err(failure)?;
                for extension in &self.settings.extensions {
                    if !inside.has_extension(extension).await.map_err(failure)? {
                        return Err(Failure::permanent(format!("find the extension {extension}")));
                    }
                }
                Ok(())
            }
            "a wrong password is refused" => match place.server.login(user, "not-the-password", database).await {
                Err(error) if error.is_wrong_password() => Ok(()),
                Err(error) => Err(failure(error)),
                Ok(_) => Err(Failure::permanent("see a wrong password refused: it was taken")),
            },
            "rows survive dump and restore" => self.prove_backup(view, &place).await,
            "rows survive a restart" => self.prove_restart(view, &place).await,
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        remove(context).await
    }
}

/// The last success, if the server was one of this environment then.
fn embedded(earlier: &Earlier<Postgres>) -> Option<&Made<Postgres>> {
    earlier.made.as_ref().filter(|made| matches!(made.settings, DatabaseSettings::Embedded(_)))
}

/// Stops the server, if there is one; its data stays.
///
/// # Errors
/// It does not end.
pub(super) async fn stop(context: &Context) -> Result<(), Failure> {
    let local = Local::new(&context.output()?)?;
    let data = context.state_dir().join("services").join(SERVICE).join("data");
    if data_version(&data).is_some() {
        context.say(format!("the data of this environment's own PostgreSQL stays in {}", data.display()));
    }
    local.remove(context, SERVICE).await
}

/// Removes the server with its data.
///
/// # Errors
/// It does not end, or the disk.
pub(super) async fn remove(context: &Context) -> Result<(), Failure> {
    if let Ok(machine) = context.output::<Machine>() {
        Local::new(&machine)?.remove(context, SERVICE).await?;
        files::remove(&machine.sockets.join("postgres"))?;
    }
    files::remove(&context.state_dir().join("services").join(SERVICE))?;
    for what in [What::Newest, What::Restoring] {
        what.forget(context.state_dir()).map_err(lookup)?;
    }
    // With the data goes what opened it.
    context.secrets().remove(PASSWORD).map(|_| ()).map_err(lookup)
}

/// What the superuser sees, compared with what was recorded.
async fn look_inside(server: &Server, made: &Database, settings: &DatabaseConfig) -> Probe {
    match server.superuser(&made.database).await {
        Err(error) if error.is_no_such_database() => Probe::DataLost(format!("there is no database {}", made.database)),
        Err(error) => Probe::Stopped(failure(error).to_string()),
        Ok(inside) => match inside.other_settings(&settings.settings).await {
            Err(error) => Probe::CannotTell(failure(error).to_string()),
            Ok(other) if other.is_empty() => Probe::Holds,
            Ok(other) => {
                let drift = |(name, wanted, found): (String, String, String)| Drift::new(name, wanted, found);
                Probe::Drifted(other.into_iter().map(drift).collect())
            }
        },
    }
}

/// The major version of the cluster in `data`; nothing if there is none.
fn data_version(data: &Path) -> Option<String> {
    fs::read_to_string(data.join("PG_VERSION")).ok().map(|version| version.trim().to_owned())
}

fn failure(error: PostgresError) -> Failure {
    let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
    Failure::caused(persistence, "work with PostgreSQL", &error)
}

fn lookup(error: impl std::error::Error) -> Failure {
    Failure::caused(Persistence::Permanent, "prepare PostgreSQL", &error)
}
