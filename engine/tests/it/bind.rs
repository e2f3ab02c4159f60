//! Graphs that do not fit the plugins: found before anything is started, each problem with its place.

use std::fmt::Write as _;
use std::fs;
use std::marker::PhantomData;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::TaskId;
use taskrun_engine::context::{Context, View};
use taskrun_engine::graph::{self, Problem};
use taskrun_engine::outcome::Failure;
use taskrun_engine::registry::{NoParameters, Registry};
use taskrun_engine::task::{Applied, Earlier, Made, Output, Probe, Read, Task, Traces};

use crate::bad_graphs::rendered;
use crate::snapshot;

macro_rules! output {
    ($name:ident, $kind:literal) => {
        #[derive(Debug, Default, Serialize, Deserialize)]
        struct $name;

        impl Output for $name {
            const KIND: &'static str = $kind;
        }
    };
}

output!(Endpoint, "endpoint");
output!(Page, "page");
output!(Time, "time");
output!(Dream, "dream");

/// Makes an `O` of what it reads.
struct Maker<O> {
    reads: Vec<Read>,
    makes: PhantomData<O>,
}

impl<O> Maker<O> {
    fn reading(reads: Vec<Read>) -> Self {
        Self { reads, makes: PhantomData }
    }
}

#[async_trait]
impl<O: Output + Default> Task for Maker<O> {
    type Settings = ();
    type Output = O;

    fn settings(&self) -> &() {
        &()
    }

    fn reads(&self) -> Vec<Read> {
        self.reads.clone()
    }

    async fn probe(&self, _: &View, _: &Made<Self>) -> Probe {
        Probe::Holds
    }

    async fn apply(&self, _: &Context, _: &Earlier<Self>) -> Result<Applied<O>, Failure> {
        Ok(Applied::complete(O::default()))
    }

    async fn destroy(&self, _: &Context, _: &Traces<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

#[derive(Deserialize)]
struct Server {
    port: u16,
    #[serde(default, rename = "name")]
    _name: String,
}

#[derive(Deserialize)]
struct Reader {
    from: Option<TaskId>,
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add("server", |instance| match instance.parameters()? {
        Server { port: 0, .. } => Err(format!("`{}` would get any port", instance.id).into()),
        Server { .. } => Ok(Maker::<Endpoint>::reading(vec![])),
    });
    registry.add("reader", |instance| {
        let read = match instance.parameters()? {
            Reader { from: Some(task) } => Read::from::<Endpoint>(task),
            Reader { from: None } => Read::of::<Endpoint>(),
        };
        Ok(Maker::<Page>::reading(vec![read]))
    });
    registry.add("clock", |instance| {
        let NoParameters {} = instance.parameters()?;
        Ok(Maker::<Time>::reading(vec![]))
    });
    registry.add("dreamer", |_| Ok(Maker::<Page>::reading(vec![Read::of::<Dream>()])));
    registry
}

#[test]
fn each_graph_that_does_not_fit_has_a_clear_message() {
    let mut files: Vec<PathBuf> =
        fs::read_dir("tests/it/unfit_graphs").unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10);
    let mut all = String::new();
    for file in files {
        let graph = graph::load(&file).unwrap_or_else(|errors| panic!("{}: {}", file.display(), rendered(&errors)));
        let Err(errors) = registry().bind(&graph) else { panic!("{} was bound", file.display()) };
        assert!(errors.problems().iter().all(|problem| problem.place().is_some()), "{errors:?}");
        writeln!(all, "# {}\n{}", file.file_stem().unwrap().display(), rendered(&errors)).unwrap();
    }
    snapshot::assert("unfit_graphs", &all);
}

#[test]
fn in_files_that_have_changed_since_there_are_no_places_but_still_all_problems() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("graph.yaml");
    fs::write(&file, "version: 1\ntasks: {a: {}, b: {uses: server, with: {x: 1, port: 1}}, reader: {}}\n").unwrap();
    let graph = graph::load(&file).unwrap();
    fs::write(&file, "# Something else.").unwrap();
    let Err(errors) = registry().bind(&graph) else { panic!("it was bound") };
    let places: Vec<_> = errors.problems().iter().map(Problem::place).collect();
    assert_eq!(places, [None, None, None]);
}
