//! A user with a password, over TCP, as applications log in.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Client, PostgresError, attend, configuration, connect, failed, identifier};

/// Where a database is, and who logs in there.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The server's host: a name or an address.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The user.
    pub user: &'a str,
    /// The user's password.
    pub password: &'a str,
    /// The database.
    pub database: &'a str,
    /// The certificates of the authorities that vouch for the server, a PEM file; without it nothing is encrypted.
    pub ca: Option<&'a Path>,
}

impl Login<'_> {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Client, PostgresError> {
        let mut config = configuration();
        config.host(self.host).port(self.port).user(self.user).password(self.password).dbname(self.database);
        let Some(ca) = self.ca else {
            return connect(config.ssl_mode(SslMode::Disable)).await;
        };
        let tls = MakeRustlsConnect::new(encryption(ca)?);
        let connected = config.ssl_mode(SslMode::Require).connect(tls).await;
        let (client, connection) = connected.map_err(failed("connect to PostgreSQL"))?;
        Ok(attend(client, connection))
    }
}

/// TLS with a server that one of the authorities in the file `ca` vouches for.
fn encryption(ca: &Path) -> Result<ClientConfig, PostgresError> {
    let unreadable = |message: String| PostgresError::Authorities { file: ca.to_owned(), message };
    let certificates = CertificateDer::pem_file_iter(ca).map_err(|error| unreadable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unreadable("there is none in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| unreadable(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// A connection as the owner of a database.
pub struct Owner(Client);

impl Owner {
    /// The schema that the proof of an external database writes into.
    pub const PROOF_SCHEMA: &str = "taskrun_proof";

    /// Logs in.
    ///
    /// # Errors
    /// Also a refused password, see [`PostgresError::is_wrong_password`].
    pub async fn connect(login: &Login<'_>) -> Result<Self, PostgresError> {
        login.connect().await.map(Self)
    }

    /// The server's version, such as `15.18`.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn version(&self) -> Result<String, PostgresError> {
        let row = self.0.query_one("SELECT current_setting('server_version')", &[]).await;
        let version: String = row.map_err(failed("ask for the version"))?.get(0);
        // Distributions add their own: `15.18 (Debian 15.18-0+deb12u1)`.
        Ok(version.split(' ').next().unwrap_or_default().to_owned())
    }

    /// Whether the user may make tables and schemas: what MLflow and a restore need.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn may_create(&self) -> Result<bool, PostgresError> {
        const QUERY: &str = "SELECT has_database_privilege(current_database(), 'CREATE') \
             AND has_schema_privilege('public', 'CREATE')";
        let row = self.0.query_one(QUERY, &[]).await;
        Ok(row.map_err(failed("ask what the user may do"))?.get(0))
    }

    /// Writes rows into a schema of the proof's own.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn write_proof(&self) -> Result<(), PostgresError> {
        let schema = identifier(Self::PROOF_SCHEMA);
        let statement = format!(
            "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; CREATE TABLE {schema}.rows AS \
             SELECT n, md5(n::text) AS text FROM generate_series(1, 10000) AS n"
        );
        self.0.batch_execute(&statement).await.map_err(failed("write rows"))
    }

    /// A digest of the rows of the proof.
    ///
    /// # Errors
    /// The server refuses, for instance because they are gone.
    pub async fn digest_proof(&self) -> Result<String, PostgresError> {
        let schema = identifier(Self::PROOF_SCHEMA);
        let query = format!("SELECT md5(string_agg(n || text, ',' ORDER BY n)) FROM {schema}.rows");
        let digest: Option<String> = self.0.query_one(&query, &[]).await.map_err(failed("read rows"))?.get(0);
        Ok(digest.unwrap_or_default())
    }

    /// Drops what [`write_proof`](Self::write_proof) made.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn drop_proof(&self) -> Result<(), PostgresError> {
        let statement = format!("DROP SCHEMA IF EXISTS {} CASCADE", identifier(Self::PROOF_SCHEMA));
        self.0.batch_execute(&statement).await.map_err(failed("drop the rows of the proof"))
    }
}
