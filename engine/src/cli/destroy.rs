//! `destroy`

use std::io::{BufRead, IsTerminal};
use std::sync::Arc;

use super::args::{DestroyArgs, Global, SelectionArgs};
use super::error::{CliError, exit};
use super::execute::Execution;
use super::main::say;
use super::product::Product;
use super::request::Request;
use super::session::{Purpose, Session, Sources, Writing};
use crate::TaskId;
use crate::event::{EventKind, PlannedTask, Verb};
use crate::plan::{Action, Decision, Reason};
use crate::run::{Teardown, teardown};

pub(super) async fn destroy(product: &dyn Product, global: &Global, args: DestroyArgs) -> Result<u8, CliError> {
    let session = Session::open(product, global, Purpose::default())?;
    if !session.state.exists() {
        say("nothing to destroy: nothing was run here yet");
        return Ok(exit::OK);
    }
    let request = Request::new(SelectionArgs { ids: args.ids.clone(), ..SelectionArgs::default() });
    let writing = session.write(Sources::Optional)?;
    let doomed = doom(&session, &writing, &request)?;
    tell(&session, &doomed);
    if !doomed.order.is_empty() || args.purge {
        confirm(
            args.yes,
            if args.purge {
                "Destroy these, and remove journal, logs, secrets and all caches"
            } else {
                "Destroy these"
            },
        )?;
    }
    let code = take_away(&session, global, writing, &request, &doomed).await?;
    if args.purge && code == exit::OK {
        purge(product, &session)?;
    }
    Ok(code)
}

/// Goes on with a destroy that was interrupted: it was confirmed then.
pub(super) async fn go_on(
    _product: &dyn Product,
    session: &Session,
    global: &Global,
    request: Request,
) -> Result<u8, CliError> {
    let writing = session.write(Sources::Optional)?;
    let doomed = doom(session, &writing, &request)?;
    tell(session, &doomed);
    take_away(session, global, writing, &request, &doomed).await
}

/// What is to be taken away for a request; ids may also be those of tasks that only the journal knows.
fn doom(session: &Session, writing: &Writing, request: &Request) -> Result<Teardown, CliError> {
    let asked = |id: &TaskId| {
        let named = |name: &String| id.as_str() == name || id.phase() == Some(name);
        request.until.is_empty() || request.until.iter().any(named)
    };
    let known = |name: &String| {
        let in_graph = session.world.graph.indices().map(|index| &session.world.graph[index].id);
        in_graph.chain(writing.checkpoint.tasks.keys()).any(|id| id.as_str() == name || id.phase() == Some(name))
    };
    let unknown: Vec<&String> = request.until.iter().filter(|name| !known(name)).collect();
    if !unknown.is_empty() {
        let told = unknown.iter().map(|name| format!("error: there is no task or phase `{name}`\n"));
        return Err(CliError::report(
            exit::USAGE,
            told.collect::<String>() + "hint: see which there are: taskrun list",
        ));
    }
    Ok(teardown(&session.world, &writing.checkpoint, &asked))
}

fn tell(session: &Session, doomed: &Teardown) {
    if doomed.order.is_empty() {
        return say("nothing to destroy");
    }
    say(format!("to be destroyed in {}, in this order:", session.identity.environment));
    for id in &doomed.order {
        let index = session.world.graph.find(id);
        let title = index.and_then(|index| session.world.graph[index].title.as_deref()).unwrap_or_default();
        let note = if doomed.orphans.contains(id) {
            "  (no longer in the graph)"
        } else if doomed.dragged.contains(id) {
            "  (depends on what you named)"
        } else {
            ""
        };
        say(format!("  {id}  {title}{note}").trim_end());
    }
}

/// Asks on the terminal; without one, `--yes` is needed.
fn confirm(yes: bool, question: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::usage("nobody can be asked here, and nothing was destroyed").with_hint("say --yes"));
    }
    say(format!("{question}? Type yes:"));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(CliError::usage("nothing was destroyed")),
    }
}

async fn take_away(
    session: &Session,
    global: &Global,
    writing: Writing,
    request: &Request,
    doomed: &Teardown,
) -> Result<u8, CliError> {
    if doomed.order.is_empty() {
        writing.notices.iter().for_each(say);
        return Ok(exit::OK);
    }
    let mut execution = Execution::begin(session, writing, global, Verb::Destroy, request)?;
    let task = |id: &TaskId| {
        let index = session.world.graph.find(id);
        let title = index.and_then(|index| session.world.graph[index].title.as_deref());
        let decision = Decision::new(Action::Run, Reason::Forced);
        let title = title.map(str::to_owned);
        PlannedTask { id: id.clone(), title, needs: Vec::new(), decision, expected_seconds: None }
    };
    let tasks = doomed.order.iter().map(task).collect();
    let environment = session.identity.environment.clone();
    execution.events.send(EventKind::RunStarted { verb: Verb::Destroy, environment, jobs: 1, tasks });
    let checkpoint = std::mem::take(&mut execution.checkpoint);
    let (world, append) = (Arc::clone(&session.world), execution.append());
    let (events, cancel) = (execution.events.clone(), execution.cancel.clone());
    let (checkpoint, summary) =
        crate::run::destroy(world, &session.registry, checkpoint, doomed, append, events, cancel).await;
    execution.checkpoint = checkpoint;
    execution.end(summary, false)
}

/// Removes the state folder itself.
fn purge(product: &dyn Product, session: &Session) -> Result<(), CliError> {
    say("removing journal, logs, secrets, and what was downloaded and built");
    product.purge(&session.state)?;
    std::fs::remove_dir_all(&session.state).map_err(|error| {
        CliError::caused(exit::STATE, format!("remove the state folder {}", session.state.display()), &error)
    })?;
    // The folder of all environments goes with the last one of them.
    if let Some(root) = session.state.parent() {
        let _ = std::fs::remove_dir(root);
    }
    say(format!("removed {}", session.state.display()));
    Ok(())
}
