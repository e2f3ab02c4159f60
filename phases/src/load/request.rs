//! The request that a test sends again and again, and how its answer is read.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, Response, Url};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::sample::Outcome;

/// The request of a test.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub url: Url,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; empty for none.
    pub body: Vec<u8>,
    /// What answers it.
    pub answer: Answer,
    /// How long an answer may take, from when the request should have been sent.
    pub timeout: Duration,
}

/// What answers a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answer {
    /// Anything with a good status.
    #[default]
    Any,
    /// Tokens of a language model by OpenAI's protocol, as one piece or streamed.
    Tokens,
}

/// What was seen of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) outcome: Outcome,
    /// When the first byte of the body came; of one that is streamed, the first token.
    pub(super) first: Option<Instant>,
    pub(super) bytes: u64,
    pub(super) tokens: u64,
}

impl Request {
    /// A GET of `url` for anything.
    pub fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Vec::new(),
            answer: Answer::Any,
            timeout: Duration::from_secs(30),
        }
    }

    /// Sends it once and reads the whole answer, which must be there at `deadline`.
    pub(super) async fn send(&self, client: &Client, deadline: Instant) -> Seen {
        let mut seen = Seen { outcome: Outcome::TimedOut, first: None, bytes: 0, tokens: 0 };
        if let Ok(outcome) = timeout_at(deadline, self.read(client, &mut seen)).await {
            seen.outcome = outcome;
        }
        seen
    }

    async fn read(&self, client: &Client, seen: &mut Seen) -> Outcome {
        let request = client.request(self.method.clone(), self.url.clone()).headers(self.headers.clone());
        match request.body(self.body.clone()).send().await {
            Err(error) if error.is_connect() => Outcome::NotConnected,
            Err(_) => Outcome::Broken,
            Ok(answer) => self.read_body(answer, seen).await.unwrap_or(Outcome::Broken),
        }
    }

    async fn read_body(&self, mut answer: Response, seen: &mut Seen) -> reqwest::Result<Outcome> {
        let status = answer.status();
        let is_stream = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(STREAM));
        let keeps = self.answer == Answer::Tokens && status.is_success();
        let (mut tokens, mut body) = (Tokens::default(), Vec::new());
        while let Some(chunk) = answer.chunk().await? {
            seen.bytes += chunk.len() as u64;
            if keeps && is_stream {
                tokens.take(&chunk);
            } else if keeps {
                body.extend_from_slice(&chunk);
            }
            let has_begun = !(keeps && is_stream) || tokens.seen > 0;
            if seen.first.is_none() && has_begun {
                seen.first = Some(Instant::now());
            }
        }
        if !status.is_success() {
            return Ok(Outcome::Status(status.as_u16()));
        }
        if keeps {
            seen.tokens = if is_stream { tokens.count() } else { tokens_told(&body) };
            if seen.tokens == 0 {
                return Ok(Outcome::WrongAnswer);
            }
        }
        Ok(Outcome::Ok(status.as_u16()))
    }
}

/// The content type of an answer in pieces.
const STREAM: &[u8] = b"text/event-stream";

/// Counts the tokens of an answer that comes as server-sent events.
#[derive(Debug, Default)]
struct Tokens {
    /// The beginning of a line that is not complete yet.
    line: Vec<u8>,
    /// The events with text: one a token.
    seen: u64,
    /// What the server says that there were.
    told: u64,
}

impl Tokens {
    fn take(&mut self, chunk: &[u8]) {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                let event = line.strip_prefix(b"data:").and_then(|data| serde_json::from_slice::<Value>(data).ok());
                if let Some(event) = event {
                    self.seen += u64::from(has_text(&event));
                    self.told = self.told.max(usage(&event));
                }
            }
        }
    }

    fn count(&self) -> u64 {
        if self.told > 0 { self.told } else { self.seen }
    }
}

/// Whether an event carries text, of a chat or of a plain completion.
fn has_text(event: &Value) -> bool {
    let texts = ["/choices/0/delta/content", "/choices/0/text"];
    texts.iter().any(|at| event.pointer(at).and_then(Value::as_str).is_some_and(|text| !text.is_empty()))
}

fn usage(answer: &Value) -> u64 {
    answer.pointer("/usage/completion_tokens").and_then(Value::as_u64).unwrap_or(0)
}

fn tokens_told(body: &[u8]) -> u64 {
    serde_json::from_slice(body).map_or(0, |answer| usage(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_stream_are_counted_however_it_is_cut() {
        let stream = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{\"content\":\" world\"}}]}\r\n\r\n\
                      data: [DONE]\n\n";
        for size in 1..stream.len() {
            let mut tokens = Tokens::default();
            stream.as_bytes().chunks(size).for_each(|chunk| tokens.take(chunk));
            assert_eq!(tokens.count(), 2, "in pieces of {size}");
        }
        let mut tokens = Tokens::default();
        tokens.take(b"data: {\"choices\":[{\"text\":\"ab\"}],\"usage\":{\"completion_tokens\":5}}\n");
        assert_eq!(tokens.count(), 5, "what the server says is taken");
        assert_eq!(tokens_told(b"{\"usage\":{\"completion_tokens\":16}}"), 16);
        assert_eq!(tokens_told(b"<html>"), 0);
    }
}
