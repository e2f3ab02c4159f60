//! PostgreSQL: its configuration files, and what the superuser asks it over its UNIX socket.
//!
//! No clear password is ever part of a statement: roles get a SCRAM verifier (RFC 5803), so neither `pg_stat_statements`
//! nor a log can hold one.

mod login;
mod snapshot;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Socket};

pub use self::login::{Login, Owner};
pub use self::snapshot::Snapshot;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The folder of its UNIX socket.
    pub socket_dir: PathBuf,
    /// Its port.
    pub port: u16,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// PostgreSQL said no, or nothing.
    #[error("{what}")]
    Server {
        /// What was tried.
        what: String,
        /// Its words.
        source: tokio_postgres::Error,
    },
    /// The authorities that vouch for a server cannot be read.
    #[error("read the certificates in {}: {message}", .file.display())]
    Authorities {
        /// Their file.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl PostgresError {
    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server { source, .. } => source.code(),
            Self::Authorities { .. } => None,
        }
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        let passing = [SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS, SqlState::ADMIN_SHUTDOWN];
        match (self, self.code()) {
            (Self::Authorities { .. }, _) => false,
            // Nothing came back: it does not listen, or hung up.
            (Self::Server { .. }, None) => true,
            (Self::Server { .. }, Some(code)) => passing.contains(code),
        }
    }

    /// Whether a password was refused.
    pub fn is_wrong_password(&self) -> bool {
        self.code() == Some(&SqlState::INVALID_PASSWORD)
    }

    /// Whether the database does not exist.
    pub fn is_no_such_database(&self) -> bool {
        self.code() == Some(&SqlState::INVALID_CATALOG_NAME)
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
    let what = what.into();
    move |source| PostgresError::Server { what, source }
}

/// A connection as the superuser, which the server recognises by who is at the other end of the socket.
pub struct Superuser(Client);

impl Server {
    /// Connects to a database as the superuser.
    ///
    /// # Errors
    /// Nobody listens, or the database does not exist.
    pub async fn superuser(&self, database: &str) -> Result<Superuser, PostgresError> {
        let mut config = configuration();
        config.host_path(&self.socket_dir).port(self.port).user(SUPERUSER).dbname(database);
        connect(&config).await.map(Superuser)
    }

    /// Connects over TCP with a password, as applications do, and returns the server's version.
    ///
    /// # Errors
    /// Also a refused password, see [`PostgresError::is_wrong_password`].
    pub async fn login(&self, user: &str, password: &str, database: &str) -> Result<String, PostgresError> {
        let login = Login { host: "127.0.0.1", port: self.port, user, password, database, ca: None };
        Owner::connect(&login).await?.version().await
    }
}

fn configuration() -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.connect_timeout(CONNECT_TIMEOUT).application_name("taskrun");
    config
}

async fn connect(config: &tokio_postgres::Config) -> Result<Client, PostgresError> {
    let (client, connection) = config.connect(NoTls).await.map_err(failed("connect to PostgreSQL"))?;
    Ok(attend(client, connection))
}

/// Lets the connection of a client do its work.
fn attend<S>(client: Client, connection: tokio_postgres::Connection<Socket, S>) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // What goes wrong on the connection is told by the statement that it went wrong for.
        let _ = connection.await;
    });
    client
}

