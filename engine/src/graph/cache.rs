//! The compiled graph on disk, so that an unchanged graph of 100,000 tasks need not be parsed again.

use std::fs;
use std::io;
use std::path::Path;

use petgraph::graph::NodeIndex;
use serde::{Deserialize, Serialize};

use super::diagnose::GraphErrors;
use super::load::Files;
use super::model::{Digest, Edge, Graph, Node, Parts, Pool};

/// Where a graph came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// The compiled graph was there and is of these very files.
    Hit,
    /// The files were parsed, and the compiled graph was kept if that was possible.
    Miss,
}

/// As [`load`](super::load()), but takes the graph from `cache` if the files are what they were when it was kept there.
///
/// The cache is a convenience: one that is damaged, of another version or cannot be written is passed over.
///
/// # Errors
/// Everything that is wrong with the files, each problem with its place.
pub fn load_cached(main: &Path, cache: &Path) -> Result<(Graph, CacheUse), GraphErrors> {
    let files = Files::read(main);
    let digest = files.digest();
    match fs::read(cache).map_err(Unusable::from).and_then(|bytes| decode(&bytes, digest)) {
        Ok(graph) if files.complete() => return Ok((graph, CacheUse::Hit)),
        Ok(_) => {}
        Err(reason) => tracing::debug!(cache = %cache.display(), %reason, "no compiled graph"),
    }
    let graph = files.compile()?;
    if let Err(error) = keep(&graph, cache) {
        tracing::debug!(cache = %cache.display(), %error, "the compiled graph cannot be kept");
    }
    Ok((graph, CacheUse::Miss))
}

/// What the file begins with; the last byte is the version of everything after it.
const MAGIC: [u8; 8] = *b"trgraph\x02";

/// Why a cache is passed over.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is not a compiled graph of this version")]
    Foreign,
    #[error("it was made from other files")]
    Outdated,
    #[error("it is damaged")]
    Damaged,
}

/// What follows the header: magic, program version, digest of the files, digest of the rest.
#[derive(Serialize, Deserialize)]
struct Compiled<N> {
    files: Vec<std::path::PathBuf>,
    pools: Vec<Pool>,
    nodes: Vec<N>,
    edges: Vec<Edge>,
}

fn header(digest: Digest, body: &[u8]) -> [[u8; 32]; 3] {
    let mut version = [0; 32];
    version[..8].copy_from_slice(&MAGIC);
    let number = env!("CARGO_PKG_VERSION").as_bytes();
    version[8..8 + number.len()].copy_from_slice(number);
    [version, digest.0, blake3::hash(body).into()]
}

fn encode(graph: &Graph) -> Result<Vec<u8>, postcard::Error> {
    let index = |task: NodeIndex| task.index() as u32;
    let edges = |to| graph.needs(to).map(move |(from, need)| Edge { from: index(from), to: index(to), need });
    let compiled = Compiled::<&Node> {
        files: graph.files().to_vec(),
        pools: graph.pools().to_vec(),
        nodes: graph.indices().map(|task| &graph[task]).collect(),
        edges: graph.indices().flat_map(edges).collect(),
    };
    let body = postcard::to_stdvec(&compiled)?;
    Ok([header(graph.digest(), &body).as_flattened(), &body].concat())
}

fn decode(bytes: &[u8], digest: Digest) -> Result<Graph, Unusable> {
    let (found, body) = bytes.split_at_checked(96).ok_or(Unusable::Foreign)?;
    let expected = header(digest, body);
    for (part, reason) in [Unusable::Foreign, Unusable::Outdated, Unusable::Damaged].into_iter().enumerate() {
        if found[part * 32..][..32] != expected[part] {
            return Err(reason);
        }
    }
    let compiled: Compiled<Node> = postcard::from_bytes(body).map_err(|_| Unusable::Damaged)?;
    let parts = Parts { pools: compiled.pools, files: compiled.files, digest };
    Graph::assemble(compiled.nodes.into_iter(), &compiled.edges, parts).ok_or(Unusable::Damaged)
}

/// Writes beside `cache` and renames, so that a reader never finds half of it.
fn keep(graph: &Graph, cache: &Path) -> io::Result<()> {
    let bytes = encode(graph).map_err(io::Error::other)?;
    let new = cache.with_extension(format!("{}.new", std::process::id()));
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, cache)).inspect_err(|_| _ = fs::remove_file(&new))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "{version: 1, tasks: {a: {with: {n: [1, x]}}, b: {needs: a, run: 'true'}}}";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("graph.yaml"), YAML).unwrap();
        folder
    }

    fn load(folder: &tempfile::TempDir) -> (Graph, CacheUse) {
        load_cached(&folder.path().join("graph.yaml"), &folder.path().join("cache")).unwrap()
    }

    #[test]
    fn an_unchanged_graph_is_not_parsed_again() {
        let folder = folder();
        let (first, miss) = load(&folder);
        let (second, hit) = load(&folder);
        assert_eq!((miss, hit), (CacheUse::Miss, CacheUse::Hit));
        assert_eq!(first, second);
        assert_eq!(first.digest(), second.digest());
        assert_eq!(first.files(), second.files());
        assert_eq!(first.topological(), second.topological());
    }

    #[test]
    fn a_change_in_any_file_is_noticed() {
        let folder = folder();
        load(&folder);
        fs::create_dir(folder.path().join("graph.d")).unwrap();
        fs::write(folder.path().join("graph.d/more.yaml"), "tasks: {c: {needs: a}}").unwrap();
        let (graph, cache_use) = load(&folder);
        assert_eq!((graph.len(), cache_use), (3, CacheUse::Miss));
        assert_eq!(load(&folder).1, CacheUse::Hit);
    }

    #[test]
    fn a_damaged_cache_is_passed_over() {
        let folder = folder();
        let (graph, _) = load(&folder);
        let cache = folder.path().join("cache");
        let good = fs::read(&cache).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(decode(&bad, graph.digest()).is_err(), "byte {at} flipped");
            assert!(decode(&good[..at], graph.digest()).is_err(), "cut at byte {at}");
        }
        fs::write(&cache, &good[..good.len() / 2]).unwrap();
        assert_eq!(load(&folder), (graph, CacheUse::Miss));
    }

    #[test]
    fn a_cache_that_cannot_be_kept_harms_nobody() {
        let folder = folder();
        let main = folder.path().join("graph.yaml");
        let (graph, cache_use) = load_cached(&main, &folder.path().join("missing/cache")).unwrap();
        assert_eq!((graph.len(), cache_use), (2, CacheUse::Miss));
    }
}
