//! Model transfer against a MinIO of the test's own: what should not happen to a sync, and does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use taskrun_phases::tools::s3::S3;
use taskrun_phases::transfer::plan::Reason;
use taskrun_phases::transfer::{
    Manifest, Progress, Request, Stop, Store, Summary, TransferError, inspect, remove, sync,
};

use crate::minio::{KEY, Minio, REGION, spawn};

const BUCKET: &str = "models";
const MODEL: &str = "tiny";
const MIB: usize = 1 << 20;

/// Counts, and does something when so many bytes were sent.
#[derive(Default)]
struct Watch {
    bytes: AtomicU64,
    notes: Mutex<Vec<String>>,
    at: Option<(u64, Box<dyn Fn() + Send + Sync>)>,
    done: AtomicBool,
}

impl Progress for Watch {
    fn begin(&self, _what: &'static str, _files: usize, _bytes: u64) {}

    fn sent(&self, bytes: u64) {
        let sent = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if let Some((at, act)) = &self.at
            && sent >= *at
            && !self.done.swap(true, Ordering::SeqCst)
        {
            act();
        }
    }

    fn file(&self) {}

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
}

/// A server, a source and a state folder.
struct Place {
    minio: Minio,
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("taskrun-transfer").tempdir_in("/var/tmp").unwrap();
        Self::on(folder.path().join("data"), folder).await
    }

    async fn on(data: PathBuf, folder: tempfile::TempDir) -> Self {
        let minio = Minio::start(data);
        let s3 = S3::new(&minio.endpoint, REGION, KEY.0, KEY.1).unwrap();
        // It says that it is ready a moment before it is.
        for _ in 0..50 {
            match s3.create_bucket(BUCKET).await {
                Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(100)).await,
                other => {
                    other.unwrap();
                    break;
                }
            }
        }
        fs::create_dir(folder.path().join("source")).unwrap();
        Self { minio, folder, store: Store { s3, bucket: BUCKET.to_owned() } }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join("source").join(path)
    }

    /// Writes a file of the source.
    fn write(&self, path: &str, seed: u64, size: usize) {
        fs::create_dir_all(self.file(path).parent().unwrap()).unwrap();
        fs::write(self.file(path), bytes(seed, size)).unwrap();
    }

    fn request(&self) -> Request {
        Request {
            source: self.folder.path().join("source"),
            model: MODEL.to_owned(),
            state_dir: self.folder.path().join("state"),
            bandwidth: None,
            delete: false,
            verify: false,
            follow_links: false,
            dry_run: false,
        }
    }

    async fn sync(&self) -> Result<Summary, TransferError> {
        self.sync_as(&self.request()).await
    }

    async fn sync_as(&self, request: &Request) -> Result<Summary, TransferError> {
        sync(request, &self.store, Arc::new(Watch::default()), never()).await
    }

    /// Every object that the store has, read back.
    async fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let mut objects = BTreeMap::new();
        for key in self.store.s3.list_all(BUCKET, "").await.unwrap().into_keys() {
            let body = self.store.s3.get(BUCKET, &key).await.unwrap();
            objects.insert(key, body);
        }
        objects
    }

    /// The store has just what the source has, and a manifest that says so.
    async fn assert_whole(&self) {
        let found = inspect(&self.store, MODEL).await.unwrap().unwrap();
        assert_eq!(found.broken, Vec::<String>::new());
        for (path, entry) in &found.manifest.files {
            let here = fs::read(self.file(path)).unwrap();
            let there = self.store.s3.get(BUCKET, &format!("{MODEL}/{path}")).await.unwrap();
            assert!(here == there, "{path} is another one in the store");
            assert_eq!(entry.sha256, hex(&Sha256::digest(&here)), "{path}");
        }
        assert_eq!(unfinished(&self.minio.data), 0, "no upload in parts is left");
    }
}

fn never() -> Stop {
    Arc::new(|| false)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that differ by seed.
fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out
}

/// The uploads in parts that MinIO keeps for later.
pub(crate) fn unfinished(data: &Path) -> usize {
    let folder = data.join(".minio.sys/multipart");
    let uploads = |object: fs::DirEntry| fs::read_dir(object.path()).map_or(0, Iterator::count);
    fs::read_dir(folder).map_or(0, |objects| objects.flatten().map(uploads).sum())
}

fn reasons(summary: &Summary) -> Vec<(&str, Reason)> {
    summary.sent.iter().map(|(path, reason)| (&**path, *reason)).collect()
}

