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

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenSSH 9.2 wrote, and what it meant.
    #[test]
    fn the_words_of_ssh_are_understood() {
        use SshErrorKind as Kind;
        let changed = "\
            @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\n\
            @    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n\
            Offending ED25519 key in /state/known_hosts:1\n\
            Host key for [10.0.0.1]:2222 has changed and you have requested strict checking.\n\
            Host key verification failed.";
        let open_key = "\
            @         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\n\
            Permissions 0644 for '/keys/open' are too open.\n\
            Load key \"/keys/open\": bad permissions\n\
            root@10.0.0.1: Permission denied (publickey,password).";
        let junk =
            "Load key \"/keys/junk\": error in libcrypto\nroot@10.0.0.1: Permission denied (publickey,password).";
        let negotiate =
            "Unable to negotiate with 10.0.0.1 port 22: no matching key exchange method found. Their offer: x";
        let booting = "System is booting up. Unprivileged users are not permitted to log in yet.\n\n\
                       Connection closed by 10.0.0.1 port 22";
        let config = "/root/.ssh/config: line 3: Bad configuration option: nonsense\n\
                      /root/.ssh/config: terminating, 1 bad configuration options";
        let option = "/root/.ssh/config: line 3: Bad configuration option: nonsense";
        for (said, kind) in [
            ("ssh: connect to host 10.0.0.1 port 22: Connection refused", Kind::Refused),
            ("ssh: connect to host 10.0.0.1 port 22: Connection timed out", Kind::NoAnswer),
            ("ssh: connect to host 10.0.0.1 port 22: No route to host", Kind::NoRoute),
            ("ssh: connect to host 10.0.0.1 port 22: Network is unreachable", Kind::NoRoute),
            ("ssh: connect to host 10.0.0.1 port 22: Invalid argument", Kind::NoRoute),
            ("ssh: connect to host 10.0.0.1 port 22: Permission denied", Kind::NoRoute),
            ("Connection timed out during banner exchange", Kind::NoAnswer),
            ("Timeout, server 10.0.0.1 not responding.", Kind::NoAnswer),
            ("ssh: Could not resolve hostname a.b: Name or service not known", Kind::UnknownName { temporary: false }),
            (
                "ssh: Could not resolve hostname a.b: Temporary failure in name resolution",
                Kind::UnknownName { temporary: true },
            ),
            ("root@10.0.0.1: Permission denied (publickey,password).", Kind::Denied),
            (
                "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\n\
                 Disconnected from 10.0.0.1 port 22",
                Kind::Denied,
            ),
            (changed, Kind::HostKeyChanged),
            (open_key, Kind::UnusableKey("WARNING: UNPROTECTED PRIVATE KEY FILE!".to_owned())),
            (junk, Kind::UnusableKey("Load key \"/keys/junk\": error in libcrypto".to_owned())),
            (negotiate, Kind::Setup(negotiate.to_owned())),
            (config, Kind::Setup(option.to_owned())),
            (booting, Kind::Booting),
            ("kex_exchange_identification: read: Connection reset by peer", Kind::Lost),
            ("Connection to 10.0.0.1 closed by remote host.", Kind::Lost),
            ("", Kind::Lost),
        ] {
            let first_seen =
                format!("Warning: Permanently added '10.0.0.1' (ED25519) to the list of known hosts.\n{said}");
            assert_eq!(classify("exit code 255", said, true), kind, "{said}");
            assert_eq!(classify("exit code 255", &first_seen, false), kind, "{said}");
        }
    }

    #[test]
    fn the_words_of_sudo_are_understood() {
        let unresolved = "sudo: unable to resolve host vm: Temporary failure in name resolution";
        let refused = "sudo: a password is required";
        let both = format!("{unresolved}\n{refused}");
        assert_eq!(classify("exit code 1", &both, true), SshErrorKind::Sudo(refused.to_owned()));
        let missing = "bash: line 1: sudo: command not found";
        assert_eq!(classify("exit code 127", missing, true), SshErrorKind::Sudo(missing.to_owned()));
        let ended = SshErrorKind::Script("it ended with exit code 1".to_owned());
        assert_eq!(classify("exit code 1", unresolved, true), ended);
        assert_eq!(classify("exit code 1", refused, false), ended);
    }
}
