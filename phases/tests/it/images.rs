//! Disk images: built once, never half there; and really, from packages, booted by emulation.

mod fakes;
mod real;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use self::fakes::Fakes;
use crate::program::{Said, Stand, wait_for};

const GRAPH: &str = "{version: 1, tasks: {CLOUD-1.1: {title: Base image}, \
                     CLOUD-1.2: {title: GPU worker image, needs: [CLOUD-1.1]}}}";

/// A stand with a cluster whose images are built from `source`, and with `workers`.
fn stand(source: &str, workers: &str) -> Stand {
    let stand = Stand::new(GRAPH);
    let config = format!(
        "version: 1\nname: local\nclusters:\n  cloud:\n    name: cloud\n    \
         network: {{subnet: 192.168.213.0/24, bridge: virbr213}}\n    \
         hardware: {{acceleration: {{enable_kvm: false}}}}\n    \
         image: {{source: {source}}}\n    \
         control_plane: {{cpu_cores: 2, memory_gb: 4, disk_gb: 20, ip: 192.168.213.10}}\n    \
         worker_nodes: {workers}\n    \
         kubernetes_config: {{cni: calico, ingress: nginx, storage_class: local-path}}\n"
    );
    std::fs::write(stand.path().join("c.yaml"), config).unwrap();
    stand
}

const CPU_WORKER: &str = "[{cpu_cores: 2, memory_gb: 4, disk_gb: 20, ip: DHCP}]";

/// A stand whose source is a file that begins as an image does.
fn stand_with_file() -> (Stand, PathBuf) {
    let stand = Stand::new(GRAPH);
    let source = stand.path().join("source.qcow2");
    let made = self::stand(&format!("{{path: {}}}", source.display()), CPU_WORKER);
    std::fs::copy(made.path().join("c.yaml"), stand.path().join("c.yaml")).unwrap();
    std::fs::write(&source, b"QFI\xfb and what else is in an image").unwrap();
    (stand, source)
}

/// The folders below `images`, and what is in each.
fn images(stand: &Stand) -> Vec<PathBuf> {
    let folder = stand.state().join("images");
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = found.collect();
    found.sort();
    found
}