#[tokio::test]
#[ignore = "starts a MinIO server: make e2e"]
async fn a_second_sync_sends_nothing_and_changes_are_sent_alone() {
    let place = Place::new().await;
    place.write("config.json", 1, 100);
    place.write("empty", 1, 0);
    place.write("layers/weights.bin", 2, 40 * MIB + 17);
    place.write("odd names/ä +%&?#'\"\\<>~[]*:;.txt", 3, 10);
    let first = place.sync().await.unwrap();
    assert_eq!((first.files, first.sent.len(), first.sent_bytes), (4, 4, first.bytes));
    place.assert_whole().await;
    let second = place.sync().await.unwrap();
    assert_eq!((reasons(&second), second.sent_bytes, &second.digest), (vec![], 0, &first.digest));
    assert!(second.took < Duration::from_secs(2), "{:?}", second.took);

    // Touched, a file is read and not sent; changed, it is sent alone.
    let file = fs::File::options().append(true).open(place.file("layers/weights.bin")).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    place.write("config.json", 4, 100);
    let third = place.sync().await.unwrap();
    assert_eq!(reasons(&third), [("config.json", Reason::Changed)]);
    assert_ne!(third.digest, first.digest);
    place.assert_whole().await;

    // Another machine has no memory of it, and takes the manifest's word.
    fs::remove_dir_all(place.folder.path().join("state")).unwrap();
    assert_eq!(reasons(&place.sync().await.unwrap()), []);
    remove(&place.store, MODEL, &place.request().state_dir).await.unwrap();
    assert!(place.objects().await.is_empty());
    assert_eq!(fs::read_dir(place.request().state_dir).unwrap().count(), 0);
}

#[tokio::test]
#[ignore = "starts a MinIO server: make e2e"]
async fn damage_in_the_store_is_found_and_mended() {
    let place = Place::new().await;
    for (at, path) in ["over", "half", "gone", "rotten", "fine"].into_iter().enumerate() {
        place.write(path, at as u64, 300_000);
    }
    place.write("large", 9, 33 * MIB);
    let before = place.sync().await.unwrap();
    let put = |path: &'static str, body: Vec<u8>| {
        let store = &place.store;
        async move { store.s3.put(BUCKET, &format!("{MODEL}/{path}"), body).await.unwrap() }
    };
    put("over", bytes(77, 300_000)).await;
    put("half", bytes(1, 150_000)).await;
    put("large", bytes(9, 33 * MIB)[..16 * MIB].to_vec()).await;
    place.store.s3.delete(BUCKET, &format!("{MODEL}/gone")).await.unwrap();
    let mended = place.sync().await.unwrap();
    let expected =
        [("gone", Reason::Missing), ("half", Reason::Damaged), ("large", Reason::Damaged), ("over", Reason::Damaged)];
    assert_eq!(reasons(&mended), expected);
    assert_eq!(mended.digest, before.digest);
    place.assert_whole().await;

    // Rot below the store, which its listing does not show, is found by reading.
    let part = find_part(&place.minio.data.join(BUCKET).join(MODEL).join("rotten"));
    let mut file = fs::File::options().write(true).open(part).unwrap();
    file.seek(std::io::SeekFrom::Start(5_000)).unwrap();
    file.write_all(&[0xa5; 64]).unwrap();
    drop(file);
    assert_eq!(reasons(&place.sync().await.unwrap()), []);
    let verified = place.sync_as(&Request { verify: true, ..place.request() }).await.unwrap();
    assert_eq!(reasons(&verified), [("rotten", Reason::Damaged)]);
    place.assert_whole().await;

    // A manifest that was tampered with is written anew.
    let key = Manifest::key(MODEL);
    let text = String::from_utf8(place.store.s3.get(BUCKET, &key).await.unwrap()).unwrap();
    let tampered = text.replacen("\"sha256\": \"", "\"sha256\": \"0", 1);
    place.store.s3.put(BUCKET, &key, tampered.into_bytes()).await.unwrap();
    assert_eq!(reasons(&place.sync().await.unwrap()), []);
    place.assert_whole().await;
}

/// Where MinIO keeps the bytes of an object.
fn find_part(object: &Path) -> PathBuf {
    let versions = fs::read_dir(object).unwrap().flatten().map(|entry| entry.path().join("part.1"));
    versions.into_iter().find(|path| path.exists()).unwrap()
}

