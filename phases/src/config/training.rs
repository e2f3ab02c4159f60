//! Training.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is fine-tuned, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// The name that the model is registered and served by: lower-case letters, digits and `-`. `assistant` by default.
    pub name: String,
    /// Where it begins: `tiny` (the default) for a two-layer model with random weights, made on the spot without any
    /// download, for a look and as a proof; or a model of the hub such as `HuggingFaceTB/SmolLM2-135M-Instruct`; or a
    /// folder in Hugging Face's format, relative to the graph.
    pub model: String,
    /// The conversations to learn from: a JSONL file, each line `{"messages": [{"role": …, "content": …}, …]}`, relative
    /// to the graph. By default a small set about this platform.
    pub dataset: Option<PathBuf>,
    /// The training steps: 60 by default.
    pub max_steps: u32,
    /// The conversations in each step: 8 by default.
    pub batch_size: u32,
    /// The learning rate: 0.005 by default, which suits `tiny`; models that know something already want about 0.00002.
    pub learning_rate: f64,
    /// The most tokens of a conversation: 256 by default, the most that `tiny` takes.
    pub max_length: u32,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            name: "assistant".to_owned(),
            model: Self::TINY.to_owned(),
            dataset: None,
            max_steps: 60,
            batch_size: 8,
            learning_rate: 0.005,
            max_length: 256,
        }
    }
}

impl TrainingConfig {
    /// The model that is made on the spot.
    pub const TINY: &'static str = "tiny";

    /// What is wrong with it, by field.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut letters = self.name.chars();
        let begins = letters.next().is_some_and(|c| c.is_ascii_lowercase());
        if !begins || self.name.len() > 40 || !letters.all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            let what = "1 to 40 lower-case letters, digits and `-`, beginning with a letter";
            faults.push(("name", format!("`{}` is not {what}", self.name)));
        }
        if self.model.trim().is_empty() {
            faults.push(("model", "a model without a name cannot be found".to_owned()));
        }
        if !(2..=10_000_000).contains(&self.max_steps) {
            faults.push(("max_steps", format!("{} is not between 2 and 10000000", self.max_steps)));
        }
        if !(1..=4096).contains(&self.batch_size) {
            faults.push(("batch_size", format!("{} is not between 1 and 4096", self.batch_size)));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            faults.push(("learning_rate", format!("{} is not above 0 and at most 1", self.learning_rate)));
        }
        if self.max_length < 16 || (self.model == Self::TINY && self.max_length > 256) {
            faults.push(("max_length", format!("{} is not at least 16, and at most 256 for `tiny`", self.max_length)));
        }
        faults
    }
}
