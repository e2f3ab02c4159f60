//! The request that asks a served model for a prediction, made from what the model tells of itself.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use taskrun_engine::outcome::{Failure, Persistence};

use super::request::{Answer, Request};
use crate::outputs::ModelServing;

/// How long a model may take to tell of itself.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How many tokens a language model is asked for.
const TOKENS: u32 = 16;

/// What a language model is to go on from.
const PROMPT: &str = "The quick brown fox";

/// What a model tells of itself over V2.
#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    inputs: Vec<Input>,
}

/// An input of a model.
#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    datatype: String,
    /// -1 where any number will do.
    shape: Vec<i64>,
}

/// The request for a prediction by the model `name`: over V2 with one row of ones, or of a language model, by OpenAI's
/// protocol, a few tokens that are streamed.
///
/// # Errors
/// It does not answer, or tells nothing of its inputs.
pub async fn prediction(serving: &ModelServing, name: &str) -> Result<Request, Failure> {
    let metadata = format!("{}/v2/models/{name}", serving.inference_url);
    let failed = |error: reqwest::Error| Failure::caused(Persistence::Transient, format!("ask {metadata}"), &error);
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(failed)?;
    let answer = client.get(&metadata).send().await.map_err(failed)?;
    let (url, body, kind) = match answer.status() {
        StatusCode::OK => {
            let told: Metadata = answer.json().await.map_err(failed)?;
            if told.inputs.is_empty() {
                return Err(Failure::permanent(format!("make a request for {name}: it does not tell its inputs"))
                    .with_hint("give the request: taskrun bench NAME --body JSON; or log the model with a signature"));
            }
            let inputs: Vec<Value> = told.inputs.iter().map(Input::row).collect();
            (format!("{metadata}/infer"), json!({ "inputs": inputs }), Answer::Any)
        }
        _ => {
            let stream = json!({"include_usage": true});
            let body = json!({
                "model": name, "prompt": PROMPT, "max_tokens": TOKENS, "stream": true, "stream_options": stream,
            });
            (format!("{}/models/{name}/openai/v1/completions", serving.inference_url), body, Answer::Tokens)
        }
    };
    let url = Url::parse(&url)
        .map_err(|error| Failure::caused(Persistence::Permanent, format!("understand the address {url}"), &error))?;
    let mut request =
        Request { method: Method::POST, body: body.to_string().into_bytes(), answer: kind, ..Request::get(url) };
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(request)
}

impl Input {
    /// One row of ones.
    fn row(&self) -> Value {
        let shape: Vec<i64> = self.shape.iter().map(|length| (*length).max(1)).collect();
        let count = shape.iter().product::<i64>();
        let one = match self.datatype.as_str() {
            "BOOL" => json!(true),
            "BYTES" => json!("a"),
            kind if kind.starts_with("FP") => json!(1.0),
            _ => json!(1),
        };
        let data: Vec<Value> = (0..count).map(|_| one.clone()).collect();
        json!({"name": self.name, "datatype": self.datatype, "shape": shape, "data": data})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_shape_and_kind_of_the_input() {
        let input = |datatype: &str, shape: &[i64]| {
            Input { name: "x".to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() }.row()
        };
        let row = |datatype, shape, data| json!({"name": "x", "datatype": datatype, "shape": shape, "data": data});
        assert_eq!(input("FP64", &[-1, 3]), row("FP64", json!([1, 3]), json!([1.0, 1.0, 1.0])));
        assert_eq!(input("BYTES", &[-1]), row("BYTES", json!([1]), json!(["a"])));
        assert_eq!(input("INT64", &[]), row("INT64", json!([]), json!([1])));
    }
}
