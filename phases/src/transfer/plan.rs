//! What a sync has to do: the files here, what is known of them, and the objects there, compared. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::manifest::{Entries, Entry};
use super::scan::LocalFile;

/// An object as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
}

/// What is to be done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the file and its object are as they were when it was sent.
    Keep(Entry),
    /// Its time has changed, its size has not: it is sent if its SHA-256 is another one.
    Compare(Entry),
    /// It is sent.
    Send(Reason),
}

/// Why a file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was never sent.
    New,
    /// It has changed here.
    Changed,
    /// Its object is gone.
    Missing,
    /// Its object is not the one that was sent: half, overwritten or damaged.
    Damaged,
    /// There is an object of which nothing is known.
    Unknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Changed => "changed here",
            Self::Missing => "missing in the store",
            Self::Damaged => "not as it was sent",
            Self::Unknown => "unknown object in the store",
        })
    }
}

/// What a sync has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The files, in the order of their paths.
    pub files: Vec<(LocalFile, Action)>,
    /// The paths of objects that have no file here.
    pub extra: Vec<String>,
    /// Those of them that stand in the way: a file is now where a folder was, or the other way round.
    pub in_the_way: Vec<String>,
}

impl Plan {
    /// Compares.
    ///
    /// `claims` say what was sent, the most trustworthy first; a claim counts only if the object that is there has its
    /// size and its entity tag. `objects` are by path.
    pub fn new(files: Vec<LocalFile>, claims: &[&Entries], objects: &BTreeMap<String, Object>) -> Self {
        let here: BTreeSet<&str> = files.iter().map(|file| &*file.path).collect();
        let extra: Vec<String> = objects.keys().filter(|path| !here.contains(&***path)).cloned().collect();
        let folders: BTreeSet<&str> = here.iter().flat_map(|path| ancestors(path)).collect();
        let blocks = |path: &str| folders.contains(path) || ancestors(path).any(|ancestor| here.contains(ancestor));
        let in_the_way = extra.iter().filter(|path| blocks(path)).cloned().collect();
        let files = files.into_iter().map(|file| {
            let claims = claims.iter().filter_map(|claims| claims.get(&file.path));
            let action = decide(&file, claims, objects.get(&file.path));
            (file, action)
        });
        Self { files: files.collect(), extra, in_the_way }
    }

    /// Whether every object is as it should be.
    pub fn is_settled(&self) -> bool {
        self.files.iter().all(|(_, action)| matches!(action, Action::Keep(_)))
    }
}

/// The folders that a path lies in.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn decide<'a>(file: &LocalFile, claims: impl Iterator<Item = &'a Entry>, object: Option<&Object>) -> Action {
    let claims: Vec<&Entry> = claims.collect();
    let Some(object) = object else {
        return Action::Send(if claims.is_empty() { Reason::New } else { Reason::Missing });
    };
    let confirmed = claims.iter().find(|claim| claim.size == object.size && claim.etag == object.etag);
    match confirmed {
        None if claims.is_empty() => Action::Send(Reason::Unknown),
        None => Action::Send(Reason::Damaged),
        Some(entry) if entry.size != file.size => Action::Send(Reason::Changed),
        Some(entry) if entry.mtime == file.mtime => Action::Keep((*entry).clone()),
        Some(entry) => Action::Compare((*entry).clone()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn file(path: &str, size: u64, second: i64) -> LocalFile {
        LocalFile { path: path.to_owned(), location: path.into(), size, mtime: at(second) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn entry(size: u64, second: i64, etag: &str) -> Entry {
        Entry { size, mtime: at(second), sha256: format!("sha-{etag}"), etag: etag.to_owned() }
    }

    fn object(size: u64, etag: &str) -> Object {
        Object { size, etag: etag.to_owned() }
    }

    fn action(file: LocalFile, claims: &[&Entry], found: Option<Object>) -> Action {
        let claims: Vec<Entries> =
            claims.iter().map(|entry| Entries::from([(file.path.clone(), (*entry).clone())])).collect();
        let objects = found.map(|object| (file.path.clone(), object)).into_iter().collect();
        let plan = Plan::new(vec![file], &claims.iter().collect::<Vec<_>>(), &objects);
        plan.files.into_iter().next().unwrap().1
    }

    #[test]
    fn every_case_has_its_action() {
        let (sent, local) = (entry(5, 1, "a"), || file("f", 5, 1));
        let cases = [
            ("as it was sent", local(), &[&sent][..], Some(object(5, "a")), Action::Keep(sent.clone())),
            ("touched", file("f", 5, 2), &[&sent], Some(object(5, "a")), Action::Compare(sent.clone())),
            ("grown", file("f", 6, 2), &[&sent], Some(object(5, "a")), Action::Send(Reason::Changed)),
            ("grown, same time", file("f", 6, 1), &[&sent], Some(object(5, "a")), Action::Send(Reason::Changed)),
            ("overwritten there", local(), &[&sent], Some(object(5, "b")), Action::Send(Reason::Damaged)),
            ("half there", local(), &[&sent], Some(object(2, "a")), Action::Send(Reason::Damaged)),
            ("gone there", local(), &[&sent], None, Action::Send(Reason::Missing)),
            ("never sent", local(), &[], None, Action::Send(Reason::New)),
            ("foreign", local(), &[], Some(object(5, "a")), Action::Send(Reason::Unknown)),
        ];
        for (what, file, claims, found, expected) in cases {
            assert_eq!(action(file, claims, found), expected, "{what}");
        }
    }

    #[test]
    fn a_claim_counts_only_if_the_store_confirms_it() {
        let (stale, fresh) = (entry(5, 1, "old"), entry(5, 2, "new"));
        let found = action(file("f", 5, 2), &[&stale, &fresh], Some(object(5, "new")));
        assert_eq!(found, Action::Keep(fresh));
    }

    #[test]
    fn objects_without_a_file_are_extra_and_may_stand_in_the_way() {
        let objects = ["config", "old.bin", "vocab/a", "w/x"].map(|path| (path.to_owned(), object(1, "a"))).into();
        let files = vec![file("config/a.json", 1, 1), file("vocab", 1, 1), file("w/y", 1, 1)];
        let plan = Plan::new(files, &[], &objects);
        assert_eq!(plan.extra, ["config", "old.bin", "vocab/a", "w/x"]);
        assert_eq!(plan.in_the_way, ["config", "vocab/a"]);
        assert!(!plan.is_settled());
    }
}
