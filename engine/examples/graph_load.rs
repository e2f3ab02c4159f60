//! How long a large graph takes to load, parsed and from the cache, and how much memory.
//!
//! ```sh
//! cargo run --release --example graph_load
//! ```

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use taskrun_engine::graph::{self, Graph};

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(folder) = std::env::args().nth(1) {
        return load(Path::new(&folder));
    }
    let folder = std::env::temp_dir().join(format!("graph_load.{}", std::process::id()));
    fs::create_dir(&folder)?;
    let measured = [1_000, 10_000, 100_000].into_iter().try_for_each(|tasks| measure(&folder, tasks));
    fs::remove_dir_all(&folder)?;
    measured
}

/// Loads a graph in two fresh processes: the second finds it in the cache.
fn measure(folder: &Path, tasks: usize) -> Result<(), Box<dyn Error>> {
    write(&folder.join("graph.yaml"), tasks)?;
    for _ in 0..2 {
        print!("{tasks:7} tasks, ");
        std::io::stdout().flush()?;
        Command::new(std::env::current_exe()?).arg(folder).status()?;
    }
    Ok(())
}

/// Layers of 100 commands, each of which needs two of the layer before and reads their outputs.
fn write(path: &Path, tasks: usize) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    writeln!(file, "version: 1\npools: {{disk: 2}}\ntasks:")?;
    for task in 0..tasks {
        let (layer, place) = (task / 100, task % 100);
        writeln!(file, "  T-{layer}.{place}:\n    title: Task number {task}\n    run: touch out/{task}")?;
        writeln!(file, "    outputs: [out/{task}]")?;
        if let Some(before) = layer.checked_sub(1) {
            let (a, b) = (place, (place * 7 + 1) % 100);
            writeln!(file, "    needs: [T-{before}.{a}, T-{before}.{b}]")?;
            writeln!(file, "    inputs: [out/{}, out/{}]", before * 100 + a, before * 100 + b)?;
        }
    }
    file.flush()
}

fn load(folder: &Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let (graph, cache): (Graph, _) = graph::load_cached(&folder.join("graph.yaml"), &folder.join("cache"))?;
    let time = start.elapsed();
    let status = fs::read_to_string("/proc/self/status")?;
    let memory = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_matches([':', ' ', '\t']).to_owned()
    };
    let needs: usize = graph.indices().map(|task| graph.needs(task).count()).sum();
    println!("{needs:7} needs, cache {cache:?}: {time:.1?}, memory {}, at most {}", memory("VmRSS"), memory("VmHWM"));
    Ok(())
}
