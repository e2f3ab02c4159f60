//! A database as of one instant, and what MLflow has put into it.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::{Login, PostgresError, failed, identifier};

/// A database as of one instant, seen by a user with a password over TCP.
pub struct Snapshot {
    client: Client,
    id: String,
}

impl Snapshot {
    /// Begins to see the database as it is now, whatever others write, until this is dropped.
    ///
    /// # Errors
    /// Nobody listens, or the login is refused.
    pub async fn hold(login: &Login<'_>) -> Result<Self, PostgresError> {
        const WHAT: &str = "hold a snapshot";
        let client = login.connect().await?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed(WHAT))?;
        let id = client.query_one("SELECT pg_export_snapshot()", &[]).await.map_err(failed(WHAT))?.get(0);
        Ok(Self { client, id })
    }

    /// The name by which `pg_dump` sees the same.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The number of rows of each table in the schema `public`.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn rows(&self) -> Result<BTreeMap<String, i64>, PostgresError> {
        rows(&self.client).await
    }

    /// The revision of MLflow's schema; nothing where there is none.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn mlflow_schema(&self) -> Result<Option<String>, PostgresError> {
        const WHAT: &str = "ask for the revision of MLflow's schema";
        if !self.has_table("alembic_version").await? {
            return Ok(None);
        }
        let row = self.client.query_opt("SELECT version_num FROM public.alembic_version", &[]).await;
        Ok(row.map_err(failed(WHAT))?.map(|row| row.get(0)))
    }

    /// The places of artifacts that MLflow's model versions and logged models refer to, each with what refers to it.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn mlflow_artifacts(&self) -> Result<Vec<(String, String)>, PostgresError> {
        const VERSIONS: &str = "SELECT 'version ' || version || ' of the model ' || name, source::text \
             FROM public.model_versions WHERE current_stage <> 'Deleted_Internal' AND source IS NOT NULL";
        const LOGGED: &str = "SELECT 'the logged model ' || model_id, artifact_location::text \
             FROM public.logged_models WHERE lifecycle_stage = 'active' AND artifact_location IS NOT NULL";
        let mut found = Vec::new();
        for (table, query) in [("model_versions", VERSIONS), ("logged_models", LOGGED)] {
            if self.has_table(table).await? {
                let rows = self.client.query(query, &[]).await.map_err(failed("ask what MLflow refers to"))?;
                found.extend(rows.into_iter().map(|row| (row.get(0), row.get(1))));
            }
        }
        Ok(found)
    }

    async fn has_table(&self, name: &str) -> Result<bool, PostgresError> {
        const QUERY: &str = "SELECT 1 FROM pg_tables WHERE schemaname = 'public' AND tablename = $1";
        let row = self.client.query_opt(QUERY, &[&name]).await;
        Ok(row.map_err(failed(format!("look for the table {name}")))?.is_some())
    }
}

/// The number of rows of each table in the schema `public`.
pub(super) async fn rows(client: &Client) -> Result<BTreeMap<String, i64>, PostgresError> {
    const WHAT: &str = "count rows";
    const TABLES: &str = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
    let mut rows = BTreeMap::new();
    for table in client.query(TABLES, &[]).await.map_err(failed(WHAT))? {
        let table: String = table.get(0);
        let count = format!("SELECT count(*) FROM public.{}", identifier(&table));
        let count = client.query_one(&count, &[]).await.map_err(failed(WHAT))?.get(0);
        rows.insert(table, count);
    }
    Ok(rows)
}
