//! The store against odd masks, foreign hands, damage and haste.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::redact::Redactor;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.json");
    (folder, path)
}

fn open(path: &Path) -> Result<SecretStore, SecretError> {
    SecretStore::open(path, Redactor::new())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn reference(name: &str, version: u32) -> SecretRef {
    SecretRef { name: name.to_owned(), version }
}

#[test]
fn a_secret_is_generated_once_and_kept() {
    let (folder, path) = folder();
    let store = open(&path).unwrap();
    assert!(!path.exists(), "opening writes nothing");
    let (first, value) = store.get_or_generate("minio/root", &Policy::default()).unwrap();
    assert_eq!((first.clone(), value.expose().len()), (reference("minio/root", 1), 32));
    assert_eq!(store.get_or_generate("minio/root", &Policy::default()).unwrap().1.expose(), value.expose());

    let again = open(&path).unwrap();
    assert_eq!(again.get(&first).unwrap().expose(), value.expose());
    assert_eq!(again.present("minio/root").unwrap().0, first);
    assert_eq!(again.names(), ["minio/root"]);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn every_value_is_known_to_the_redactor() {
    let (_folder, path) = folder();
    let redactor = Redactor::new();
    let store = SecretStore::open(&path, redactor.clone()).unwrap();
    let (_, old) = store.get_or_generate("a", &Policy::default()).unwrap();
    assert_eq!(redactor.redact_str(old.expose()), "[redacted:a]");
    let rotated = store.rotate("a").unwrap();
    let new = store.get(&rotated).unwrap();
    let later = Redactor::new();
    SecretStore::open(&path, later.clone()).unwrap();
    for redactor in [redactor, later] {
        let text = format!("{} {}", old.expose(), new.expose());
        assert_eq!(redactor.redact_str(&text), "[redacted:a] [redacted:a]");
    }
}

#[test]
fn a_version_belongs_to_one_value() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let (first, old) = store.get_or_generate("a", &Policy::default()).unwrap();
    let second = store.rotate("a").unwrap();
    assert_eq!(second, reference("a", 2));
    let store = open(&path).unwrap();
    assert_eq!(store.get(&first).unwrap().expose(), old.expose(), "the one before can still be had");
    assert_ne!(store.get(&second).unwrap().expose(), old.expose());
    store.rotate("a").unwrap();
    assert!(matches!(store.get(&first), Err(SecretError::NoSuchVersion { asked: 1, present: 3, .. })));

    assert!(store.remove("a").unwrap());
    assert!(!store.remove("a").unwrap());
    assert!(matches!(store.get(&first), Err(SecretError::Unknown(_))));
    assert!(matches!(store.rotate("a"), Err(SecretError::Unknown(_))));
    let store = open(&path).unwrap();
    assert_eq!((store.expected("a"), store.expected("b")), (4, 1), "that is what a plan counts on");
    assert_eq!(store.get_or_generate("a", &Policy::default()).unwrap().0, reference("a", 4), "no version comes again");
    assert_eq!(store.expected("a"), 4);
}

#[test]
fn a_given_secret_rises_when_it_changes() {
    let (folder, path) = folder();
    let store = open(&path).unwrap();
    let file = folder.path().join("password");
    let source = SecretSource::File(file.clone());
    fs::write(&file, "correct horse\n").unwrap();
    assert_eq!(store.preview("db", &source).unwrap(), reference("db", 1));
    assert!(!path.exists(), "a preview writes nothing");
    let (first, value) = store.resolve("db", &source).unwrap();
    assert_eq!((first, value.expose()), (reference("db", 1), "correct horse"));
    assert_eq!(store.resolve("db", &source).unwrap().0, reference("db", 1));
    fs::write(&file, "battery staple").unwrap();
    assert_eq!(store.preview("db", &source).unwrap(), reference("db", 2));
    assert_eq!(store.resolve("db", &source).unwrap().0, reference("db", 2));
    assert!(store.rotate("db").unwrap_err().hint().unwrap().contains("comes from"));
    fs::write(&file, "12345").unwrap();
    let error = store.resolve("db", &source).unwrap_err();
    assert!(matches!(error, SecretError::TooShort(_)) && error.hint().unwrap().contains("6 characters"));
    assert_eq!(store.present("db").unwrap().0, reference("db", 2), "a refused value changes nothing");
}

#[test]
fn names_are_fit_for_logs_and_commands() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    for name in ["", "a b", "a]", "ä", "a\n", &"x".repeat(129)] {
        let outcome = store.set(name, Secret::new("correct horse"));
        assert!(matches!(outcome, Err(SecretError::Name(_))), "{name:?}");
    }
    store.set("CLOUD-3.2/db_password", Secret::new("correct horse")).unwrap();
}

