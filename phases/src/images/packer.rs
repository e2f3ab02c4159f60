//! Packer: a thin client. The template is one for all versions; from 1.7 on the builder is a plugin, which another file
//! asks for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::Command;

use super::QEMU;
use super::accelerator::Accelerator;
use crate::phase0::find_program;
use crate::tools::files;
use crate::tools::python::transient;
use crate::tools::ssh;

/// The template.
pub const TEMPLATE: (&str, &str) = ("image.pkr.hcl", include_str!("../../assets/images/image.pkr.hcl"));
/// What asks for the plugin.
pub const PLUGINS: (&str, &str) = ("plugins.pkr.hcl", include_str!("../../assets/images/plugins.pkr.hcl"));

/// The first version without builders of its own.
const WITH_PLUGINS: (u32, u32) = (1, 7);
/// The first version that reads the template.
const OLDEST: (u32, u32) = (1, 6);

/// How long looking at a template may take.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long fetching a plugin may take.
const INIT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long it may take to stop the machine and to remove what is half made.
const GRACE: Duration = Duration::from_secs(30);

/// What the template is given.
#[derive(Debug, Clone, Serialize)]
pub struct Variables {
    /// The disk image to boot.
    pub source: PathBuf,
    /// The folder that the result goes into; it does not exist.
    pub output: PathBuf,
    /// The name of the result in it.
    pub name: String,
    /// The size of the disk: `10240M`.
    pub disk_size: String,
    /// The seed of the machine.
    pub seed: PathBuf,
    /// Who logs in; the user is removed in the end.
    pub user: String,
    /// The private key that opens the machine.
    pub key: PathBuf,
    /// The folder of scripts.
    pub scripts: PathBuf,
    /// The scripts to run, in order.
    pub install: Vec<String>,
    /// What they get by environment: `NAME=VALUE`.
    pub environment: Vec<String>,
    /// The file that the description of the image goes into.
    pub report: PathBuf,
    /// The file that the serial console is written to.
    pub console: PathBuf,
    /// QEMU's program.
    pub qemu: String,
    /// How it runs the machine.
    pub accelerator: Accelerator,
    /// The model of its processors.
    pub cpu: String,
    /// How many it has.
    pub cpus: u32,
    /// Its memory, in MiB.
    pub memory: u32,
    /// How long it may take until it answers by SSH: `20m`.
    pub boot_timeout: String,
    /// Whether there is no window.
    pub headless: bool,
}

impl Variables {
    /// Those of a build that is never made, with files of its own in `folder`.
    ///
    /// # Errors
    /// The disk refuses, or ssh-keygen is not there.
    pub async fn for_validation(
        view: &View,
        folder: &Path,
        image: &Path,
        accelerator: Accelerator,
    ) -> Result<Self, Failure> {
        let (key, _) = ssh::ensure_key(view, folder).await?;
        let scripts = folder.join("scripts");
        std::fs::create_dir_all(&scripts).map_err(|error| files::failure("make", &scripts, &error))?;
        files::public_file(&folder.join("seed.iso"), "")?;
        Ok(Self::of(folder, image, key, accelerator))
    }

    /// Those for files in `folder` with their usual names.
    pub fn of(folder: &Path, source: &Path, key: PathBuf, accelerator: Accelerator) -> Self {
        Self {
            source: source.to_owned(),
            output: folder.join("packed"),
            name: "image.qcow2".to_owned(),
            disk_size: "10240M".to_owned(),
            seed: folder.join("seed.iso"),
            user: "build".to_owned(),
            key,
            scripts: folder.join("scripts"),
            install: Vec::new(),
            environment: Vec::new(),
            report: folder.join("report"),
            console: folder.join("console.log"),
            qemu: QEMU.to_owned(),
            accelerator,
            cpu: accelerator.cpu().to_owned(),
            cpus: 2,
            memory: 2048,
            boot_timeout: "20m".to_owned(),
            headless: true,
        }
    }
}

/// An installed Packer.
#[derive(Debug, Clone)]
pub struct Packer {
    program: PathBuf,
    /// Its version: `1.6.6`.
    pub version: String,
}

impl Packer {
    /// The one on PATH.
    ///
    /// # Errors
    /// There is none, or it is too old.
    pub async fn find(view: &View) -> Result<Self, Failure> {
        let program = find_program("packer").ok_or_else(|| {
            Failure::permanent("find `packer` on PATH")
                .with_hint("apt-get install packer, or see developer.hashicorp.com/packer")
        })?;
        let told = view.capture(quiet(Command::new(&program).arg("version")).timeout(TIMEOUT)).await?;
        let version = version_in(&told)
            .ok_or_else(|| Failure::permanent(format!("understand the version of Packer: `{}`", told.trim())))?;
        if numbers(&version) < Some(OLDEST) {
            return Err(Failure::permanent(format!("use Packer {version}: it is too old"))
                .with_hint(format!("install Packer {}.{} or newer", OLDEST.0, OLDEST.1)));
        }
        Ok(Self { program, version })
    }

    /// The files of the template for this version.
    pub fn template(&self) -> Vec<(&'static str, &'static str)> {
        template_for(&self.version)
    }

