//! What this program adds to the engine.

use std::path::Path;

use serde_json::{Value, json};
use taskrun_engine::cli::{CliError, ConfigureOptions, Configured, Product};
use taskrun_engine::registry::Registry;

/// The private AI cloud.
pub struct Cloud;

impl Product for Cloud {
    fn configure(&self, file: &Path, asked: bool, _options: ConfigureOptions) -> Result<Configured, CliError> {
        if asked && !file.exists() {
            return Err(CliError::usage(format!("there is no configuration {}", file.display())));
        }
        Ok(Configured {
            environment: "local".to_owned(),
            platform: "local".to_owned(),
            registry: Registry::new(),
            secrets: Vec::new(),
        })
    }

    fn config_schema(&self) -> Value {
        json!({})
    }
}
