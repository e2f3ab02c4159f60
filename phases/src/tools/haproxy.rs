//! HAProxy: its configuration, and its runtime API over a UNIX socket (<https://docs.haproxy.org/2.6/management.html#9.3>).
//!
//! Each model has a backend with a fixed number of slots, some of them off. Replicas come and go by giving a slot
//! another port and state at run time, which interrupts nothing; only a new or removed backend needs a reload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The port of a slot that is off; nothing is ever sent there.
const NO_PORT: u16 = 1;

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The socket of the runtime API.
    pub socket: PathBuf,
    /// The port of all models.
    pub port: u16,
    /// The port of the metrics.
    pub metrics_port: u16,
    /// The backends, by model.
    pub backends: BTreeMap<String, Backend>,
}

/// The backend of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// How many requests a replica gets at once; more wait in the proxy.
    pub most_at_once: u32,
    /// The slots.
    pub slots: Vec<Slot>,
}

/// A place for a replica in a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// Nothing is there.
    #[default]
    Off,
    /// The replica at this port gets requests.
    Ready(u16),
    /// The replica at this port gets no new requests.
    Drain(u16),
}

/// A slot as the proxy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStat {
    /// The model.
    pub model: String,
    /// The number of the slot, from 0; nothing for the sum of the backend.
    pub slot: Option<usize>,
    /// What the slot is set to.
    pub state: Slot,
    /// Whether it takes requests: set so and healthy.
    pub up: bool,
    /// The requests that are under way there.
    pub sessions: u32,
    /// The requests that wait.
    pub queued: u32,
    /// The requests that it may have at once.
    pub most_at_once: u32,
}

/// A client of the runtime API.
#[derive(Debug, Clone)]
pub struct Runtime {
    socket: PathBuf,
}

/// Why the proxy could not be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Nobody answers.
    #[error("reach the proxy at {}", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What the transport said.
        source: std::io::Error,
    },
    /// It refused.
    #[error("ask the proxy `{command}`: {message}")]
    Refused {
        /// What was asked.
        command: String,
        /// Its words.
        message: String,
    },
}

impl Slot {
    fn port(self) -> u16 {
        match self {
            Self::Off => NO_PORT,
            Self::Ready(port) | Self::Drain(port) => port,
        }
    }
}

impl Configuration {
    /// The text of the file.
    pub fn render(&self) -> String {
        let slot = |(number, slot): (usize, &Slot)| {
            // A drained slot is off after a restart: its last requests are gone with the old process.
            json!({"name": name(number), "port": slot.port(), "disabled": !matches!(slot, Slot::Ready(_))})
        };
        let backend = |(model, backend): (&String, &Backend)| {
            let slots = backend.slots.iter().enumerate().map(slot).collect::<Vec<_>>();
            json!({"model": model, "most_at_once": backend.most_at_once, "slots": slots})
        };
        let values = json!({
            "socket": self.socket.display().to_string(),
            "port": self.port,
            "metrics_port": self.metrics_port,
            "backends": self.backends.iter().map(backend).collect::<Vec<_>>(),
            "unknown": self.unknown(),
        });
        let mut environment = minijinja::Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        // The template is part of the program and every value is given: a test renders it.
        let template = include_str!("../../assets/haproxy/haproxy.cfg");
        let text = environment.render_str(template, minijinja::Value::from(minijinja::value::Serde(values)));
        // The last line needs an end too.
        text.expect("the template is sound") + "\n"
    }

    /// What is answered where there is no such model. Names of models need no escapes.
    fn unknown(&self) -> String {
        let known: Vec<&str> = self.backends.keys().map(String::as_str).collect();
        let hint = match known.is_empty() {
            true => "there is none yet: taskrun model deploy NAME URI".to_owned(),
            false => format!("there are: {}", known.join(", ")),
        };
        json!({"error": format!("no model of that name is served here; {hint}")}).to_string()
    }
}

