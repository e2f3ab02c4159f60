//! supervisord: its configuration, and its XML-RPC API over a UNIX socket (<http://supervisord.org/api.html>).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dxr::{FaultResponse, MethodCall, MethodResponse, Value};

/// How long the supervisor may take to answer. It answers at once unless the machine is overloaded; starting and stopping
/// is asked for without waiting.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A path of this many bytes does not fit into the address of a UNIX socket (`sun_path`, man 7 unix).
pub const MAX_SOCKET_PATH: usize = 107;

/// A client of one supervisor.
#[derive(Debug, Clone)]
pub struct Supervisor {
    socket: PathBuf,
    http: reqwest::Client,
}

/// Why the supervisor could not be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Nobody answers.
    #[error("reach the supervisor at {}", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What the transport said.
        source: reqwest::Error,
    },
    /// The answer makes no sense.
    #[error("understand the supervisor's answer to {method}: {what}")]
    Nonsense {
        /// What was asked.
        method: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// It refused.
    #[error("supervisor refuses {method}: {message}")]
    Fault {
        /// What was asked.
        method: String,
        /// The code, see `supervisor.xmlrpc.Faults`.
        code: i32,
        /// Its words.
        message: String,
    },
}

/// What the supervisor says of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// The program.
    pub name: String,
    /// `RUNNING`, `STOPPED`, `STARTING`, `BACKOFF`, `STOPPING`, `EXITED`, `FATAL`.
    pub state: String,
    /// Its process; 0 if there is none.
    pub pid: u32,
    /// When it was started, in seconds since 1970.
    pub start: u64,
    /// The supervisor's clock, in seconds since 1970.
    pub now: u64,
    /// One line about it.
    pub description: String,
    /// Why it could not be started.
    pub spawn_error: String,
    /// What it ended with last, in `BACKOFF` and `EXITED`; 0 otherwise.
    pub exit_status: i32,
}

/// What a changed configuration means for the groups of programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// New ones.
    pub added: Vec<String>,
    /// Ones with other settings.
    pub changed: Vec<String>,
    /// Ones that are gone from the files.
    pub removed: Vec<String>,
}

/// Codes of `supervisor.xmlrpc.Faults`.
mod fault {
    pub(super) const UNKNOWN_METHOD: i32 = 1;
    pub(super) const BAD_NAME: i32 = 10;
    pub(super) const ALREADY_STARTED: i32 = 60;
    pub(super) const NOT_RUNNING: i32 = 70;
    pub(super) const ALREADY_ADDED: i32 = 90;
}

impl SupervisorError {
    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    fn is(&self, wanted: i32) -> bool {
        matches!(self, Self::Fault { code, .. } if *code == wanted)
    }
}

