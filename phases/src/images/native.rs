//! The native way: scripts run in the root file system of a disk image, in a chroot.
//!
//! All mounts are seen by the script alone and go with it however it ends, and so does each process that it started.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use taskrun_engine::context::View;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;

use super::recipe;
use crate::phase0::find_program;
use crate::tools::files;

/// How long converting a disk may take.
const CONVERT: Duration = Duration::from_secs(1800);
/// How long looking at its partitions may take.
const LOOK: Duration = Duration::from_secs(60);

/// The programs, with the packages that they are in.
const PROGRAMS: [(&str, &str); 7] = [
    ("sfdisk", "fdisk"),
    ("unshare", "util-linux"),
    ("chroot", "coreutils"),
    ("blkid", "util-linux"),
    ("fstrim", "util-linux"),
    ("e2fsck", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
];

/// Why this machine cannot do it, and what mends that.
pub fn obstacle() -> Option<(String, String)> {
    if !nix::unistd::geteuid().is_root() {
        return Some(("only root may mount disk images".to_owned(), "run it as root".to_owned()));
    }
    if let Some((program, package)) = PROGRAMS.into_iter().find(|(program, _)| find_program(program).is_none()) {
        return Some((format!("`{program}` is not on PATH"), format!("apt-get install {package}")));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some(("this machine has no loop devices".to_owned(), "modprobe loop".to_owned()));
    }
    None
}

/// Makes the raw disk `disk` from the image `source`, as large as `size` bytes, with its root partition grown to the end.
/// Returns the place of that partition, in bytes.
///
/// # Errors
/// It is no disk image with a partition of Linux, or larger than `size`.
pub async fn lay_out(view: &View, source: &Path, disk: &Path, size: u64) -> Result<Range<u64>, Failure> {
    let convert = Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(source).arg(disk).timeout(CONVERT);
    view.command(convert).await?;
    let has = std::fs::metadata(disk).map_err(|error| files::failure("read", disk, &error))?.len();
    if has > size {
        let message = format!("make an image of {} GiB: its source has {} GiB", size >> 30, has.div_ceil(1 << 30));
        return Err(Failure::permanent(message).with_hint("raise `image.size_gib`"));
    }
    let grow = std::fs::OpenOptions::new().write(true).open(disk).and_then(|file| file.set_len(size));
    grow.map_err(|error| files::failure("grow", disk, &error))?;
    let root = root_partition(&partitions(view, disk).await?)?;
    let grow = Command::new("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel", "-N", &root.to_string()]);
    view.command(grow.arg(disk).stdin(", +\n").timeout(LOOK)).await?;
    let table = partitions(view, disk).await?;
    let found = table.partitions.iter().find(|partition| partition.number(&table.device) == Some(root));
    let found = found.ok_or_else(|| Failure::permanent(format!("find partition {root} again")))?;
    let start = found.start * table.sector_size;
    Ok(start..start + found.size * table.sector_size)
}

/// Runs `scripts`, files in `folder`, in the root file system at `partition` of `disk`, for at most `timeout`. What
/// `describe.sh` among them says is written to `report`. `root` is the mount point, a folder.
///
/// # Errors
/// The file system cannot be mounted, or a script fails.
pub async fn run(
    view: &View,
    disk: &Path,
    partition: Range<u64>,
    folder: &Path,
    scripts: &[&str],
    environment: &BTreeMap<String, String>,
    timeout: Duration,
) -> Result<(), Failure> {
    let (root, report) = (disk.with_extension("root"), disk.with_extension("report"));
    std::fs::create_dir_all(&root).map_err(|error| files::failure("make", &root, &error))?;
    let own = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL"];
    let command = Command::new("unshare").args(own).arg("sh").arg(folder.join(recipe::NATIVE.0)).arg(disk);
    let command = command.args([partition.start.to_string(), (partition.end - partition.start).to_string()]);
    let command = command.arg(&root).arg(folder).arg(&report).args(scripts).timeout(timeout);
    let command = environment.iter().fold(command, |command, (name, value)| command.env(name, value));
    view.command(command).await.map(drop)
}

#[derive(Debug, Deserialize)]
struct Told {
    #[serde(rename = "partitiontable")]
    table: Table,
}

#[derive(Debug, Deserialize)]
struct Table {
    device: String,
    #[serde(rename = "sectorsize")]
    sector_size: u64,
    partitions: Vec<Partition>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    node: String,
    start: u64,
    size: u64,
    #[serde(rename = "type")]
    kind: String,
}

impl Partition {
    /// Its number, which its name ends with.
    fn number(&self, device: &str) -> Option<u32> {
        self.node.strip_prefix(device)?.trim_start_matches('p').parse().ok()
    }
}

async fn partitions(view: &View, disk: &Path) -> Result<Table, Failure> {
    let look = Command::new("sfdisk").arg("--json").arg(disk).timeout(LOOK);
    let told = view
        .capture(look)
        .await
        .map_err(|failure| failure.with_hint("the source must be the image of a whole disk, with a partition table"))?;
    let told: Told = serde_json::from_str(&told)
        .map_err(|error| Failure::caused(Persistence::Permanent, "understand sfdisk", &error))?;
    Ok(told.table)
}

/// The number of the partition with the root file system: the one made for it, or else the largest of Linux.
fn root_partition(table: &Table) -> Result<u32, Failure> {
    // As the discoverable partitions specification has it for x86-64; then any of Linux, by GPT and by MBR.
    const ROOT: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
    const LINUX: [&str; 2] = ["0FC63DAF-8483-4772-8E79-3D69D8477DE4", "83"];
    let made_for_it = table.partitions.iter().find(|partition| partition.kind == ROOT);
    let of_linux = table.partitions.iter().filter(|partition| LINUX.contains(&&*partition.kind));
    let found = made_for_it.or_else(|| of_linux.max_by_key(|partition| partition.size));
    found.and_then(|partition| partition.number(&table.device)).ok_or_else(|| {
        Failure::permanent("find the root partition of the source")
            .with_hint("take an image of Debian with a file system ext4")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(partitions: &[(&str, u64, &str)]) -> Table {
        let partitions = partitions
            .iter()
            .map(|(node, size, kind)| serde_json::json!({"node": node, "start": 2048, "size": size, "type": kind}));
        let partitions: Vec<_> = partitions.collect();
        let told =
            serde_json::json!({"partitiontable": {"device": "/d1", "sectorsize": 512, "partitions": partitions}});
        serde_json::from_value::<Told>(told).unwrap().table
    }

    #[test]
    fn the_root_partition_is_found() {
        let official = [
            ("/d1p1", 6_027_264, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
            ("/d1p14", 6144, "21686148-6449-6E6F-744E-656564454649"),
            ("/d1p15", 253_952, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
        ];
        assert_eq!(root_partition(&table(&official)).unwrap(), 1);
        assert_eq!(
            root_partition(&table(&[("/d1p1", 10, "83"), ("/d1p2", 20, "83"), ("/d1p3", 90, "82")])).unwrap(),
            2
        );
        assert!(root_partition(&table(&[("/d1p1", 10, "7")])).is_err());
        assert!(root_partition(&table(&[])).is_err());
    }
}