impl Superuser {
    /// Whether a role exists.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn has_role(&self, name: &str) -> Result<bool, PostgresError> {
        self.any("SELECT 1 FROM pg_roles WHERE rolname = $1", name).await
    }

    /// Whether a database exists.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn has_database(&self, name: &str) -> Result<bool, PostgresError> {
        self.any("SELECT 1 FROM pg_database WHERE datname = $1", name).await
    }

    /// Whether an extension is there, in the connection's database.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn has_extension(&self, name: &str) -> Result<bool, PostgresError> {
        self.any("SELECT 1 FROM pg_extension WHERE extname = $1", name).await
    }

    async fn any(&self, query: &str, name: &str) -> Result<bool, PostgresError> {
        let rows = self.0.query(query, &[&name]).await.map_err(failed(format!("look for {name}")))?;
        Ok(!rows.is_empty())
    }

    /// Makes a role that may log in, or gives it this password.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn set_role(&self, name: &str, password: &str) -> Result<(), PostgresError> {
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let verb = if self.has_role(name).await? { "ALTER" } else { "CREATE" };
        // A verifier has no character that would need escaping.
        let statement = format!("{verb} ROLE {} LOGIN PASSWORD '{verifier}'", identifier(name));
        self.run(&statement, &format!("set the password of the role {name}")).await
    }

    /// Makes the role that reads the server's figures; it has no password.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn ensure_monitoring_role(&self) -> Result<(), PostgresError> {
        let (name, what) = (identifier(MONITORING_ROLE), "make the role of the monitoring");
        if !self.has_role(MONITORING_ROLE).await? {
            self.run(&format!("CREATE ROLE {name} LOGIN"), what).await?;
        }
        self.run(&format!("GRANT pg_monitor TO {name}"), what).await
    }

    /// Makes a database of `owner`.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_database(&self, name: &str, owner: &str) -> Result<(), PostgresError> {
        let statement = format!("CREATE DATABASE {} OWNER {}", identifier(name), identifier(owner));
        self.run(&statement, &format!("make the database {name}")).await
    }

    /// Gives a database another name; its data stays.
    ///
    /// # Errors
    /// The server refuses, for instance because somebody is connected.
    pub async fn rename_database(&self, from: &str, to: &str) -> Result<(), PostgresError> {
        let statement = format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to));
        self.run(&statement, &format!("rename the database {from} to {to}")).await
    }

    /// Drops a database that a proof has made.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn drop_proof_database(&self) -> Result<(), PostgresError> {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(PROOF_DATABASE));
        self.run(&statement, "drop the database of the proof").await
    }

    /// Makes an extension, in the connection's database.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_extension(&self, name: &str) -> Result<(), PostgresError> {
        let statement = format!("CREATE EXTENSION IF NOT EXISTS {}", identifier(name));
        self.run(&statement, &format!("make the extension {name}")).await
    }

    /// The settings among `wanted` whose effective value is another one: name, wanted, found.
    ///
    /// # Errors
    /// The server does not answer, or does not know a setting.
    pub async fn other_settings(
        &self,
        wanted: &BTreeMap<String, String>,
    ) -> Result<Vec<(String, String, String)>, PostgresError> {
        const QUERY: &str = "SELECT current_setting($1), (SELECT unit FROM pg_settings WHERE name = $1) ~ 'B$'";
        let mut other = Vec::new();
        for (name, value) in wanted {
            let row = self.0.query_one(QUERY, &[name]).await.map_err(failed(format!("read the setting {name}")))?;
            let (found, is_size): (String, Option<bool>) = (row.get(0), row.get(1));
            let mut same = found.eq_ignore_ascii_case(value);
            if !same && is_size == Some(true) {
                let sizes = self.0.query_one("SELECT pg_size_bytes($1) = pg_size_bytes($2)", &[&found, value]).await;
                same = sizes.map_err(failed(format!("compare the setting {name}")))?.get(0);
            }
            if !same {
                other.push((name.clone(), value.clone(), found));
            }
        }
        Ok(other)
    }

    /// Counts anew what the planner of queries goes by, in the connection's database.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn analyze(&self) -> Result<(), PostgresError> {
        self.run("ANALYZE", "analyse the tables").await
    }

    /// Writes rows into the table of the proofs, in the connection's database.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn write_rows(&self) -> Result<(), PostgresError> {
        let statement = format!(
            "DROP TABLE IF EXISTS {PROOF_TABLE}; CREATE TABLE {PROOF_TABLE} AS \
             SELECT n, md5(n::text) AS text FROM generate_series(1, 10000) AS n"
        );
        self.run(&statement, "write rows").await
    }

    /// Begins to see the database as it is now, whatever others write, until the connection is dropped. Returns the name
    /// by which `pg_dump` sees the same.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn hold_snapshot(&self) -> Result<String, PostgresError> {
        const WHAT: &str = "hold a snapshot";
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", WHAT).await?;
        Ok(self.0.query_one("SELECT pg_export_snapshot()", &[]).await.map_err(failed(WHAT))?.get(0))
    }

    /// A digest over the rows of the proofs, and of how many rows all other tables have.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn digest_rows(&self) -> Result<String, PostgresError> {
        let rows = format!("SELECT md5(string_agg(n || text, ',' ORDER BY n)) FROM {PROOF_TABLE}");
        let digest: Option<String> = self.0.query_one(&rows, &[]).await.map_err(failed("read rows"))?.get(0);
        let counts = snapshot::rows(&self.0).await?;
        let counts = counts.iter().map(|(table, rows)| format!("{table}={rows}")).collect::<Vec<_>>().join(",");
        Ok(format!("{} {counts}", digest.unwrap_or_default()))
    }

    /// Drops the table of the proofs.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn drop_rows(&self) -> Result<(), PostgresError> {
        self.run(&format!("DROP TABLE IF EXISTS {PROOF_TABLE}"), "drop the rows of the proof").await
    }

    async fn run(&self, statement: &str, what: &str) -> Result<(), PostgresError> {
        self.0.batch_execute(statement).await.map_err(failed(what))
    }
}

