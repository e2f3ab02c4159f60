//! `recover`: what follows a damaged journal.
//!
//! The intact frames before the damage are facts, if old ones. Each task that they tell of is looked at: what still holds
//! is taken over; everything else is to run again, and finds and adopts what exists, since no `apply` destroys data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{RecoverArgs, SelectionArgs};
use super::error::{CliError, exit};
use super::main::say;
use super::request::Request;
use super::session::{Session, fold, journal_error};
use super::show;
use crate::checkpoint::{Checkpoint, Record, Status};
use crate::event::Verb;
use crate::journal::{FILE_NAME, JournalError, RealDisk, Seen, Tail, Writer, set_aside};
use crate::plan::Action;

pub(super) async fn recover(session: &Session, _args: &RecoverArgs) -> Result<u8, CliError> {
    if !session.state.exists() {
        say("nothing to recover: nothing was run here yet");
        return Ok(exit::OK);
    }
    let (lock, _) = session.lock()?;
    let aside = match salvage(&session.state) {
        Ok((_, None)) if session.state.join(FILE_NAME).exists() => {
            say("nothing to recover: the journal is sound");
            return Ok(exit::OK);
        }
        Ok((_, Some(_))) => {
            let aside = set_aside(&lock, &RealDisk).map_err(|error| journal_error(&error))?;
            say(format!("set the damaged journal aside: {}", aside.display()));
            aside
        }
        Ok((_, None)) => match newest_damaged(&session.state) {
            Some(aside) => aside,
            None => {
                say("nothing to recover: nothing was run here yet");
                return Ok(exit::OK);
            }
        },
        Err(error) => return Err(journal_error(&error)),
    };
    let mut checkpoint = salvage_file(&session.state, &aside)?;
    let request = Request::new(SelectionArgs::default());
    let wanted = request.resolve(&session.world.graph, &checkpoint)?;
    // What was in flight is unknown now; what stands is found out by looking.
    let plan = super::plan::make(session, &checkpoint, &wanted).await?;
    let mut adopted = 0;
    for (index, decision) in plan.iter() {
        let id = &session.world.graph[index].id;
        let Some(state) = checkpoint.tasks.get_mut(id) else { continue };
        if decision.action == Action::Keep {
            adopted += 1;
        } else {
            Arc::make_mut(state).status = Status::Interrupted;
        }
    }
    let failed = |error: &dyn std::error::Error| CliError::caused(exit::STATE, "write the recovered state", error);
    if checkpoint.run.is_none() {
        // What was asked for last is lost: `resume` goes on with everything.
        let started = request.started(1, Verb::Run).map_err(|error| failed(&error))?;
        checkpoint.apply(Record::RunStarted(started)).map_err(|error| failed(&error))?;
    }
    let snapshot = checkpoint.payloads().collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
    Writer::begin(lock, Arc::new(RealDisk), &session.identity, snapshot).map_err(|error| journal_error(&error))?;
    say(format!("recovered: {adopted} tasks were found as they were recorded; {}", show::plan_summary(&plan)));
    say("bring the others up again: taskrun run (what exists is adopted, data is kept)");
    Ok(exit::OK)
}

/// Folds the intact frames of the journal in `folder`; also the damage that ended that, if any.
fn salvage(folder: &Path) -> Result<(Checkpoint, Option<JournalError>), JournalError> {
    let mut checkpoint = Checkpoint::default();
    let read = Tail::new(folder).poll(|seen| {
        match seen {
            Seen::Start(_) => checkpoint = Checkpoint::default(),
            Seen::Frame { payload, .. } => fold(&mut checkpoint, payload)?,
        }
        Ok(())
    });
    match read {
        Ok(_) => Ok((checkpoint, None)),
        Err(error @ (JournalError::Damaged { .. } | JournalError::Record { .. })) => Ok((checkpoint, Some(error))),
        Err(error) => Err(error),
    }
}

/// As [`salvage`], of a journal that was set aside.
fn salvage_file(state: &Path, aside: &Path) -> Result<Checkpoint, CliError> {
    let failed = |error: std::io::Error| CliError::caused(exit::STATE, format!("read {}", aside.display()), &error);
    let folder = state.join("tmp").join("recover");
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::copy(aside, folder.join(FILE_NAME)).map_err(failed)?;
    let salvaged = salvage(&folder);
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    salvaged.map(|(checkpoint, _)| checkpoint).map_err(|error| journal_error(&error))
}

/// The journal that was set aside last.
pub(super) fn newest_damaged(state: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let damaged = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal.damaged")));
    damaged.max()
}
