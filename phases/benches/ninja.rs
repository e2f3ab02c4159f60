//! Speed beside ninja: the same layered graph of `touch`, the same number of jobs, paired runs on one machine.
//!
//! `BENCH_TASKS=1000,10000,100000` chooses the sizes (1000 and 10000 by default), `BENCH_PAIRS` how often each pair is
//! measured (3 by default). Every task is journalled durably by us and logged without sync by ninja.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tasks in a layer; each needs two of the layer before.
const WIDTH: usize = 100;

const JOBS: &str = "4";

fn main() -> std::io::Result<()> {
    // `cargo test --benches` calls us too, and is not meant.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let mut out = std::io::stdout();
    if Command::new("ninja").arg("--version").stdout(Stdio::null()).status().is_err() {
        writeln!(out, "ninja is not on PATH: apt-get install ninja-build")?;
        return Ok(());
    }
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let sizes = setting("BENCH_TASKS", "1000,10000");
    let pairs: usize = setting("BENCH_PAIRS", "3").parse().unwrap_or(3);
    writeln!(out, "{:<28} {:>10} {:>10} {:>8} {:>7}  bound", "", "taskrun", "ninja", "ratio", "memory")?;
    for size in sizes.split(',').filter_map(|size| size.trim().parse::<usize>().ok()) {
        let folder = tempfile::tempdir()?;
        write_graphs(folder.path(), size)?;
        let (mut run, mut nothing) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            for tool in ["taskrun", "ninja"] {
                let _ = std::fs::remove_dir_all(folder.path().join(tool).join("out"));
                let _ = std::fs::remove_dir_all(folder.path().join(tool).join(".taskrun"));
                let _ = std::fs::remove_file(folder.path().join(tool).join(".ninja_log"));
                std::fs::create_dir_all(folder.path().join(tool).join("out"))?;
            }
            run.push((time(ours(folder.path()))?, time(theirs(folder.path()))?));
            nothing.push((time(ours(folder.path()))?, time(theirs(folder.path()))?));
        }
        for (what, pairs) in [("execute", run), ("nothing to do", nothing)] {
            let ratio = median(pairs.iter().map(|(a, b)| a.wall.as_secs_f64() / b.wall.as_secs_f64()).collect());
            let seconds = |pick: fn(&(Timed, Timed)) -> Duration| {
                median(pairs.iter().map(|pair| pick(pair).as_secs_f64()).collect())
            };
            let memory = pairs.iter().map(|(a, _)| a.memory).max().unwrap_or(0);
            writeln!(
                out,
                "{:<28} {:>8.3} s {:>8.3} s {ratio:>8.2} {:>4} MB  {}",
                format!("{what}, {size} tasks"),
                seconds(|(a, _)| a.wall),
                seconds(|(_, b)| b.wall),
                memory / 1024,
                if ratio <= 1.0 { "<= 1: met" } else { "<= 1: missed" },
            )?;
        }
    }
    Ok(())
}

struct Timed {
    wall: Duration,
    /// The largest resident set, in KiB.
    memory: u64,
}

fn ours(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskrun"));
    command.args(["--output", "plain", "run", "--jobs", JOBS]).current_dir(folder.join("taskrun"));
    command
}

fn theirs(folder: &Path) -> Command {
    let mut command = Command::new("ninja");
    command.args(["--quiet", "-j", JOBS]).current_dir(folder.join("ninja"));
    command
}

fn time(mut command: Command) -> std::io::Result<Timed> {
    let start = Instant::now();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let pid = child.id();
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
            let peak = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
            let Some(peak) = peak else { break };
            most = most.max(peak);
            std::thread::sleep(Duration::from_millis(20));
        }
        most
    });
    let output = child.wait_with_output()?;
    let wall = start.elapsed();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    Ok(Timed { wall, memory: watch.join().unwrap_or(0) })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn write_graphs(folder: &Path, size: usize) -> std::io::Result<()> {
    let mut ours = String::from("version: 1\ntasks:\n");
    let mut theirs = String::from("rule touch\n  command = touch $out\n");
    for task in 0..size {
        let layer = task / WIDTH;
        let needs: Vec<usize> = match layer {
            0 => Vec::new(),
            _ => [task % WIDTH, (task * 7 + 3) % WIDTH].into_iter().map(|at| (layer - 1) * WIDTH + at).collect(),
        };
        let mut needs = needs;
        needs.sort_unstable();
        needs.dedup();
        let ids = needs.iter().map(|need| format!("t{need}")).collect::<Vec<_>>().join(", ");
        let files = needs.iter().map(|need| format!("out/{need}")).collect::<Vec<_>>();
        let _ = writeln!(
            ours,
            "  t{task}: {{run: touch out/{task}, needs: [{ids}], inputs: [{}], outputs: [out/{task}]}}",
            files.join(", ")
        );
        let _ = writeln!(theirs, "build out/{task}: touch {}", files.join(" "));
    }
    std::fs::create_dir_all(folder.join("taskrun"))?;
    std::fs::create_dir_all(folder.join("ninja"))?;
    std::fs::write(folder.join("taskrun/graph.yaml"), ours)?;
    std::fs::write(folder.join("ninja/build.ninja"), theirs)
}
