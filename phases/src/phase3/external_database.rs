//! CLOUD-3.2 where the user has a PostgreSQL already (`external.database`): it is used, and nothing of it is managed.
//!
//! Proof: the owner logs in and a wrong password is refused; rows survive a dump and restore, in a schema that the proof
//! makes and drops.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::secret::Secret;
use taskrun_engine::task::{Applied, Drift, Earlier, Made, Probe, Problem, Proof, Read, Task, Traces};

use super::postgres;
use crate::config::{DatabaseConfig, ExternalDatabaseConfig};
use crate::outputs::{BaseRuntime, Database, Machine, Platform};
use crate::tools::postgres::{Login, Owner, PostgresError};
use crate::tools::scratch::Scratch;
use crate::tools::secrets::reference;
use crate::tools::tls;

/// How long `pg_dump` and `pg_restore` may take.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(300);

/// What CLOUD-3.2 reads of the configuration, whichever of its two ways it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DatabaseSettings {
    /// The database is there already.
    External(ExternalDatabaseConfig),
    /// The server is one of this environment.
    Embedded(DatabaseConfig),
}

/// The task.
pub struct ExternalDatabase {
    settings: DatabaseSettings,
    external: ExternalDatabaseConfig,
}

impl ExternalDatabase {
    /// The task for a database.
    pub fn new(external: &ExternalDatabaseConfig) -> Self {
        Self { settings: DatabaseSettings::External(external.clone()), external: external.clone() }
    }

    /// What goes wrong with it, and what the user can do.
    fn failure(&self, error: PostgresError) -> Failure {
        let ExternalDatabaseConfig { host, port, user, password, .. } = &self.external;
        let persistence = if error.is_transient() { Persistence::Transient } else { Persistence::Permanent };
        let hint = if error.is_wrong_password() {
            format!("correct the secret `{password}`, or the password of {user} on the server")
        } else if error.is_no_such_database() {
            self.remedy()
        } else {
            tls::hint(&error).unwrap_or("see `external.database` in the configuration").to_owned()
        };
        Failure::caused(persistence, format!("use the database at {host}:{port}"), &error).with_hint(hint)
    }

    fn remedy(&self) -> String {
        let ExternalDatabaseConfig { name, user, .. } = &self.external;
        format!("there, as its superuser: CREATE DATABASE \"{name}\" OWNER \"{user}\", or ALTER DATABASE … OWNER TO …")
    }

    /// What is there, as its owner sees it.
    async fn look(&self, password: &Secret) -> Result<(Owner, String), PostgresError> {
        let ExternalDatabaseConfig { host, port, name, user, ca, .. } = &self.external;
        let login = Login { host, port: *port, user, password: password.expose(), database: name, ca: ca.as_deref() };
        let owner = Owner::connect(&login).await?;
        let version = owner.version().await?;
        Ok((owner, version))
    }

    async fn prove_dump(&self, view: &View, output: &Database) -> Result<(), Failure> {
        let programs = view.output::<BaseRuntime>()?.postgres;
        if major(&output.version) > major(&programs.version) {
            view.say(too_new(&output.version, &programs.version));
            return Ok(());
        }
        let password = view.secret(&self.external.password)?;
        let (owner, _) = self.look(&password).await.map_err(|error| self.failure(error))?;
        owner.write_proof().await.map_err(|error| self.failure(error))?;
        let there_and_back = async {
            let scratch = Scratch::new(view, "database", None)?;
            let dump = scratch.folder().join("proof.dump");
            let before = owner.digest_proof().await.map_err(|error| self.failure(error))?;
            let run = |program: &str| output.command(&programs, program, &password).timeout(PROGRAM_TIMEOUT);
            let schema = format!("--schema={}", Owner::PROOF_SCHEMA);
            view.command(run("pg_dump").args(["--format=custom", &schema, "--file"]).arg(&dump)).await?;
            owner.drop_proof().await.map_err(|error| self.failure(error))?;
            view.command(run("pg_restore").args(["--exit-on-error", "--no-owner"]).arg(&dump)).await?;
            let after = owner.digest_proof().await.map_err(|error| self.failure(error))?;
            if before == after { Ok(()) } else { Err(Failure::permanent("find equal rows after dump and restore")) }
        };
        let proved = there_and_back.await;
        // Cleaned up whatever came out.
        owner.drop_proof().await.map_err(|error| self.failure(error))?;
        proved
    }
}

#[async_trait]
impl Task for ExternalDatabase {
    type Settings = DatabaseSettings;
    type Output = Database;

