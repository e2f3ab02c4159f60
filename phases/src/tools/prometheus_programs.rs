//! The programs of Prometheus: installed ones, or else ones from the distribution's packages, and Alertmanager built.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use taskrun_engine::context::Context;
use taskrun_engine::outcome::Failure;

use super::go_build::Module;
use super::{debian, files, go_build};
use crate::outputs::MonitoringPrograms;
use crate::phase0::find_program;

/// A program by its own name and by Debian's, and where it comes from if it is not installed.
#[derive(Clone, Copy)]
struct Wanted {
    names: &'static [&'static str],
    origin: Origin,
}

/// Where a program comes from.
#[derive(Clone, Copy)]
enum Origin {
    /// This package of the distribution.
    Package(&'static str),
    /// This Go module.
    Module(&'static Module),
}

const fn packaged(names: &'static [&'static str], package: &'static str) -> Wanted {
    Wanted { names, origin: Origin::Package(package) }
}

const fn built(names: &'static [&'static str]) -> Wanted {
    Wanted { names, origin: Origin::Module(&go_build::ALERTMANAGER) }
}

const PROMETHEUS: Wanted = packaged(&["prometheus"], "prometheus");
const PROMTOOL: Wanted = packaged(&["promtool"], "prometheus");
const NODE_EXPORTER: Wanted = packaged(&["node_exporter", "prometheus-node-exporter"], "prometheus-node-exporter");
const POSTGRES_EXPORTER: Wanted =
    packaged(&["postgres_exporter", "prometheus-postgres-exporter"], "prometheus-postgres-exporter");
const ALERTMANAGER: Wanted = built(&["alertmanager", "prometheus-alertmanager"]);
const AMTOOL: Wanted = built(&["amtool"]);

/// Programs that Debian 13 has in packages of their own.
const PARTS: [&str; 1] = ["promtool"];

/// What Debian's Prometheus shows to a browser, in its package.
const WEB_ASSETS: &str = "usr/share/prometheus/web";

/// The sources of the time zones that those pages have compiled in: 210 MB that nothing reads.
const UNUSED: &str = "usr/share/javascript/moment-timezone/data";

/// What is neither in the folder `given` nor on PATH: packages, and whether a module is to be built.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The distribution's packages.
    pub packages: BTreeSet<&'static str>,
    /// Alertmanager.
    pub alertmanager: bool,
}

/// What is missing.
pub fn missing(given: Option<&Path>) -> Missing {
    let mut missing = Missing::default();
    for wanted in [PROMETHEUS, PROMTOOL, ALERTMANAGER, AMTOOL, NODE_EXPORTER, POSTGRES_EXPORTER] {
        match (wanted.installed(given), wanted.origin) {
            (Some(_), _) => {}
            (None, Origin::Package(package)) => drop(missing.packages.insert(package)),
            (None, Origin::Module(_)) => missing.alertmanager = true,
        }
    }
    missing
}

/// The programs; the packages of missing ones are unpacked into `target`.
///
/// # Errors
/// A package cannot be fetched, or lacks its program; Alertmanager cannot be built.
pub async fn ensure(context: &Context, given: Option<&Path>, target: &Path) -> Result<MonitoringPrograms, Failure> {
    let missing = missing(given);
    let packages: Vec<&str> = missing.packages.into_iter().collect();
    if !packages.is_empty() {
        let there = |wanted: &Wanted| wanted.installed(given).is_some() || wanted.fetched(target).is_ok();
        let unpacked = |(): &()| [PROMETHEUS, PROMTOOL, NODE_EXPORTER, POSTGRES_EXPORTER].iter().all(there);
        let unpack = async {
            debian::unpack_packages(context, &packages, &PARTS, target).await?;
            files::remove(&target.join(UNUSED))
        };
        context.step_checked("unpack Prometheus", unpacked, unpack).await?;
    }
    if missing.alertmanager {
        let module = &go_build::ALERTMANAGER;
        let there = |version: &String| version == module.version && AMTOOL.fetched(target).is_ok();
        let build = async {
            go_build::install(context, module, &target.join("usr/bin")).await?;
            Ok(module.version.to_owned())
        };
        context.step_checked("build Alertmanager", there, build).await?;
    }
    let find = |wanted: Wanted| wanted.installed(given).map_or_else(|| wanted.fetched(target), Ok);
    let prometheus = find(PROMETHEUS)?;
    let web_assets = prometheus.starts_with(target).then(|| target.join(WEB_ASSETS)).filter(|folder| folder.is_dir());
    Ok(MonitoringPrograms {
        prometheus,
        promtool: find(PROMTOOL)?,
        alertmanager: find(ALERTMANAGER)?,
        amtool: find(AMTOOL)?,
        node_exporter: find(NODE_EXPORTER)?,
        postgres_exporter: find(POSTGRES_EXPORTER)?,
        web_assets,
    })
}

impl Wanted {
    fn installed(&self, given: Option<&Path>) -> Option<PathBuf> {
        let in_given = given.and_then(|folder| self.inside(folder));
        in_given.or_else(|| self.names.iter().find_map(|name| find_program(name)))
    }

    fn fetched(&self, target: &Path) -> Result<PathBuf, Failure> {
        let origin = match self.origin {
            Origin::Package(package) => format!("package {package}"),
            Origin::Module(module) => format!("module {}", module.path),
        };
        self.inside(&target.join("usr/bin"))
            .ok_or_else(|| Failure::permanent(format!("find {} in the {origin}", self.names[0])))
    }

    fn inside(&self, folder: &Path) -> Option<PathBuf> {
        self.names.iter().map(|name| folder.join(name)).find(|file| file.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_their_own_names_and_by_those_of_debian() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["promtool", "prometheus-node-exporter"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(PROMTOOL.inside(folder.path()), Some(folder.path().join("promtool")));
        assert_eq!(NODE_EXPORTER.inside(folder.path()), Some(folder.path().join("prometheus-node-exporter")));
        assert_eq!(AMTOOL.inside(folder.path()), None);
        let told = NODE_EXPORTER.fetched(Path::new("/nowhere")).unwrap_err().to_string();
        assert_eq!(told, "find node_exporter in the package prometheus-node-exporter");
    }
}