#[test]
fn a_file_that_others_may_use_is_refused() {
    let (folder, path) = folder();
    open(&path).unwrap().set("a", Secret::new("correct horse")).unwrap();
    for bits in [0o640, 0o604, 0o620, 0o601, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, SecretError::TooOpen { mode, .. } if mode == bits), "{error:?}");
        assert!(error.hint().unwrap().starts_with("chmod 600 "));
        assert_eq!(mode(&path), bits, "it is left as it is");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    open(&path).unwrap();

    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(open(&link), Err(SecretError::NotAFile(_))));
    assert!(matches!(open(folder.path()), Err(SecretError::NotAFile(_))));
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    assert!(matches!(open(&pipe), Err(SecretError::NotAFile(_))), "and does not hang");
}

#[test]
fn a_damaged_file_is_reported_without_its_values_and_left_alone() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    store.set("a", Secret::new("correct horse")).unwrap();
    let sound = fs::read_to_string(&path).unwrap();
    let damages = [
        String::new(),
        sound[..sound.len() / 2].to_owned(),
        sound.replace("\"version\": 1", "\"version\": \"correct horse\""),
        sound.replace("\"created\"", "\"correct horse\""),
        sound.replace("correct", "\\ud800 correct"),
        sound.replace("}", ""),
    ];
    for damaged in damages {
        fs::write(&path, &damaged).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, SecretError::Damaged { .. }), "{error:?} in {damaged}");
        assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("horse"), "{error:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
    fs::write(&path, sound.replace("\"format\": 1", "\"format\": 2, \"more\": []")).unwrap();
    assert!(matches!(open(&path), Err(SecretError::Newer { format: 2, .. })));
}

#[test]
fn a_generation_rule_that_makes_no_secret_is_damage() {
    let (_folder, path) = folder();
    open(&path).unwrap().get_or_generate("a", &Policy::letters_and_digits(20).unwrap()).unwrap();
    let sound = fs::read_to_string(&path).unwrap();
    fs::write(&path, sound.replace("\"length\": 20", "\"length\": 0")).unwrap();
    assert!(matches!(open(&path), Err(SecretError::Damaged { .. })));
}

#[test]
fn what_cannot_be_written_is_not_remembered() {
    let (folder, path) = folder();
    let store = open(&path).unwrap();
    store.set("a", Secret::new("correct horse")).unwrap();
    // A folder in the place of the temporary file stops root as well.
    fs::create_dir(folder.path().join("secrets.json.new")).unwrap();
    let error = store.set("a", Secret::new("battery staple")).unwrap_err();
    assert!(matches!(error, SecretError::File { action: "write", .. }), "{error:?}");
    assert!(store.remove("a").is_err());
    assert_eq!(store.present("a").unwrap().1.expose(), "correct horse");
    fs::remove_dir(folder.path().join("secrets.json.new")).unwrap();
    fs::write(folder.path().join("secrets.json.new"), "left by a crash").unwrap();
    assert_eq!(store.set("a", Secret::new("battery staple")).unwrap(), reference("a", 2));
    assert_eq!(open(&path).unwrap().present("a").unwrap().1.expose(), "battery staple");
}

#[test]
fn threads_agree_on_one_value() {
    let (_folder, path) = folder();
    let store = open(&path).unwrap();
    let values: HashSet<String> = std::thread::scope(|scope| {
        let make = || store.get_or_generate("a", &Policy::default()).unwrap().1.expose().to_owned();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(values.len(), 1);
    assert_eq!(open(&path).unwrap().names(), ["a"]);
}

/// The mask belongs to the process, so it is another process that has an odd one: this test itself, run again.
#[test]
fn the_mode_does_not_depend_on_the_mask() {
    const FOLDER: &str = "TASKRUN_TEST_MASKED_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let path = Path::new(&folder).join("secrets.json");
        open(&path).unwrap().set("a", Secret::new("correct horse")).unwrap();
        assert_eq!(mode(&path), 0o600);
        return;
    }
    let test = std::env::current_exe().unwrap();
    for mask in ["000", "777", "027"] {
        let folder = tempfile::tempdir().unwrap();
        let run = format!("umask {mask}; exec \"$0\" --exact secret::tests::the_mode_does_not_depend_on_the_mask");
        let output = Command::new("sh").args(["-c", &run]).arg(&test).env(FOLDER, folder.path()).output().unwrap();
        assert!(output.status.success(), "{mask}: {}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(mode(&folder.path().join("secrets.json")), 0o600, "{mask}");
    }
}