impl Runtime {
    /// A client of the proxy behind `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// All slots and backends of models.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn stats(&self) -> Result<Vec<ServerStat>, ProxyError> {
        // 4 is for servers, 2 for backends: <https://docs.haproxy.org/2.6/management.html#9.3-show%20stat>
        Ok(parse_stats(&self.ask("show stat -1 6 -1").await?))
    }

    /// Sets a slot.
    ///
    /// # Errors
    /// Nobody answers, or there is no such slot.
    pub async fn set(&self, model: &str, number: usize, slot: Slot) -> Result<(), ProxyError> {
        let server = format!("model-{model}/{}", name(number));
        let state = |word: &str| format!("set server {server} state {word}");
        let address = |port: u16| format!("set server {server} addr 127.0.0.1 port {port}");
        let commands = match slot {
            // What is still open there is cut off: only called once it is drained.
            Slot::Off => vec![state("maint"), address(NO_PORT)],
            Slot::Ready(port) => vec![address(port), state("ready")],
            Slot::Drain(_) => vec![state("drain")],
        };
        for command in commands {
            let said = self.ask(&command).await?;
            let said = said.trim();
            // A change of address is told, even one to the same.
            if !said.is_empty() && !said.starts_with("no need") && !said.contains("changed") {
                return Err(ProxyError::Refused { command, message: said.to_owned() });
            }
        }
        Ok(())
    }

    async fn ask(&self, command: &str) -> Result<String, ProxyError> {
        let talk = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(format!("{command}\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        let answer = tokio::time::timeout(TIMEOUT, talk).await.unwrap_or_else(|late| Err(late.into()));
        answer.map_err(|source| ProxyError::Unreachable { socket: self.socket.clone(), source })
    }
}

/// The name of a slot.
fn name(number: usize) -> String {
    format!("s{number}")
}

/// Reads the table that `show stat` writes: the first line names the columns.
fn parse_stats(table: &str) -> Vec<ServerStat> {
    let mut lines = table.lines().filter(|line| !line.is_empty());
    let columns: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let at = |column: &str| columns.iter().position(|name| *name == column);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let text = |column: &str| at(column).and_then(|at| fields.get(at)).copied().unwrap_or_default();
        let number = |column: &str| text(column).parse::<u32>().unwrap_or_default();
        let model = text("pxname").strip_prefix("model-")?.to_owned();
        let slot = match text("svname") {
            "BACKEND" => None,
            server => Some(server.strip_prefix('s')?.parse().ok()?),
        };
        let port = text("addr").rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(NO_PORT);
        let status = text("status");
        let state = match status {
            _ if port == NO_PORT || status.starts_with("MAINT") => Slot::Off,
            _ if status.starts_with("DRAIN") => Slot::Drain(port),
            _ => Slot::Ready(port),
        };
        Some(ServerStat {
            model,
            slot,
            state,
            up: status.starts_with("UP"),
            sessions: number("scur"),
            queued: number("qcur"),
            most_at_once: number("slim"),
        })
    };
    lines.filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(backends: &[(&str, &[Slot])]) -> Configuration {
        let backends = backends
            .iter()
            .map(|(model, slots)| ((*model).to_owned(), Backend { most_at_once: 16, slots: slots.to_vec() }));
        Configuration {
            socket: "/run/haproxy/admin.sock".into(),
            port: 8080,
            metrics_port: 8405,
            backends: backends.collect(),
        }
    }

    #[test]
    fn the_configuration_is_as_it_was_looked_at() {
        let none = configuration(&[]).render();
        let slots = [Slot::Ready(4001), Slot::Drain(4002), Slot::Off];
        let two = configuration(&[("iris", &slots), ("llama", &[Slot::Off])]).render();
        crate::testing::snapshot("haproxy-config", &format!("{none}\n--- with models ---\n{two}"));
    }

    #[test]
    fn the_table_of_states_is_read_by_its_columns() {
        let table = "# pxname,svname,qcur,scur,status,addr,\n\
                     model-iris,s0,0,3,UP,127.0.0.1:4001,\n\
                     model-iris,s1,0,1,DRAIN,127.0.0.1:4002,\n\
                     model-iris,s2,0,0,MAINT,127.0.0.1:1,\n\
                     model-iris,s3,0,0,DOWN 1/3,127.0.0.1:4003,\n\
                     model-iris,BACKEND,7,11,UP,,\n\
                     unknown,BACKEND,0,0,UP,,\n\n";
        let stats = parse_stats(table);
        let states: Vec<_> = stats.iter().map(|stat| (stat.slot, stat.state, stat.up, stat.sessions)).collect();
        let expected = [
            (Some(0), Slot::Ready(4001), true, 3),
            (Some(1), Slot::Drain(4002), false, 1),
            (Some(2), Slot::Off, false, 0),
            (Some(3), Slot::Ready(4003), false, 0),
            (None, Slot::Off, true, 11),
        ];
        assert_eq!(states, expected);
        assert_eq!(stats[4].queued, 7);
    }
}
