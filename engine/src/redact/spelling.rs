//! In which ways a secret may be written.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::MIN_LINE_LEN;

/// One way to write a secret: a sequence of units, each of them in one of its spellings.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) units: Vec<Unit>,
    /// How many units make the secret; those after it belong to it if they are there.
    pub(super) needed: usize,
}

/// The spellings of one character.
pub(super) type Unit = Vec<Spelling>;

/// The bytes of one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spelling {
    pub(super) text: Vec<u8>,
    /// Whether the letters in it may be upper or lower case.
    pub(super) any_case: bool,
}

/// Every way to write `secret`.
pub(super) fn patterns(secret: &str) -> Vec<Pattern> {
    let mut patterns = vec![text(secret), hexadecimal(secret)];
    patterns.extend((0..3).map(|shift| base64(secret, shift)));
    let lines: Vec<_> = secret.lines().collect();
    if lines.len() > 1 {
        patterns.extend(lines.into_iter().map(str::trim).filter(|line| line.len() >= MIN_LINE_LEN).map(text));
    }
    patterns
}

fn text(text: &str) -> Pattern {
    let units: Vec<_> = text.chars().map(character).collect();
    Pattern { needed: units.len(), units }
}

/// A character as it is, percent-encoded, as a JSON or a shell escape.
fn character(c: char) -> Unit {
    let mut utf8 = [0; 4];
    let utf8 = c.encode_utf8(&mut utf8).as_bytes();
    let mut unit = vec![
        exactly(utf8),
        any_case(utf8.iter().map(|byte| format!("%{byte:02X}"))),
        any_case(c.encode_utf16(&mut [0; 2]).iter().map(|half| format!("\\u{half:04X}"))),
    ];
    if c.is_ascii_punctuation() || c == ' ' {
        unit.push(exactly(format!("\\{c}")));
    }
    let others: &[&str] = match c {
        ' ' => &["+"],
        '\n' => &["\\n", "\r\n", "\\r\\n", "%0D%0A"],
        '\r' => &["\\r"],
        '\t' => &["\\t"],
        '\u{8}' => &["\\b"],
        '\u{c}' => &["\\f"],
        '\'' => &[r"'\''", r#"'"'"'"#],
        // JSON within JSON.
        '"' => &[r#"\\\""#],
        '\\' => &[r"\\\\"],
        _ => &[],
    };
    unit.extend(others.iter().map(exactly));
    unit
}

fn hexadecimal(secret: &str) -> Pattern {
    let digits = secret.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes());
    let units: Vec<_> = digits.map(|digit| vec![Spelling { text: vec![digit], any_case: true }]).collect();
    Pattern { needed: units.len(), units }
}

/// The secret in base64 when a multiple of three bytes and `shift` more stand before it. Only those characters are
/// needed that depend on nothing but the secret. If it is the end of what is encoded, one more and the padding follow.
fn base64(secret: &str, shift: usize) -> Pattern {
    let mut bytes = vec![0; shift];
    bytes.extend_from_slice(secret.as_bytes());
    let encoded = STANDARD.encode(&bytes);
    let from = (shift * 8).div_ceil(6);
    let needed = bytes.len() * 8 / 6 - from;
    let units = encoded[from..].chars().map(|c| match c {
        '+' => [character('+'), vec![exactly("-")]].concat(),
        '/' => [character('/'), vec![exactly("_")]].concat(),
        '=' => character('='),
        _ => vec![exactly([c as u8])],
    });
    Pattern { units: units.collect(), needed }
}

fn exactly(text: impl AsRef<[u8]>) -> Spelling {
    Spelling { text: text.as_ref().to_vec(), any_case: false }
}

fn any_case(parts: impl Iterator<Item = String>) -> Spelling {
    Spelling { text: parts.collect::<String>().into_bytes(), any_case: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(c: char) -> Vec<String> {
        character(c).into_iter().map(|spelling| String::from_utf8(spelling.text).unwrap()).collect()
    }

    #[test]
    fn characters_have_their_escapes() {
        assert_eq!(spelled('a'), ["a", "%61", "\\u0061"]);
        assert_eq!(spelled('/'), ["/", "%2F", "\\u002F", "\\/"]);
        assert_eq!(spelled('é'), ["é", "%C3%A9", "\\u00E9"]);
        assert_eq!(spelled('🔑'), ["🔑", "%F0%9F%94%91", "\\uD83D\\uDD11"]);
        assert_eq!(spelled('"'), ["\"", "%22", "\\u0022", "\\\"", "\\\\\\\""]);
    }

    #[test]
    fn base64_needs_what_the_neighbours_do_not_touch() {
        let needed = |shift| {
            let Pattern { units, needed } = base64("secret", shift);
            let text: Vec<_> = units.iter().map(|unit| unit[0].text[0] as char).collect();
            (text[..needed].iter().collect::<String>(), text[needed..].iter().collect::<String>())
        };
        // "secret", "?secret" and "??secret" encode to c2VjcmV0, P3NlY3JldA== and Pz9zZWNyZXQ=.
        assert_eq!(needed(0), ("c2VjcmV0".to_owned(), String::new()));
        assert_eq!(needed(1), ("NlY3Jld".to_owned(), "A==".to_owned()));
        assert_eq!(needed(2), ("zZWNyZX".to_owned(), "Q=".to_owned()));
    }

    #[test]
    fn lines_stand_for_themselves_if_they_are_long_enough() {
        assert_eq!(patterns("one line only").len(), 5);
        assert_eq!(patterns("0123456789ab\nshort\r\n0123456789abcdef").len(), 7);
    }
}