    /// Writes the template and its variables into `folder`, and fetches the plugin if there is to be one.
    ///
    /// # Errors
    /// The disk refuses, or the plugin is neither here nor can be fetched.
    pub async fn prepare(&self, view: &View, folder: &Path, variables: &Variables) -> Result<(), Failure> {
        files::remove(folder)?;
        std::fs::create_dir_all(folder).map_err(|error| files::failure("make", folder, &error))?;
        for (name, text) in self.template() {
            files::public_file(&folder.join(name), text)?;
        }
        let variables = serde_json::to_string_pretty(variables).expect("variables are plain");
        files::public_file(&folder.join(VARIABLES), &variables)?;
        if self.template().len() > 1 {
            let init = self.command(folder, "init").arg(folder).timeout(INIT_TIMEOUT);
            view.command(init).await.map_err(|failure| {
                transient(failure).with_hint("install the plugin: packer plugins install github.com/hashicorp/qemu")
            })?;
        }
        Ok(())
    }

    /// Checks the prepared template.
    ///
    /// # Errors
    /// Packer finds a fault in it.
    pub async fn validate(&self, view: &View, folder: &Path) -> Result<(), Failure> {
        let validate = self.command(folder, "validate").arg(var_file(folder)).arg(folder).timeout(TIMEOUT);
        view.command(validate).await.map(drop)
    }

    /// Builds what was prepared.
    ///
    /// # Errors
    /// It failed, or took longer than `timeout`. What is half made is in the folder `output` of the variables, if Packer
    /// could not remove it.
    pub async fn build(&self, view: &View, folder: &Path, timeout: Duration) -> Result<(), Failure> {
        let build = self.command(folder, "build").args(["-color=false", "-on-error=cleanup"]).arg(var_file(folder));
        view.command(build.arg(folder).timeout(timeout).grace(GRACE)).await.map(drop)
    }

    fn command(&self, folder: &Path, verb: &str) -> Command {
        quiet(Command::new(&self.program).arg(verb))
            .env("PACKER_CACHE_DIR", folder.join("cache"))
            .env("PACKER_LOG", "1")
            .env("PACKER_LOG_PATH", folder.join("packer.log"))
            .env("TMPDIR", folder)
    }
}

const VARIABLES: &str = "variables.pkrvars.json";

fn var_file(folder: &Path) -> String {
    format!("-var-file={}", folder.join(VARIABLES).display())
}

/// Packer asks its makers for news of itself unless it is told not to.
fn quiet(command: Command) -> Command {
    command.env("CHECKPOINT_DISABLE", "1").env("PACKER_NO_COLOR", "1")
}

fn template_for(version: &str) -> Vec<(&'static str, &'static str)> {
    match numbers(version) >= Some(WITH_PLUGINS) {
        true => vec![TEMPLATE, PLUGINS],
        false => vec![TEMPLATE],
    }
}

/// The version in what `packer version` says: `Packer v1.6.6`, maybe with news behind it.
fn version_in(told: &str) -> Option<String> {
    let version = told.lines().next()?.trim().strip_prefix("Packer v")?;
    numbers(version)?;
    Some(version.to_owned())
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use taskrun_engine::process::Cancel;

    use super::*;

    #[test]
    fn the_version_decides_on_the_template() {
        let names = |version: &str| template_for(version).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("1.6.6"), ["image.pkr.hcl"]);
        for version in ["1.7.0", "1.11.2", "1.14.0-dev", "2.0.0"] {
            assert_eq!(names(version), ["image.pkr.hcl", "plugins.pkr.hcl"], "{version}");
        }
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version_in("Packer v1.6.6\n").as_deref(), Some("1.6.6"));
        let news = "Packer v1.11.2\n\nYour version of Packer is out of date!\n";
        assert_eq!(version_in(news).as_deref(), Some("1.11.2"));
        assert_eq!(version_in("something else"), None);
        assert!(numbers("1.5.9") < Some(OLDEST) && numbers("1.10.0") > Some(WITH_PLUGINS));
    }

    #[test]
    fn an_installed_packer_takes_the_template() {
        let Some(program) = find_program("packer") else { return };
        let told = Command::new(&program).arg("version").read(&Cancel::new(), &mut taskrun_engine::process::Discard);
        let version = version_in(&String::from_utf8(told.unwrap().1).unwrap()).unwrap();
        // What is a plugin of its own may not be installed.
        if template_for(&version).len() > 1 {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["source", "seed.iso", "key"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::fs::create_dir(at("scripts")).unwrap();
        std::fs::create_dir(at("template")).unwrap();
        std::fs::write(at("template").join(TEMPLATE.0), TEMPLATE.1).unwrap();
        let variables = Variables::of(folder.path(), &at("source"), at("key"), Accelerator::Tcg);
        let install = vec!["install.sh".to_owned()];
        let variables = Variables { install, environment: vec!["PACKAGES=a b".to_owned()], ..variables };
        std::fs::write(at("template").join(VARIABLES), serde_json::to_string(&variables).unwrap()).unwrap();
        let packer = Packer { program, version };
        let validate = packer.command(&at("template"), "validate").arg(var_file(&at("template"))).arg(at("template"));
        let mut said = Vec::new();
        validate.run(&Cancel::new(), &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        // The key is no key, and nothing else is wrong.
        assert!(said.contains("ssh_private_key_file is invalid") && said.matches("* ").count() == 1, "{said}");
    }
}