fn run(stand: &Stand, fakes: &Fakes, args: &[&str]) -> Said {
    let output = fakes.command(stand, args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
}

#[test]
fn all_programs_that_are_missing_are_told_at_once() {
    let (stand, _) = stand_with_file();
    let said = run(&stand, &Fakes::without(&["packer", "qemu-img", "qemu-system-x86_64", "xorriso"]), &["check"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    for (missing, package) in [
        ("`packer` is not on PATH", "packer"),
        ("`qemu-img` is not on PATH", "qemu-utils"),
        ("`qemu-system-x86_64` is not on PATH", "qemu-system-x86"),
        ("none of `xorriso`, `genisoimage` and `mkisofs` is on PATH", "xorriso"),
    ] {
        assert!(said.err.contains(missing) && said.err.contains(&format!("apt-get install {package}")), "{}", said.err);
    }
    assert!(images(&stand).is_empty());
}

#[test]
fn the_same_inputs_are_built_once_and_a_changed_image_is_built_anew() {
    let (stand, source) = stand_with_file();
    let fakes = Fakes::new();
    let said = run(&stand, &fakes, &["run"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.err.contains("no virtual machine of the cluster gets a GPU") || said.out.contains("gets a GPU"));
    let [folder] = &images(&stand)[..] else { panic!("{:?}", images(&stand)) };
    let image = folder.join("cloud-base.qcow2");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap();
    assert_eq!(record["way"], "booted", "the fakes offer no tools for the native way");
    assert_eq!(record["tools"]["packer"], "1.6.6");
    assert_eq!(record["size_bytes"], std::fs::metadata(&image).unwrap().len());
    assert_eq!(fakes.builds(), 1);

    let again = run(&stand, &fakes, &["run", "--force", "CLOUD-1.1"]);
    assert_eq!((again.code, fakes.builds()), (Some(0), 1), "{}{}", again.out, again.err);

    // As a person might who wants to try something.
    std::fs::write(&image, "changed").unwrap();
    let changed = run(&stand, &fakes, &["run"]);
    assert_eq!((changed.code, fakes.builds()), (Some(0), 2), "{}{}", changed.out, changed.err);
    assert_eq!(images(&stand).len(), 1);

    std::fs::write(&source, b"QFI\xfb and another image").unwrap();
    let other = run(&stand, &fakes, &["run", "--force", "CLOUD-1.1"]);
    assert_eq!((other.code, fakes.builds()), (Some(0), 3), "{}{}", other.out, other.err);
    assert_eq!(images(&stand).len(), 2, "disks of machines may still be on top of the other");

    let destroyed = run(&stand, &fakes, &["destroy", "--yes"]);
    assert_eq!(destroyed.code, Some(0), "{}{}", destroyed.out, destroyed.err);
    assert!(!stand.state().join("images").exists());
}

#[test]
fn a_killed_build_leaves_no_image_and_the_next_cleans_up() {
    let (stand, _) = stand_with_file();
    let fakes = Fakes::new();
    fakes.set("BUILD_HANGS");
    let mut child = fakes.command(&stand, &["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let work = stand.state().join("images/.cloud-base.work");
    wait_for(|| work.join("packed/cloud-base.qcow2").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(images(&stand), std::slice::from_ref(&work));
    fakes.unset("BUILD_HANGS");
    let said = run(&stand, &fakes, &["resume"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(!work.exists());
    assert_eq!(images(&stand).len(), 1);
}

#[test]
fn what_packer_says_is_told_and_nothing_is_left() {
    let (stand, _) = stand_with_file();
    let fakes = Fakes::new();
    fakes.set("BUILD_FAILS");
    let said = run(&stand, &fakes, &["run"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    let told = format!("{}{}", said.out, said.err);
    assert!(told.contains("Timeout waiting for SSH") && told.contains("image.boot_minutes"), "{told}");
    assert!(told.contains("Kernel panic"), "the console is shown: {told}");
    assert!(images(&stand).is_empty());
}

#[test]
fn clones_that_share_a_machine_id_fail_the_proof() {
    let (stand, _) = stand_with_file();
    let fakes = Fakes::new();
    fakes.set("CLONES_ARE_ALIKE");
    let said = run(&stand, &fakes, &["run"]);
    let told = format!("{}{}", said.out, said.err);
    assert!(said.code == Some(1) && told.contains("clones share the machine id"), "{told}");
}

/// Serves `content`, of each first connection only half; what was asked for is kept.
fn serve(content: Vec<u8>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/debian.qcow2", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let range = range_of(&stream);
            heard.lock().unwrap().push(range.clone());
            answer(stream, &content, &range);
        }
    });
    (url, asked)
}

fn range_of(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let ranges = lines.filter_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    ranges.last().unwrap_or_default()
}

fn answer(mut stream: TcpStream, content: &[u8], range: &str) {
    let start: usize = range.trim_end_matches('-').parse().unwrap_or(0);
    let head = match start {
        0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()),
        start => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\n\r\n",
            content.len() - start,
            content.len() - 1,
            content.len()
        ),
    };
    let end = if start == 0 { content.len() / 2 } else { content.len() };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content[start..end]));
}

fn sha256(content: &[u8]) -> String {
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("content");
    std::fs::write(&file, content).unwrap();
    let mut told = String::new();
    let output = std::process::Command::new("sha256sum").arg(&file).output().unwrap();
    (&output.stdout[..]).read_to_string(&mut told).unwrap();
    told[..64].to_owned()
}

#[test]
fn a_download_goes_on_where_it_ended_and_is_kept() {
    let content = [b"QFI\xfb".to_vec(), b"x".repeat(100_000)].concat();
    let (url, asked) = serve(content.clone());
    let stand = stand(&format!("{{url: '{url}', sha256: {}}}", sha256(&content)), CPU_WORKER);
    let fakes = Fakes::new();
    let broken = run(&stand, &fakes, &["run"]);
    assert_eq!(broken.code, Some(1), "{}{}", broken.out, broken.err);
    let said = run(&stand, &fakes, &["run"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let ranges = asked.lock().unwrap().clone();
    assert!(ranges.len() == 2 && ranges[0].is_empty() && ranges[1].ends_with('-'), "{ranges:?}");
    let again = run(&stand, &fakes, &["run", "--force", "CLOUD-1.1"]);
    assert_eq!((again.code, asked.lock().unwrap().len()), (Some(0), 2), "{}", again.err);
}

#[test]
fn another_file_than_the_wanted_one_is_refused_and_thrown_away() {
    let content = [b"QFI\xfb".to_vec(), b"x".repeat(1000)].concat();
    let (url, _) = serve(content.clone());
    let stand = stand(&format!("{{url: '{url}', sha256: {}}}", sha256(b"other")), CPU_WORKER);
    let fakes = Fakes::new();
    run(&stand, &fakes, &["run"]);
    let said = run(&stand, &fakes, &["run"]);
    let told = format!("{}{}", said.out, said.err);
    let message = format!("its SHA256 is {}, not {}", sha256(&content), sha256(b"other"));
    assert!(said.code == Some(1) && told.contains(&message), "{told}");
    let cached = std::fs::read_dir(stand.path().join("cache/images")).unwrap().count();
    assert_eq!((cached, fakes.builds()), (0, 0));
}

#[test]
fn what_is_no_image_is_not_built_upon() {
    let content = b"<html>The image has moved</html>".to_vec();
    let (url, _) = serve(content.clone());
    let stand = stand(&format!("{{url: '{url}', sha256: {}}}", sha256(&content)), CPU_WORKER);
    let fakes = Fakes::new();
    run(&stand, &fakes, &["run"]);
    let said = run(&stand, &fakes, &["run"]);
    let told = format!("{}{}", said.out, said.err);
    assert!(said.code == Some(1) && told.contains("it is no qcow2 image"), "{told}");
    assert_eq!(fakes.builds(), 0);
}

/// What a record says.
fn record(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap()
}
