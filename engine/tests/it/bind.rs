//! Graphs that do not fit the plugins: found before anything is started, each problem with its place.

use std::fs;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use taskrun_engine::context::{Context, View};
use taskrun_engine::graph::{self, GraphErrors};
use taskrun_engine::outcome::Failure;
use taskrun_engine::registry::Registry;
use taskrun_engine::task::{Applied, Earlier, Made, Output, Probe, Read, Task, Traces};

use crate::bad_graphs::rendered;
use crate::snapshot;

/// Makes an endpoint, and reads one if it is asked to.
struct Service {
    parameters: Parameters,
    reads: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Parameters {
    port: u16,
}

impl Service {
    fn new(with: &serde_json::Value, reads: bool) -> Result<Self, String> {
        let with = if with.is_null() { serde_json::json!({}) } else { with.clone() };
        let parameters = serde_json::from_value(with).map_err(|error| error.to_string())?;
        Ok(Self { parameters, reads })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Endpoint;

impl Output for Endpoint {
    const KIND: &'static str = "endpoint";
}

#[derive(Debug, Serialize, Deserialize)]
struct Page;

impl Output for Page {
    const KIND: &'static str = "page";
}

macro_rules! task {
    ($name:ident, $output:ident) => {
        #[async_trait]
        impl Task for $name {
            type Settings = Parameters;
            type Output = $output;

            fn settings(&self) -> &Parameters {
                &self.0.parameters
            }

            fn reads(&self) -> Vec<Read> {
                if self.0.reads { vec![Read::of::<Endpoint>()] } else { Vec::new() }
            }

            async fn probe(&self, _view: &View, _made: &Made<Self>) -> Probe {
                Probe::Holds
            }

            async fn apply(&self, _: &Context, _: &Earlier<Self>) -> Result<Applied<$output>, Failure> {
                Ok(Applied::complete($output))
            }

            async fn destroy(&self, _context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
                Ok(())
            }
        }
    };
}

struct Server(Service);
struct Reader(Service);
task!(Server, Endpoint);
task!(Reader, Page);

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add("server", |instance| Ok(Server(Service::new(instance.with, false)?)));
    registry.add("reader", |instance| Ok(Reader(Service::new(instance.with, true)?)));
    registry
}

fn refused(yaml: &str) -> (GraphErrors, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("graph.yaml");
    fs::write(&file, yaml).unwrap();
    let graph = graph::load(&file).unwrap();
    let Err(errors) = registry().bind(&graph) else { panic!("it was bound") };
    let text = rendered(&errors).replace(&folder.path().display().to_string(), "FOLDER");
    (errors, text)
}

#[test]
fn plugins_that_do_not_exist_and_parameters_that_they_do_not_take() {
    let (_, text) = refused(
        "version: 1
tasks:
  server: {}
  sever: {}
  b: {uses: raeder}
  c: {run: x}
  odd: {}
  d: {uses: server, with: {prot: 1}}
  e:
    uses: server
    with:
      port: high
",
    );
    snapshot::assert("bind_plugins", &text);
}

#[test]
fn outputs_that_nobody_or_more_than_one_makes() {
    let (_, text) = refused(
        "version: 1
tasks:
  one: {uses: server}
  two: {uses: server}
  a: {uses: reader}
  b:
    uses: reader
    needs: [one, two]
  c: {uses: reader, needs: one}
  d: {needs: [c], uses: reader, title: through another}
  e: {run: x}
  f: {needs: [e], uses: reader}
",
    );
    snapshot::assert("bind_outputs", &text);
}

#[test]
fn in_files_that_have_changed_since_there_are_no_places_but_still_all_problems() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("graph.yaml");
    fs::write(&file, "version: 1\ntasks: {a: {}, b: {uses: server, with: {x: 1}}}\n").unwrap();
    let graph = graph::load(&file).unwrap();
    fs::write(&file, "# Something else.").unwrap();
    let Err(errors) = registry().bind(&graph) else { panic!("it was bound") };
    let places: Vec<_> = errors.problems().iter().map(graph::Problem::place).collect();
    assert_eq!(places, [None, None]);
}
