//! What a first run takes of the network and the disk.

use std::fmt;
use std::path::Path;

use crate::TaskId;
use crate::checkpoint::Checkpoint;
use crate::plan::{Action, Plan};
use crate::task::{Footprint, Problem};
use crate::world::World;

/// What the tasks of a plan that were never done will take, those that take something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprints(Vec<(TaskId, Footprint)>);

impl Footprints {
    /// Those of a plan.
    pub fn of(world: &World, checkpoint: &Checkpoint, plan: &Plan) -> Self {
        let first = plan.iter().filter_map(|(index, decision)| {
            let id = &world.graph[index].id;
            let to_run = matches!(decision.action, Action::Run | Action::DecideAfter);
            let done = checkpoint.tasks.get(id).is_some_and(|state| state.done.is_some());
            let footprint = world.bound.node(index).task.as_ref().filter(|_| to_run && !done)?.footprint();
            (footprint != Footprint::default()).then(|| (id.clone(), footprint))
        });
        let mut first: Vec<(TaskId, Footprint)> = first.collect();
        first.sort();
        Self(first)
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn total(&self) -> Footprint {
        let sum = |part: fn(&Footprint) -> u64| self.0.iter().map(|(_, footprint)| part(footprint)).sum();
        Footprint {
            download_mib: sum(|footprint| footprint.download_mib),
            disk_mib: sum(|footprint| footprint.disk_mib),
        }
    }

    /// What is wrong if `folder` has less room than the tasks will take; blamed on the one that takes most.
    pub(super) fn too_large_for(&self, folder: &Path) -> Option<(TaskId, Problem)> {
        let there = folder.ancestors().find(|folder| folder.exists())?;
        let disk = rustix::fs::statvfs(there).ok()?;
        let free_mib = disk.f_bavail * disk.f_frsize / (1 << 20);
        let (largest, _) = self.0.iter().max_by_key(|(_, footprint)| footprint.disk_mib)?;
        let needed_mib = self.total().disk_mib;
        (free_mib < needed_mib).then(|| {
            let message = format!("{} has {}, {self}", there.display(), Size(free_mib));
            let hint = "make room, put the state elsewhere by --state-dir DIR, or run less by --until ID";
            (largest.clone(), Problem::new(message, hint))
        })
    }
}

impl fmt::Display for Footprints {
    /// `the first run downloads 1.2 GiB and takes 3.4 GiB of disk: CLOUD-1.1 0.2 + 0.9 GiB, …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Footprint { download_mib, disk_mib } = self.total();
        write!(f, "the first run downloads about {} and takes about {} of disk: ", Size(download_mib), Size(disk_mib))?;
        for (at, (id, footprint)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{id} {} to {}", Size(footprint.download_mib), Size(footprint.disk_mib))?;
        }
        Ok(())
    }
}

/// A size in MiB, as one would say it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            mib @ ..1000 => write!(f, "{mib} MiB"),
            mib => write!(f, "{:.1} GiB", mib as f64 / 1024.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprints() -> Footprints {
        let of = |id: &str, download_mib, disk_mib| (id.parse().unwrap(), Footprint { download_mib, disk_mib });
        Footprints(vec![of("CLOUD-1.1", 300, 900), of("big", 3000, u64::MAX >> 24)])
    }

    #[test]
    fn it_is_told_by_task() {
        let told = Footprints(footprints().0[..1].to_vec()).to_string();
        assert_eq!(
            told,
            "the first run downloads about 300 MiB and takes about 900 MiB of disk: CLOUD-1.1 300 MiB to 900 MiB"
        );
    }

    #[test]
    fn a_disk_that_is_too_small_is_blamed_on_the_largest() {
        let (task, problem) = footprints().too_large_for(Path::new("/nonexistent/folder")).unwrap();
        assert_eq!(task.as_str(), "big");
        assert!(problem.message.starts_with("/ has ") && problem.message.contains("takes about"), "{problem:?}");
        assert_eq!(Footprints::default().too_large_for(Path::new("/")), None);
    }
}