    fn settings(&self) -> &DatabaseSettings {
        &self.settings
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::of::<Machine>(), Read::of::<BaseRuntime>(), Read::of::<Platform>()]
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.external.password.clone()]
    }

    fn inputs(&self) -> Vec<PathBuf> {
        self.external.ca.iter().cloned().collect()
    }

    async fn check(&self, view: &View) -> Vec<Problem> {
        let mut problems = missing_file("external.database.ca", self.external.ca.as_ref());
        if let (true, Some((_, password))) = (problems.is_empty(), view.secrets().present(&self.external.password))
            && let Err(error) = self.look(&password).await
        {
            let Failure { message, causes, hint, .. } = self.failure(error);
            let told = std::iter::once(message).chain(causes).collect::<Vec<_>>().join(": ");
            problems.push(Problem::new(told, hint.unwrap_or_default()));
        }
        problems
    }

    async fn probe(&self, view: &View, made: &Made<Self>) -> Probe {
        let password = match view.secret(&self.external.password) {
            Ok(password) => password,
            Err(failure) => return Probe::CannotTell(failure.to_string()),
        };
        match self.look(&password).await {
            Ok((_, version)) if version == made.output.version => Probe::Holds,
            Ok((_, version)) => Probe::Drifted(vec![Drift::new("version", made.output.version.clone(), version)]),
            Err(error) if error.is_no_such_database() => {
                Probe::DataLost(format!("there is no database {}", made.output.database))
            }
            Err(error) => Probe::Stopped(self.failure(error).to_string()),
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Database>, Failure> {
        let ExternalDatabaseConfig { host, port, name, user, password, ca } = self.external.clone();
        let secret = context.secret(&password)?;
        let (owner, version) = self.look(&secret).await.map_err(|error| self.failure(error))?;
        if !owner.may_create().await.map_err(|error| self.failure(error))? {
            return Err(Failure::permanent(format!(
                "see that {user} may make tables and schemas in {name}: it may not"
            ))
            .with_hint(self.remedy()));
        }
        // One that stood for it before is needed no more; its data stays until the task is destroyed.
        postgres::stop(context).await?;
        let programs = context.output::<BaseRuntime>()?.postgres;
        let missing = match major(&version) > major(&programs.version) {
            true => vec![too_new(&version, &programs.version)],
            false => Vec::new(),
        };
        let password = reference(context, &password)?;
        let output = Database { host, port, socket_dir: None, database: name, user, password, version, ca };
        Ok(Applied::degraded(output, missing))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[
            Proof::quick("the owner logs in with its password"),
            Proof::safe("a wrong password is refused"),
            Proof::safe("rows survive dump and restore"),
        ];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &Database) -> Result<(), Failure> {
        match proof {
            "the owner logs in with its password" => {
                let password = view.secret(&self.external.password)?;
                self.look(&password).await.map(|_| ()).map_err(|error| self.failure(error))
            }
            "a wrong password is refused" => match self.look(&Secret::new("not-the-password".to_owned())).await {
                Err(error) if error.is_wrong_password() => Ok(()),
                Err(error) => Err(self.failure(error)),
                Ok(_) => Err(Failure::permanent("see a wrong password refused: it was taken").with_hint(
                    "let the server's pg_hba.conf ask for scram-sha-256 where it has `trust` for this login",
                )),
            },
            "rows survive dump and restore" => self.prove_dump(view, output).await,
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    /// Leaves the database as it is: it is not this environment's.
    async fn destroy(&self, context: &Context, made: &Traces<Self>) -> Result<(), Failure> {
        if made.settings.iter().any(|settings| matches!(settings, DatabaseSettings::Embedded(_))) {
            postgres::remove(context).await?;
        }
        let ExternalDatabaseConfig { host, port, name, .. } = &self.external;
        context.say(format!("the database {name} at {host}:{port} stays as it is"));
        Ok(())
    }
}

/// The problem of a file that the configuration names and that is not there.
pub(super) fn missing_file(field: &str, file: Option<&PathBuf>) -> Vec<Problem> {
    let missing = file.filter(|file| !file.is_file());
    let problem =
        |file: &PathBuf| Problem::new(format!("{field}: there is no {}", file.display()), "correct the configuration");
    missing.map(problem).into_iter().collect()
}

fn too_new(server: &str, programs: &str) -> String {
    format!(
        "backups: the server is PostgreSQL {server}, and pg_dump {programs} does not dump a newer one: install its \
         client programs, and name their folder as `tools.postgres`"
    )
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default()
}