/// The superuser of the cluster.
pub const SUPERUSER: &str = "postgres";

/// The role that reads the server's figures, and nothing else.
pub const MONITORING_ROLE: &str = "taskrun_monitoring";

/// The database that proofs restore into.
pub const PROOF_DATABASE: &str = "taskrun_proof";

/// The table that proofs write.
const PROOF_TABLE: &str = "taskrun_proof_rows";

/// A name as an SQL identifier.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The files that a server is configured by, all of them outside of its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// `postgresql.conf`.
    pub main: String,
    /// `pg_hba.conf`: who may connect how.
    pub hba: String,
    /// `pg_ident.conf`: which users of the system are the superuser and the role of the monitoring.
    pub ident: String,
}

impl Configuration {
    /// The configuration of a server in `folder` for the data in `data`. `superusers` are users of the system.
    pub fn new(
        folder: &Path,
        data: &Path,
        server: &Server,
        settings: &BTreeMap<String, String>,
        superusers: &[String],
    ) -> Self {
        let port = server.port.to_string();
        let fixed = [
            ("data_directory", data.display().to_string()),
            ("hba_file", folder.join("pg_hba.conf").display().to_string()),
            ("ident_file", folder.join("pg_ident.conf").display().to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", port),
            ("unix_socket_directories", server.socket_dir.display().to_string()),
            ("password_encryption", "scram-sha-256".to_owned()),
            // Statements may hold what nobody should read in a log.
            ("log_statement", "none".to_owned()),
            ("log_min_error_statement", "panic".to_owned()),
            ("log_destination", "stderr".to_owned()),
            ("logging_collector", "off".to_owned()),
        ];
        let mut main =
            String::from("# Made by taskrun. Changes are overwritten; settings stand in the configuration.\n");
        let own = settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in fixed.into_iter().chain(own) {
            main.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        let hba = format!(
            "# Made by taskrun.\n\
             local all {SUPERUSER} peer map=superusers\n\
             local all {MONITORING_ROLE} peer map=monitoring\n\
             host all {SUPERUSER} all reject\n\
             host all all 127.0.0.1/32 scram-sha-256\n"
        );
        let map = |user| format!("superusers {user} {SUPERUSER}\nmonitoring {user} {MONITORING_ROLE}\n");
        let map = superusers.iter().map(map).collect::<String>();
        Self { main, hba, ident: format!("# Made by taskrun.\n{map}") }
    }
}
