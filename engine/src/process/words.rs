//! Scripts that need no shell.

/// The words of `script` if a shell would do nothing with it but split it at its blanks and start the program that the
/// first word names. GNU make takes the same short cut.
pub(super) fn plain_words(script: &str) -> Option<Vec<&str>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == ' ' || "%+,-./:=@_".contains(c);
    if !script.chars().all(is_plain) {
        return None;
    }
    let words: Vec<&str> = script.split(' ').filter(|word| !word.is_empty()).collect();
    let program = *words.first()?;
    (!program.contains('=') && !OF_THE_SHELL.contains(&program)).then_some(words)
}

/// What some `sh` of Debian's (dash, bash, busybox, mksh) does itself or gives a meaning of its own, sorted.
const OF_THE_SHELL: &[&str] = &[
    ".",
    ":",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cat",
    "cd",
    "chdir",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "false",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "global",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "newgrp",
    "nohup",
    "popd",
    "print",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "realpath",
    "rename",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "sleep",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "true",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "whence",
    "while",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_that_are_no_business_of_the_shell_go_without_it() {
        assert_eq!(plain_words("touch  out/5 --a=b").unwrap(), ["touch", "out/5", "--a=b"]);
        assert_eq!(plain_words("./build.sh").unwrap(), ["./build.sh"]);
        let need_a_shell = [
            "", " ", "A=1 make", "cd /", "echo a", "a b > c", "a; b", "a\nb", "ls *.c", "a $B", "'a b'", "a ~/b",
            "a \\ b", "! a", "a & b", "a|b", "a {1,2}", "a [b]", "# a", "a\tb", "é", "(a)", "`a`",
        ];
        for script in need_a_shell {
            assert_eq!(plain_words(script), None, "{script}");
        }
    }
}