#[tokio::test]
#[ignore = "starts a MinIO server: make e2e"]
async fn deletions_are_propagated_only_if_asked() {
    let place = Place::new().await;
    place.write("stays", 1, 10);
    place.write("goes", 2, 10);
    place.write("turns", 3, 10);
    place.sync().await.unwrap();
    fs::remove_file(place.file("goes")).unwrap();
    let left = place.sync().await.unwrap();
    assert_eq!((left.files, left.extra, left.deleted), (2, vec!["goes".to_owned()], vec![]));
    assert_eq!(place.objects().await.len(), 4, "three objects and the manifest");

    // A folder where a file was cannot be sent while the file's object is there.
    fs::remove_file(place.file("turns")).unwrap();
    place.write("turns/into", 4, 10);
    assert!(matches!(place.sync().await, Err(TransferError::InTheWay { path }) if path == "turns"));
    let asked = Request { delete: true, ..place.request() };
    let told = place.sync_as(&Request { dry_run: true, ..asked.clone() }).await.unwrap();
    assert_eq!((reasons(&told), told.deleted.len()), (vec![("turns/into", Reason::New)], 2));
    assert_eq!(place.objects().await.len(), 4, "nothing was done");
    let done = place.sync_as(&asked).await.unwrap();
    assert_eq!(done.deleted, ["turns", "goes"]);
    let keys: Vec<String> = place.objects().await.into_keys().collect();
    assert_eq!(keys, ["tiny.manifest.json", "tiny/stays", "tiny/turns/into"]);
}

#[tokio::test]
#[ignore = "starts a MinIO server: make e2e"]
async fn a_file_that_changes_while_it_is_sent_is_sent_as_it_is_in_the_end() {
    let place = Place::new().await;
    place.write("small", 1, 1000);
    place.write("large", 2, 64 * MIB);
    let large = place.file("large");
    let change = Box::new(move || {
        let mut file = fs::File::options().write(true).open(&large).unwrap();
        file.write_all(b"changed").unwrap();
    });
    let watch = Arc::new(Watch { at: Some((20 << 20, change)), ..Watch::default() });
    let summary = sync(&place.request(), &place.store, watch.clone(), never()).await.unwrap();
    assert!(watch.done.load(Ordering::SeqCst));
    assert_eq!(summary.files, 2);
    place.assert_whole().await;

    // One that never rests is told, and no manifest names it.
    place.write("restless", 3, 20 * MIB);
    let (path, over) = (place.file("restless"), Arc::new(AtomicBool::new(false)));
    let writer = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !over.load(Ordering::SeqCst) && Instant::now() < deadline {
                fs::File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let told = place.sync().await.unwrap_err();
    over.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    assert!(matches!(&told, TransferError::Restless { path, others: 0 } if path == "restless"), "{told}");
    let manifest = inspect(&place.store, MODEL).await.unwrap().unwrap().manifest;
    assert!(!manifest.files.contains_key("restless"), "the manifest is still that of before");
    place.sync().await.unwrap();
    place.assert_whole().await;
}

#[tokio::test]
#[ignore = "starts a MinIO server: make e2e"]
async fn a_server_that_dies_meanwhile_is_waited_for() {
    let mut place = Place::new().await;
    place.write("large", 1, 160 * MIB);
    for number in 0..200 {
        place.write(&format!("small/{number}"), number, 4096);
    }
    let request = Request { bandwidth: Some(64 << 20), ..place.request() };
    let store = place.store.clone();
    let syncing = tokio::spawn(async move { sync(&request, &store, Arc::new(Watch::default()), never()).await });
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        place.minio.kill();
        tokio::time::sleep(Duration::from_millis(500)).await;
        place.minio.restart();
    }
    let summary = syncing.await.unwrap().unwrap();
    assert_eq!(summary.sent.len(), 201);
    place.assert_whole().await;
}

