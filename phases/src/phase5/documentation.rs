//! CLOUD-5.2: the documents of this installation: tutorial, architecture, deployment of models, troubleshooting.
//!
//! Proof: every link resolves, and every shell block is sound. `taskrun docs --check` runs the blocks, too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use taskrun_engine::context::{Context, View};
use taskrun_engine::fingerprint::Digest;
use taskrun_engine::outcome::{Failure, Persistence};
use taskrun_engine::process::Command;
use taskrun_engine::task::{Applied, Earlier, Made, Probe, Proof, Read, Task, Traces};

use crate::docs::{self, Facts};
use crate::outputs::{
    Database, Documentation, Machine, ModelServing, ObjectStore, OperatorCli, Platform, Tracking, Training,
};
use crate::tools::files;

/// How long reading the blocks of a page may take a shell.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The task.
pub struct DocumentationTask;

/// The folder of the pages, in the state folder.
pub fn folder(state: &Path) -> PathBuf {
    state.join("docs")
}

fn digest(files: &[PathBuf]) -> Option<String> {
    let mut all = Vec::new();
    for file in files {
        all.extend(std::fs::read(file).ok()?);
    }
    Some(Digest::of(&all).to_string())
}

#[async_trait]
impl Task for DocumentationTask {
    type Settings = ();
    type Output = Documentation;

    fn settings(&self) -> &() {
        &()
    }

    fn reads(&self) -> Vec<Read> {
        vec![
            Read::of::<Machine>(),
            Read::of::<OperatorCli>(),
            Read::of::<Platform>(),
            Read::of::<ObjectStore>(),
            Read::of::<Database>(),
            Read::of::<Tracking>(),
            Read::of::<ModelServing>(),
            Read::of::<Training>(),
        ]
    }

    fn assets(&self) -> Vec<(&'static str, &'static [u8])> {
        docs::TEMPLATES.iter().map(|(name, template)| (*name, template.as_bytes())).collect()
    }

    async fn probe(&self, _view: &View, made: &Made<Self>) -> Probe {
        match digest(&made.output.pages) {
            Some(digest) if digest == made.output.digest => Probe::Holds,
            Some(_) => Probe::Missing("a page was changed by hand".to_owned()),
            None => Probe::Missing("a page is gone".to_owned()),
        }
    }

    async fn apply(&self, context: &Context, _earlier: &Earlier<Self>) -> Result<Applied<Documentation>, Failure> {
        let facts = Facts::gather(context).await?;
        let documents =
            docs::render(&facts).map_err(|error| Failure::caused(Persistence::Permanent, "fill a template", &error))?;
        let folder = folder(context.state_dir());
        // Pages that are made no more must not stay.
        files::remove(&folder)?;
        let pages = docs::write(&folder, &documents).map_err(|(file, error)| files::failure("write", &file, &error))?;
        let digest = digest(&pages).ok_or_else(|| Failure::permanent("read the pages that were just written"))?;
        Ok(Applied::complete(Documentation { index: folder.join("index.html"), pages, digest }))
    }

    fn proofs(&self) -> &'static [Proof] {
        const PROOFS: &[Proof] = &[Proof::safe("every link resolves"), Proof::safe("every shell block is sound")];
        PROOFS
    }

    async fn prove(&self, proof: &str, view: &View, output: &Documentation) -> Result<(), Failure> {
        match proof {
            "every link resolves" => match docs::bad_links(&output.pages).await.as_slice() {
                [] => Ok(()),
                bad => {
                    bad.iter().for_each(|bad| view.say(bad.to_string()));
                    Err(Failure::permanent(format!("follow {} of the links, such as {}", bad.len(), bad[0])))
                }
            },
            "every shell block is sound" => {
                for page in &output.pages {
                    let text = std::fs::read_to_string(page).map_err(|error| files::failure("read", page, &error))?;
                    let script = docs::script(page, &docs::markdown::Page::parse(&text).blocks);
                    view.command(Command::new("bash").arg("-n").stdin(script).dir("/").timeout(READ_TIMEOUT)).await?;
                }
                Ok(())
            }
            _ => Err(Failure::permanent(format!("no proof is called `{proof}`"))),
        }
    }

    async fn destroy(&self, context: &Context, _made: &Traces<Self>) -> Result<(), Failure> {
        files::remove(&folder(context.state_dir()))
    }
}
