//! What runs there.

use std::time::Duration;

/// How long a script may run unless it says other.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Writes stdin into a file, if all of it came.
const COPY: &str = r#"temporary=$1.taskrun-new; umask 077; cat >"$temporary"
if [ "$(wc -c <"$temporary")" -ne "$3" ]; then rm -f "$temporary"; echo 'the connection ended too early' >&2; exit 1; fi
chmod "$2" "$temporary"; mv -f "$temporary" "$1""#;

/// A script for `sh`, with what it is to run with.
#[derive(Debug, Clone)]
pub struct Script {
    what: What,
    args: Vec<String>,
    sudo: bool,
    timeout: Duration,
}

#[derive(Debug, Clone)]
enum What {
    /// Read by the shell from stdin.
    Text(String),
    /// The script is an argument, and stdin is what it reads.
    Reading(&'static str, Vec<u8>),
}

impl Script {
    /// A script, run with `set -eu`, an empty stdin, and messages in English. The shell reads all of it before it runs
    /// any, so that a connection that ends too early runs nothing.
    pub fn new(text: impl Into<String>) -> Self {
        Self { what: What::Text(text.into()), args: Vec::new(), sudo: false, timeout: TIMEOUT }
    }

    /// Writes `bytes` into the file `path` with the octal `mode`.
    pub(super) fn copy(bytes: &[u8], path: &str, mode: &str) -> Self {
        let what = What::Reading(COPY, bytes.to_vec());
        let args = vec![path.to_owned(), mode.to_owned(), bytes.len().to_string()];
        Self { what, args, sudo: false, timeout: TIMEOUT }
    }

    /// Adds an argument: `$1`, `$2` and so on. Arguments can be seen by every user of both machines.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Whether it runs as root, by sudo(8) where somebody else logs in.
    #[must_use]
    pub fn sudo(mut self, sudo: bool) -> Self {
        self.sudo = sudo;
        self
    }

    /// How long it may take, connecting included; a minute by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(super) fn time(&self) -> Duration {
        self.timeout
    }

    pub(super) fn is_sudo(&self) -> bool {
        self.sudo
    }

    pub(super) fn remote_command(&self, user: &str) -> String {
        let sudo = if self.sudo && user != "root" { "sudo -n -- " } else { "" };
        let shell = match &self.what {
            What::Text(_) => "sh -s --".to_owned(),
            What::Reading(script, _) => format!("sh -euc {} sh", quote(script)),
        };
        let args: String = self.args.iter().map(|arg| format!(" {}", quote(arg))).collect();
        format!("{sudo}{shell}{args}")
    }

    pub(super) fn stdin(&self) -> Vec<u8> {
        match &self.what {
            What::Text(text) => format!("export LC_ALL=C; set -eu; {{\n{text}\n}} </dev/null\n").into_bytes(),
            What::Reading(_, bytes) => bytes.clone(),
        }
    }
}

/// A word as a POSIX shell reads it back.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// What ssh has the other side do, done here.
    fn run(script: &Script) -> (String, Option<i32>) {
        let mut shell = Command::new("sh")
            .args(["-c", &script.remote_command("root")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(&script.stdin()).unwrap();
        let output = shell.wait_with_output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    }

    #[test]
    fn arguments_arrive_as_they_are_and_stdin_is_empty() {
        let words = ["", "a b", "it's", "$HOME", "`id`", "-n", "two\nlines"];
        let script = Script::new("cat; printf '<%s>' \"$@\"; false; echo not here").args(words);
        let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(run(&script), (expected, Some(1)));
    }

    #[test]
    fn half_a_script_runs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made");
        let script = Script::new(format!("touch {}\nsleep 0", file.display()));
        let stdin = script.stdin();
        let half = &stdin[..stdin.len() - b"\n} </dev/null\n".len()];
        let mut shell = Command::new("sh").arg("-s").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(half).unwrap();
        assert!(!shell.wait().unwrap().success() && !file.exists());
        assert_eq!(run(&script).1, Some(0));
        assert!(file.exists());
    }

    #[test]
    fn a_file_arrives_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it's a file");
        let path = file.to_str().unwrap();
        assert_eq!(run(&Script::copy(b"\0bytes\n", path, "0640")).1, Some(0));
        assert_eq!(std::fs::read(&file).unwrap(), b"\0bytes\n");
        let mut cut = Script::copy(b"longer than that", path, "0640");
        if let What::Reading(_, bytes) = &mut cut.what {
            bytes.truncate(5);
        }
        assert_eq!(run(&cut).1, Some(1));
        assert_eq!(std::fs::read(&file).unwrap(), b"\0bytes\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