#[tokio::test]
#[ignore = "starts a MinIO server: make e2e"]
async fn a_stopped_sync_is_taken_up_in_the_middle_of_a_file() {
    let place = Place::new().await;
    place.write("large", 1, 96 * MIB);
    let stop = Arc::new(AtomicBool::new(false));
    let request = Request { bandwidth: Some(100 << 20), ..place.request() };
    let watch = {
        let stop = Arc::clone(&stop);
        let act = Box::new(move || stop.store(true, Ordering::SeqCst));
        Arc::new(Watch { at: Some((32 << 20, act)), ..Watch::default() })
    };
    let asked: Stop = Arc::new(move || stop.load(Ordering::SeqCst));
    assert!(matches!(sync(&request, &place.store, watch, asked).await, Err(TransferError::Stopped)));
    assert!(inspect(&place.store, MODEL).await.unwrap().is_none(), "no manifest before its objects");
    assert_eq!(unfinished(&place.minio.data), 1);
    let resumed = place.sync().await.unwrap();
    assert!(resumed.resumed_bytes >= 32 << 20, "{}", resumed.resumed_bytes);
    assert_eq!(resumed.sent_bytes + resumed.resumed_bytes, 96 << 20);
    place.assert_whole().await;

    // Parts of a file that is another one by now are not taken for its own, and what is of no use is given up.
    place.write("other", 2, 48 * MIB);
    let stop = Arc::new(AtomicBool::new(false));
    let watch = {
        let stop = Arc::clone(&stop);
        Arc::new(Watch {
            at: Some((16 << 20, Box::new(move || stop.store(true, Ordering::SeqCst)))),
            ..Watch::default()
        })
    };
    let asked: Stop = Arc::new(move || stop.load(Ordering::SeqCst));
    assert!(matches!(sync(&request, &place.store, watch, asked).await, Err(TransferError::Stopped)));
    place.write("other", 3, 48 * MIB);
    let resumed = place.sync().await.unwrap();
    assert_eq!((resumed.resumed_bytes, resumed.sent_bytes), (0, 48 << 20));
    place.assert_whole().await;
}

#[tokio::test]
#[ignore = "starts a MinIO server: make e2e"]
async fn a_wrong_key_is_told_at_once() {
    let place = Place::new().await;
    place.write("a", 1, 10);
    let s3 = S3::new(&place.minio.endpoint, REGION, KEY.0, "another-secret").unwrap();
    let start = Instant::now();
    let store = Store { s3, ..place.store.clone() };
    let told = sync(&place.request(), &store, Arc::new(Watch::default()), never()).await.unwrap_err();
    assert!(matches!(&told, TransferError::Store(error) if error.is_forbidden()), "{told}");
    assert!(!told.is_transient() && told.hint().is_some());
    assert!(start.elapsed() < Duration::from_secs(5), "it was not tried again and again");
    let store = Store { bucket: "none".to_owned(), ..place.store.clone() };
    let told = sync(&place.request(), &store, Arc::new(Watch::default()), never()).await.unwrap_err();
    assert!(told.to_string().contains("bucket"), "{told}");
}

#[tokio::test]
#[ignore = "starts a MinIO server: make e2e"]
async fn of_two_syncs_of_one_model_one_is_refused() {
    let place = Place::new().await;
    place.write("large", 1, 64 * MIB);
    let (request, store) = (Request { bandwidth: Some(32 << 20), ..place.request() }, place.store.clone());
    let first = tokio::spawn(async move { sync(&request, &store, Arc::new(Watch::default()), never()).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(matches!(place.sync().await, Err(TransferError::Locked { .. })));
    let start = Instant::now();
    first.await.unwrap().unwrap();
    assert!(start.elapsed() > Duration::from_millis(700), "the limit was kept");
    place.assert_whole().await;
}

#[tokio::test]
#[ignore = "mounts a small file system and starts a MinIO server on it, as root: make e2e"]
async fn a_full_disk_of_the_store_is_told_and_room_is_enough_to_go_on() {
    let folder = || tempfile::Builder::new().prefix("taskrun-transfer").tempdir_in("/var/tmp").unwrap();
    // The server ends first, then the disk is taken away, then the folder that it was in.
    let outside = folder();
    let disk = Disk::mount(outside.path().join("disk"));
    let place = Place::on(disk.0.join("data"), folder()).await;
    place.write("first", 1, 20 * MIB);
    place.sync().await.unwrap();
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 360 * MIB]).unwrap();
    place.write("second", 2, 150 * MIB);
    let told = place.sync().await.unwrap_err();
    assert!(told.hint().is_some_and(|hint| hint.contains("room")), "{told}: {:?}", told.hint());
    assert!(!told.is_transient(), "{told}");
    let manifest = inspect(&place.store, MODEL).await.unwrap().unwrap();
    assert_eq!((manifest.broken.len(), manifest.manifest.files.len()), (0, 1), "what was there still is");
    fs::remove_file(ballast).unwrap();
    // MinIO looks at the free space only now and then.
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(told) = place.sync().await {
        assert!(Instant::now() < deadline, "{told}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    place.assert_whole().await;
}

/// A file system of 512 MiB.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=512m", "taskrun-test"];
        assert!(std::process::Command::new("mount").args(mount).arg(&at).status().unwrap().success());
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Minio {
    /// Ends it at once, as a power failure would.
    fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Starts it again at the same address.
    fn restart(&mut self) {
        self.server = spawn(&self.data, &self.address);
        assert!(self.serves(), "MinIO does not start again");
    }
}
