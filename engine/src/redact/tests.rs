//! Redaction, against encoders that know nothing of it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::*;

const KEY: &str = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcw\nggSj\n-----END KEY-----\n";

fn redactor(secrets: &[(&str, &str)]) -> Redactor {
    let redactor = Redactor::new();
    for (name, secret) in secrets {
        redactor.add(name, &Secret::new(*secret)).unwrap();
    }
    redactor
}

/// What comes out for the pieces, each with what it lets through, and what the end lets through.
fn pieces(redactor: &Redactor, pieces: &[&[u8]]) -> Vec<String> {
    let mut stream = redactor.stream();
    let mut outs: Vec<Vec<u8>> = Vec::new();
    for piece in pieces {
        outs.push(Vec::new());
        stream.push(piece, outs.last_mut().unwrap());
    }
    outs.push(Vec::new());
    stream.finish(outs.last_mut().unwrap());
    outs.into_iter().map(|out| String::from_utf8(out).unwrap()).collect()
}

#[test]
fn names_the_secret() {
    let redactor = redactor(&[("db", "hunter22"), ("api/key", "s3cr3t/w+rd")]);
    assert_eq!(redactor.redact_str("x hunter22,s3cr3t/w+rd\n"), "x [redacted:db],[redacted:api/key]\n");
    assert_eq!(redactor.redact_str("hunter22hunter22"), "[redacted:db][redacted:db]");
    assert_eq!(redactor.redact_str("postgres://u:s3cr3t%2fw%2Brd@h"), "postgres://u:[redacted:api/key]@h");
    assert_eq!(redactor.redact_str("hhunter2hunter2"), "hhunter2hunter2");
    assert!(matches!(redactor.redact_str("nothing here"), Cow::Borrowed(_)));
}

#[test]
fn holds_back_no_more_than_may_become_a_secret() {
    let redactor = redactor(&[("db", "hunter22")]);
    assert_eq!(
        pieces(&redactor, &[b"a hun", b"dred\nh", b"unter", b"22 ", b"!"]),
        ["a ", "hundred\n", "", "[redacted:db] ", "!", ""]
    );
    assert_eq!(pieces(&redactor, &[b"the end: hunter2"]), ["the end: ", "hunter2"]);
}

#[test]
fn secrets_within_and_across_secrets_leave_nothing() {
    let redactor = redactor(&[("short", "abcdef"), ("long", "xxabcdefyy"), ("next", "efyyzz12")]);
    assert_eq!(redactor.redact_str("-xxabcdefyy-"), "-[redacted:long]-");
    assert_eq!(redactor.redact_str("-xxabcdefyyzz12-"), "-[redacted:long]-");
    assert_eq!(redactor.redact_str("-xxabcdefy-"), "-xx[redacted:short]y-");
}

#[test]
fn line_ends_do_not_hide_a_secret() {
    let redactor = redactor(&[("db", "hunter22")]);
    assert_eq!(redactor.redact_str("a hunt\ner22\n"), "a [redacted:db]\n");
    assert_eq!(redactor.redact_str("h\r\nu\nnter2\r2"), "[redacted:db]");
    assert_eq!(redactor.redact_str("hunt\n\ner22"), "hunt\n\ner22", "two line ends are no wrapping");
}

#[test]
fn a_key_of_several_lines_is_caught_whole_and_line_by_line() {
    let redactor = redactor(&[("key", KEY)]);
    assert_eq!(redactor.redact_str(&format!("<{KEY}>")), "<[redacted:key]\n>");
    assert_eq!(redactor.redact_str(&KEY.replace('\n', "\r\n")), "[redacted:key]\r\n");
    assert_eq!(redactor.redact_str(&json!([KEY]).to_string()), "[\"[redacted:key]\\n\"]");
    assert_eq!(redactor.redact_str("1: MIIEvQIBADANBgkqhkiG9w0B!\n"), "1: [redacted:key]!\n");
    assert_eq!(redactor.redact_str("AQEFAASCBKcw ggSj"), "[redacted:key] ggSj", "too short to stand for the key");
}

#[test]
fn short_secrets_are_refused() {
    let redactor = Redactor::new();
    let error = redactor.add("pin", &Secret::new("12345\n")).unwrap_err();
    assert_eq!(error.to_string(), "keep the secret `pin` out of the output: it has fewer than 6 bytes");
    assert_eq!(redactor.redact_str("12345"), "12345");
    assert!(!format!("{redactor:?}").contains("pin"));
}

#[test]
fn open_streams_see_later_secrets() {
    let redactor = redactor(&[("a", "hunter22")]);
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    stream.push(b"1 hunte", &mut out);
    redactor.clone().add("b", &Secret::new("unterwegs")).unwrap();
    stream.push(b"rwegs 2 unter", &mut out);
    stream.push(b"wegs hunter22", &mut out);
    stream.finish(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "1 h[redacted:b] 2 [redacted:b] [redacted:a]");
}

#[test]
fn json_is_redacted_in_strings_keys_and_numbers() {
    let redactor = redactor(&[("db", "hunter22"), ("pin", "12345678")]);
    let mut value = json!({"hunter22": [1, "a hunter22", {"x": 1234567890}], "[redacted:db]": null, "n": 1.5});
    redactor.redact_json(&mut value);
    let expected = json!({
        "[redacted:db]": null, "[redacted:db]'": [1, "a [redacted:db]", {"x": "[redacted:pin]90"}], "n": 1.5
    });
    assert_eq!(value, expected);
}