impl Supervisor {
    /// A client of the supervisor behind `socket`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(socket: &Path) -> Result<Self, SupervisorError> {
        let http = super::http::client("unix:").unix_socket(socket).timeout(TIMEOUT).build();
        let http = http.map_err(|source| SupervisorError::Unreachable { socket: socket.to_owned(), source })?;
        Ok(Self { socket: socket.to_owned(), http })
    }

    /// Whether it answers and is not about to end.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn is_up(&self) -> Result<bool, SupervisorError> {
        let state = self.call("supervisor.getState", vec![]).await?;
        Ok(text(&state, "statename") == "RUNNING")
    }

    /// The supervisor's own process.
    ///
    /// # Errors
    /// As all calls.
    pub async fn pid(&self) -> Result<u32, SupervisorError> {
        let pid = self.call("supervisor.getPID", vec![]).await?;
        Ok(number(&pid).try_into().unwrap_or_default())
    }

    /// All programs.
    ///
    /// # Errors
    /// As all calls.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>, SupervisorError> {
        let all = self.call("supervisor.getAllProcessInfo", vec![]).await?;
        match all {
            Value::Array(items) => Ok(items.iter().map(info).collect()),
            _ => Err(nonsense("supervisor.getAllProcessInfo", "no list")),
        }
    }

    /// One program; nothing if there is none of that name.
    ///
    /// # Errors
    /// As all calls.
    pub async fn process(&self, name: &str) -> Result<Option<ProcessInfo>, SupervisorError> {
        match self.call("supervisor.getProcessInfo", vec![string(name)]).await {
            Ok(found) => Ok(Some(info(&found))),
            Err(error) if error.is(fault::BAD_NAME) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the configuration files again; changes nothing yet.
    ///
    /// # Errors
    /// As all calls; also when a file is wrong.
    pub async fn reload(&self) -> Result<Reloaded, SupervisorError> {
        let answer = self.call("supervisor.reloadConfig", vec![]).await?;
        // [[added, changed, removed]]
        let lists = match answer {
            Value::Array(mut outer) if outer.len() == 1 => match outer.remove(0) {
                Value::Array(lists) => lists,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        let names = |list: Option<&Value>| match list {
            Some(Value::Array(items)) => items.iter().map(plain).collect(),
            _ => Vec::new(),
        };
        match lists.len() {
            3 => {
                Ok(Reloaded { added: names(lists.first()), changed: names(lists.get(1)), removed: names(lists.get(2)) })
            }
            _ => Err(nonsense("supervisor.reloadConfig", "not three lists")),
        }
    }

    /// Takes a program from the files; it is started if its settings say so.
    ///
    /// # Errors
    /// As all calls.
    pub async fn add(&self, name: &str) -> Result<(), SupervisorError> {
        self.allowing("supervisor.addProcessGroup", vec![string(name)], &[fault::ALREADY_ADDED]).await
    }

    /// Forgets a program, which must not run.
    ///
    /// # Errors
    /// As all calls.
    pub async fn remove(&self, name: &str) -> Result<(), SupervisorError> {
        self.allowing("supervisor.removeProcessGroup", vec![string(name)], &[fault::BAD_NAME]).await
    }

    /// Asks a program to start, and does not wait.
    ///
    /// # Errors
    /// As all calls.
    pub async fn start(&self, name: &str) -> Result<(), SupervisorError> {
        let params = vec![string(name), Value::Boolean(false)];
        self.allowing("supervisor.startProcess", params, &[fault::ALREADY_STARTED]).await
    }

    /// Asks a program to stop, and does not wait.
    ///
    /// # Errors
    /// As all calls.
    pub async fn stop(&self, name: &str) -> Result<(), SupervisorError> {
        let params = vec![string(name), Value::Boolean(false)];
        self.allowing("supervisor.stopProcess", params, &[fault::NOT_RUNNING, fault::BAD_NAME]).await
    }

    /// Sends a signal to a program: `HUP`.
    ///
    /// # Errors
    /// As all calls; also when it does not run.
    pub async fn signal(&self, name: &str, signal: &str) -> Result<(), SupervisorError> {
        self.call("supervisor.signalProcess", vec![string(name), string(signal)]).await.map(|_| ())
    }

    /// Asks the supervisor to stop all programs and to end.
    ///
    /// # Errors
    /// As all calls.
    pub async fn shutdown(&self) -> Result<(), SupervisorError> {
        self.call("supervisor.shutdown", vec![]).await.map(|_| ())
    }

    async fn allowing(&self, method: &str, params: Vec<Value>, allowed: &[i32]) -> Result<(), SupervisorError> {
        match self.call(method, params).await {
            Err(error) if allowed.iter().any(|code| error.is(*code)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn call(&self, method: &str, params: Vec<Value>) -> Result<Value, SupervisorError> {
        let call = MethodCall { name: method.into(), params };
        let body = call.to_xml().map_err(|error| nonsense(method, &error.to_string()))?;
        let unreachable = |source| SupervisorError::Unreachable { socket: self.socket.clone(), source };
        let request = self.http.post("http://supervisor/RPC2").header("content-type", "text/xml").body(body);
        let answer = request.send().await.map_err(unreachable)?.text().await.map_err(unreachable)?;
        if let Ok(FaultResponse { fault }) = FaultResponse::from_xml(&answer) {
            let (method, code) = (method.to_owned(), fault.code());
            let message = if code == fault::UNKNOWN_METHOD {
                "it does not know it".to_owned()
            } else {
                fault.string().to_owned()
            };
            return Err(SupervisorError::Fault { method, code, message });
        }
        MethodResponse::from_xml(&answer)
            .map(|response| response.value)
            .map_err(|error| nonsense(method, &error.to_string()))
    }
}

fn nonsense(method: &str, what: &str) -> SupervisorError {
    SupervisorError::Nonsense { method: method.to_owned(), what: what.to_owned() }
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => String::new(),
    }
}

fn number(value: &Value) -> i64 {
    match value {
        Value::Integer(number) => i64::from(*number),
        _ => 0,
    }
}

fn text(value: &Value, field: &str) -> String {
    match value {
        Value::Struct(fields) => fields.get(field).map(plain).unwrap_or_default(),
        _ => String::new(),
    }
}

fn info(value: &Value) -> ProcessInfo {
    let number = |field: &str| match value {
        Value::Struct(fields) => fields.get(field).map(number).unwrap_or_default(),
        _ => 0,
    };
    ProcessInfo {
        name: text(value, "name"),
        state: text(value, "statename"),
        pid: number("pid").try_into().unwrap_or_default(),
        start: number("start").try_into().unwrap_or_default(),
        now: number("now").try_into().unwrap_or_default(),
        exit_status: number("exitstatus").try_into().unwrap_or_default(),
        description: text(value, "description"),
        spawn_error: text(value, "spawnerr"),
    }
}

/// The main configuration: a socket that only its owner may use, and programs in `conf.d` beside the file.
pub fn main_config(folder: &Path, socket: &Path, environment: &str) -> String {
    let values = [
        ("folder", escaped(&folder.display().to_string())),
        ("socket", escaped(&socket.display().to_string())),
        ("environment", escaped(environment)),
    ];
    fill(include_str!("../../assets/supervisor/supervisord.conf"), &values.into())
}

/// The configuration of one program. `command` is split as a shell would.
pub fn program_config(name: &str, command: &str, log: &Path, stop_signal: &str, stop_seconds: u32) -> String {
    let values = [
        ("name", name.to_owned()),
        ("command", escaped(command)),
        ("log", escaped(&log.display().to_string())),
        ("stop_signal", stop_signal.to_owned()),
        ("stop_seconds", stop_seconds.to_string()),
    ];
    fill(include_str!("../../assets/supervisor/program.conf"), &values.into())
}

/// supervisord expands `%(…)s` in its files.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

fn fill(template: &str, values: &BTreeMap<&str, String>) -> String {
    let mut environment = minijinja::Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    // The templates are part of the program and every value is given: a test renders both.
    environment.render_str(template, values).expect("the template is sound")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_as_it_was_looked_at() {
        let main = main_config(Path::new("/s/100%"), Path::new("/s/run/sv.sock"), "local");
        let program = program_config(
            "minio",
            "'/a b/launcher' launch-service /s/minio.json",
            Path::new("/s/minio.log"),
            "TERM",
            30,
        );
        crate::testing::snapshot("supervisor-config", &format!("{main}\n--- conf.d/minio.conf ---\n{program}"));
    }
}
