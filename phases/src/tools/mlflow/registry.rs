//! MLflow's model registry: versions of models, with their sources and tags.

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Mlflow, MlflowError, field};

/// How many versions are looked at.
const MOST: u32 = 10_000;

/// A version of a registered model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ModelVersion {
    /// Its number.
    pub version: String,
    /// Where its files are.
    #[serde(default)]
    pub source: String,
    /// The run that made it; empty if none is named.
    #[serde(default)]
    pub run_id: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// A tag of a version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tag {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl ModelVersion {
    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| &*tag.value)
    }
}

impl Mlflow {
    /// Makes a registered model; that there is one of this name is fine.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn ensure_model(&self, name: &str) -> Result<(), MlflowError> {
        match self.call(Method::POST, "registered-models/create", json!({"name": name})).await {
            Err(MlflowError::Refused { message, .. }) if message.contains("RESOURCE_ALREADY_EXISTS") => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// The versions of a registered model, the newest first; none if there is no such model.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn versions(&self, name: &str) -> Result<Vec<ModelVersion>, MlflowError> {
        let what = "look for versions of a model";
        let parameters = [
            ("filter", format!("name='{name}'")),
            ("max_results", MOST.to_string()),
            ("order_by", "version_number DESC".to_owned()),
        ];
        let url = Url::parse_with_params(&format!("{}/api/2.0/mlflow/model-versions/search", self.url), parameters);
        let url = url.map_err(|_| MlflowError::Incomplete { what: what.to_owned(), field: "valid address" })?;
        let answer = self.json(self.http.get(url), what).await?;
        let found = answer.get("model_versions").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
        serde_json::from_value(found)
            .map_err(|_| MlflowError::Incomplete { what: what.to_owned(), field: "model_versions" })
    }

    /// Makes a version of a registered model and returns its number.
    ///
    /// # Errors
    /// The server refuses, for instance because there is no such model or run.
    pub async fn create_version(
        &self,
        name: &str,
        source: &str,
        run: Option<&str>,
        tags: &[(&str, String)],
    ) -> Result<String, MlflowError> {
        let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        let body = json!({"name": name, "source": source, "run_id": run, "tags": tags});
        let answer = self.call(Method::POST, "model-versions/create", body).await?;
        field(&answer, "/model_version/version", "make a version of a model", "version")
    }

    /// Sets a tag of a version.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn tag_version(&self, name: &str, version: &str, key: &str, value: &str) -> Result<(), MlflowError> {
        let body = json!({"name": name, "version": version, "key": key, "value": value});
        self.call(Method::POST, "model-versions/set-tag", body).await.map(|_| ())
    }

    /// Deletes a version; that there is none is fine.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn delete_version(&self, name: &str, version: &str) -> Result<(), MlflowError> {
        let body = json!({"name": name, "version": version});
        gone(self.call(Method::DELETE, "model-versions/delete", body).await)
    }

    /// Deletes a registered model with its versions; that there is none is fine.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn delete_model(&self, name: &str) -> Result<(), MlflowError> {
        gone(self.call(Method::DELETE, "registered-models/delete", json!({"name": name})).await)
    }
}

fn gone(answer: Result<Value, MlflowError>) -> Result<(), MlflowError> {
    match answer {
        Err(MlflowError::Refused { status: StatusCode::NOT_FOUND, .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}