#[test]
fn many_spellings_of_one_text_take_no_more_than_linear_time() {
    for secret in ["\\".repeat(200), "a".repeat(400), "%25".repeat(100), "\n\\n".repeat(60) + "x"] {
        let redactor = redactor(&[("x", &secret)]);
        let text = secret.repeat(20);
        let begin = std::time::Instant::now();
        assert!(redactor.redact_str(&text).len() < text.len());
        assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    }
}

/// Splits `bytes` at the places, pushes the parts and returns the output.
fn split(redactor: &Redactor, bytes: &[u8], places: &[Index]) -> Vec<u8> {
    let mut places: Vec<_> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    let (mut stream, mut out) = (redactor.stream(), Vec::new());
    places.windows(2).for_each(|part| stream.push(&bytes[part[0]..part[1]], &mut out));
    stream.finish(&mut out);
    out
}

fn places() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 0..6)
}

/// Letters, digits, what has to be escaped, what is more than a byte; not `|` or `~`, which mark the surroundings.
fn secret() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 /+=%&?\"'\\\\$<>_.:\tß€🔑-]{6,40}".prop_filter("long enough", |secret| secret.trim() == secret)
}

/// Breaks lines after `width` characters.
fn wrapped(text: &str, width: usize, line_end: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(width).map(String::from_iter).collect::<Vec<_>>().join(line_end)
}

/// The secret in a form that an encoder gives it.
fn form(secret: &str, which: usize) -> String {
    let hex = || secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let json = || serde_json::to_string(secret).unwrap()[1..].strip_suffix('"').unwrap().to_owned();
    let utf16 = || secret.encode_utf16().map(|half| format!("\\u{half:04x}")).collect::<String>();
    match which {
        0 => secret.to_owned(),
        1 => utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
        2 => utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string().to_lowercase().replace("%20", "+"),
        3 => json(),
        4 => utf16(),
        5 => secret.replace('\'', r"'\''"),
        6 => hex(),
        7 => hex().to_uppercase(),
        8 => STANDARD.encode(secret),
        9 => STANDARD_NO_PAD.encode(secret),
        10 => URL_SAFE.encode(secret),
        11 => URL_SAFE_NO_PAD.encode(secret),
        12 => utf8_percent_encode(&STANDARD.encode(secret), NON_ALPHANUMERIC).to_string(),
        13 => json().replace('/', "\\/"),
        _ => wrapped(&STANDARD.encode(secret), 76, "\n"),
    }
}

/// Lower case is another secret, where the form keeps letters.
fn is_folded(which: usize) -> bool {
    which == 2
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_form_of_a_secret_remains(secret in secret(), which in 0_usize..15, places in places()) {
        let secret = if is_folded(which) { secret.to_lowercase() } else { secret };
        let redactor = redactor(&[("s", &secret), ("other", "|0therSecret")]);
        let text = format!("|{}|", form(&secret, which));
        let out = split(&redactor, text.as_bytes(), &places);
        let out = String::from_utf8_lossy(&out);
        prop_assert_eq!(out, "|[redacted:s]|", "{}", text);
    }

    #[test]
    fn wrapping_hides_nothing(
        secret in secret(), which in 0_usize..15, width in 1_usize..80, crlf in any::<bool>(), places in places(),
    ) {
        let secret = if is_folded(which) { secret.to_lowercase() } else { secret };
        let text = wrapped(&form(&secret, which).replace('\n', ""), width, if crlf { "\r\n" } else { "\n" });
        let out = split(&redactor(&[("s", &secret)]), format!("|{text}|").as_bytes(), &places);
        prop_assert_eq!(String::from_utf8_lossy(&out), "|[redacted:s]|", "{}", text);
    }

    #[test]
    fn base64_of_something_longer_gives_little_away(
        secret in secret(), before in "~{0,9}", after in "~{0,9}", url in any::<bool>(), width in 4_usize..80, places in places(),
    ) {
        let all = format!("{before}{secret}{after}");
        let encoded = if url { URL_SAFE.encode(&all) } else { STANDARD.encode(&all) };
        let out = split(&redactor(&[("s", &secret)]), wrapped(&encoded, width, "\n").as_bytes(), &places);
        let out = String::from_utf8_lossy(&out).replace('\n', "");
        let (left, right) = out.split_once("[redacted:s]").expect("it is redacted");
        prop_assert!(left.len() <= (before.len() * 8).div_ceil(6), "{} in {}", out, encoded);
        prop_assert!(right.trim_end_matches('=').len() <= (after.len() * 8 + 4).div_ceil(6), "{} in {}", out, encoded);
    }

    #[test]
    fn what_is_no_secret_is_unchanged(
        secret in "[a-zA-Z0-9/+\"\\\\ß-]{6,20}",
        parts in proptest::collection::vec((0_usize..15, any::<Index>(), "[ \n\r%\\\\|]{0,3}"), 0..12),
        places in places(),
    ) {
        let mut text = String::new();
        for (which, end, separator) in &parts {
            // Too short a part of any form to be the whole.
            let form: Vec<char> = form(&secret.to_lowercase(), *which).chars().collect();
            text.extend(&form[..end.index(form.len().min(5))]);
            text.push_str(separator);
            text.push('|');
        }
        let out = split(&redactor(&[("s", &secret)]), text.as_bytes(), &places);
        prop_assert_eq!(String::from_utf8_lossy(&out), text);
    }

    #[test]
    fn bytes_that_are_no_text_are_unchanged(bytes in proptest::collection::vec(any::<u8>(), 0..2000), places in places()) {
        prop_assert_eq!(&split(&redactor(&[("s", "correct horse"), ("t", KEY)]), &bytes, &places), &bytes);
        prop_assert_eq!(&split(&Redactor::new(), &bytes, &places), &bytes);
    }
}
