//! What is meant by what ssh(1) and sudo(8) write.

use super::SshErrorKind;

/// The exit code of ssh(1) for errors of its own.
const OWN_ERROR: &str = "exit code 255";

/// What it means that ssh ended like this, and wrote that.
pub(super) fn classify(ended: &str, tail: &str, sudo: bool) -> SshErrorKind {
    use SshErrorKind as Kind;
    let line_with = |parts: &[&str]| {
        tail.lines().map(str::trim).find(|line| parts.iter().any(|part| line.contains(part))).map(str::to_owned)
    };
    if ended != OWN_ERROR {
        let refused = line_with(&["sudo: not found", "sudo: command not found", "sudo: No such file"])
            .or_else(|| tail.lines().find(|line| line.starts_with("sudo: ") && is_refusal(line)).map(str::to_owned))
            .or_else(|| line_with(&["is not in the sudoers file", "may not run sudo"]));
        return match refused.filter(|_| sudo) {
            Some(said) => Kind::Sudo(said),
            None => Kind::Script(format!("it ended with {ended}")),
        };
    }
    if line_with(&["REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed"]).is_some() {
        return Kind::HostKeyChanged;
    }
    if let Some(line) = line_with(&["Could not resolve hostname"]) {
        return Kind::UnknownName { temporary: line.contains("Temporary failure") };
    }
    if let Some(line) = line_with(&["ssh: connect to host"]) {
        return match line {
            line if line.ends_with("Connection refused") => Kind::Refused,
            line if line.ends_with("timed out") => Kind::NoAnswer,
            _ => Kind::NoRoute,
        };
    }
    if line_with(&["is booting up", "nologin"]).is_some() {
        return Kind::Booting;
    }
    if let Some(line) = line_with(&["UNPROTECTED PRIVATE KEY FILE", "Load key", "Identity file", "no such identity"]) {
        return Kind::UnusableKey(line.trim_matches(|c| c == '@' || c == ' ').to_owned());
    }
    if line_with(&["Permission denied (", "Too many authentication failures"]).is_some() {
        return Kind::Denied;
    }
    if let Some(line) =
        line_with(&["Unable to negotiate", "Bad owner or permissions", "onfiguration option", "terminating,"])
    {
        return Kind::Setup(line);
    }
    if line_with(&["timed out", "not responding"]).is_some() {
        return Kind::NoAnswer;
    }
    Kind::Lost
}

fn is_refusal(line: &str) -> bool {
    ["password is required", "terminal is required", "no tty", "unable to", "not allowed"]
        .iter()
        .any(|part| line.contains(part))
        && !line.contains("unable to resolve host")
}
