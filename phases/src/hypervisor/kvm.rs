//! Whether KVM works, by a boot: `/dev/kvm` may be there and not run an ordinary kernel.
//!
//! That is so inside virtual machines whose own hypervisor passes on too little: the firmware runs, and the kernel stops
//! at the first instruction that nobody can do for it. So a kernel is booted, with nothing to mount, until it says that
//! it cannot go on; it then restarts, which ends QEMU. Where no kernel is to be had, the firmware's own run must do.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use taskrun_engine::context::View;
use taskrun_engine::outcome::Failure;
use taskrun_engine::process::{BootId, Command};

/// The program that is tested with.
pub const QEMU: &str = "qemu-system-x86_64";
/// How long a boot may take: with KVM about a second.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The file in the state folder that keeps the result, for as long as the machine is not booted again.
const RECORD: &str = "kvm-boot-test.json";

/// What is known of KVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kvm {
    /// It works: what was booted with it.
    Works(String),
    /// There is none, or not for us: why.
    Absent(String),
    /// It is there and does not work: what was booted with it, and what came of it.
    Broken(String),
}

/// Boots a kernel with KVM, at most once for each boot of the machine, version of QEMU, kernel and processor model.
///
/// `cpu_model` is that of the configuration. The kernel is `kernel` if that is given, else one of the host's own.
pub async fn kvm_works(view: &View, cpu_model: &str, kernel: Option<&Path>) -> Kvm {
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Kvm::Absent(match error.kind() {
            std::io::ErrorKind::PermissionDenied => "/dev/kvm is not for you: adduser \"$USER\" kvm".to_owned(),
            std::io::ErrorKind::NotFound => {
                "there is no /dev/kvm: switch virtualisation on in the firmware's settings, then modprobe kvm"
                    .to_owned()
            }
            _ => format!("/dev/kvm cannot be opened: {error}"),
        });
    }
    let version = match view.capture(Command::new(QEMU).arg("--version").timeout(TIMEOUT)).await {
        Ok(said) => said.lines().next().unwrap_or_default().to_owned(),
        Err(failure) => return Kvm::Absent(format!("{QEMU} does not run: {}", failure.message)),
    };
    let kernel = kernel.map(Path::to_owned).or_else(|| own_kernel(Path::new("/boot")));
    let circumstances = Circumstances::now(version, kernel.as_deref(), cpu_model);
    let record = view.state_dir().join(RECORD);
    if let Some(known) = Record::read(&record).filter(|known| known.circumstances == circumstances) {
        return known.result;
    }
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return Kvm::Broken(format!("it was not tested: make a temporary folder: {error}")),
    };
    let test = BootTest { accelerator: "kvm", cpu_model, kernel: kernel.as_deref(), log: folder.path().join("log") };
    let ended = view.command(test.command()).await.map(drop);
    if view.safe_point().is_err() {
        return Kvm::Broken("it was not tested: interrupted".to_owned());
    }
    let result = match test.judge(ended.map_err(|failure| what_qemu_said(&failure))) {
        Ok(what) => Kvm::Works(what),
        Err(why) => Kvm::Broken(why),
    };
    Record { circumstances, result: result.clone() }.write(&record);
    result
}

/// What a result depends on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Circumstances {
    boot: String,
    qemu: String,
    cpu_model: String,
    /// Its path, size in bytes and time of change, in seconds since 1970.
    kernel: Option<(PathBuf, u64, u64)>,
}

impl Circumstances {
    fn now(qemu: String, kernel: Option<&Path>, cpu_model: &str) -> Self {
        let kernel = kernel.map(|path| {
            let facts = fs::metadata(path).ok();
            let changed = facts.as_ref().and_then(|facts| facts.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            (path.to_owned(), facts.map_or(0, |facts| facts.len()), changed.map_or(0, |since| since.as_secs()))
        });
        let boot = BootId::current().map(|boot| boot.to_string()).unwrap_or_default();
        Self { boot, qemu, cpu_model: cpu_model.to_owned(), kernel }
    }
}

/// A result that is kept. Losing it costs another test, so errors of reading and writing are none.
#[derive(Serialize, Deserialize)]
struct Record {
    circumstances: Circumstances,
    result: Kvm,
}

impl Record {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path) {
        let Ok(text) = serde_json::to_vec(self) else { return };
        let new = path.with_extension("new");
        if fs::write(&new, text).is_ok() {
            let _ = fs::rename(&new, path);
        }
    }
}

/// A boot that must come to its end.
struct BootTest<'a> {
    accelerator: &'a str,
    cpu_model: &'a str,
    kernel: Option<&'a Path>,
    /// What the kernel or the firmware says.
    log: PathBuf,
}

impl BootTest<'_> {
    fn command(&self) -> Command {
        let cpu = match self.cpu_model {
            "host-passthrough" | "host-model" => "host",
            "maximum" => "max",
            name => name,
        };
        let log = self.log.display();
        let command = Command::new(QEMU)
            .args(["-machine", "q35", "-accel", self.accelerator, "-cpu", cpu, "-m", "256"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .env("LC_ALL", "C.UTF-8")
            .timeout(TIMEOUT)
            .grace(Duration::from_secs(2));
        match self.kernel {
            Some(kernel) => command
                .args(["-append", "console=ttyS0 panic=-1"])
                .args(["-serial".to_owned(), format!("file:{log}")])
                .arg("-kernel")
                .arg(kernel),
            None => command
                .args(["-boot", "reboot-timeout=0", "-device", "isa-debugcon,iobase=0x402,chardev=log"])
                .args(["-chardev".to_owned(), format!("file,id=log,path={log}")]),
        }
    }

    /// What was booted, or why that shows that it does not work; `ended` is what QEMU said if it ended badly.
    fn judge(&self, ended: Result<(), String>) -> Result<String, String> {
        let (what, ends) = match self.kernel {
            Some(kernel) => (kernel.display().to_string(), ["Unable to mount root fs", "No working init found"]),
            None => ("the firmware alone, since there is no kernel in /boot".to_owned(), ["hard reboot"; 2]),
        };
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let came_far = ends.iter().any(|end| log.contains(end));
        match ended {
            Ok(()) if came_far => Ok(what),
            _ => {
                let last = log.lines().map(str::trim).rfind(|line| !line.is_empty());
                let last = last.map_or("nothing was said".to_owned(), |line| format!("the last words were `{line}`"));
                let ended = ended.err().unwrap_or_else(|| "QEMU ended before that was through".to_owned());
                Err(format!("boot {what}: {ended}; {last}"))
            }
        }
    }
}

/// What QEMU said of a boot that did not end well.
fn what_qemu_said(failure: &Failure) -> String {
    let Some(command) = &failure.command else { return failure.message.clone() };
    match command.tail.lines().find(|line| line.contains("rror") || line.contains("failed")) {
        Some(line) => format!("QEMU {}: {}", command.ended, line.trim()),
        None => format!("QEMU {}", command.ended),
    }
}

/// The newest kernel of a folder that can be read.
fn own_kernel(boot: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(boot).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_kernel = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
            && fs::File::open(path).is_ok()
    };
    files.filter(is_kernel).max_by_key(|path| fs::metadata(path).and_then(|facts| facts.modified()).ok())
}

#[cfg(test)]
mod tests {
    use taskrun_engine::process::{Cancel, Discard};

    use super::*;

    fn test(kernel: Option<&'static Path>, log: PathBuf) -> BootTest<'static> {
        BootTest { accelerator: "kvm", cpu_model: "host-passthrough", kernel, log }
    }

    #[test]
    fn the_newest_readable_kernel_is_taken() {
        let boot = tempfile::tempdir().unwrap();
        assert_eq!(own_kernel(boot.path()), None);
        for name in ["vmlinuz-6.1", "initrd.img-6.12", "config-6.12"] {
            fs::write(boot.path().join(name), "").unwrap();
        }
        assert_eq!(own_kernel(boot.path()), Some(boot.path().join("vmlinuz-6.1")));
    }

    #[test]
    fn a_kernel_must_come_to_where_it_mounts_and_qemu_must_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let test = test(Some(Path::new("/boot/vmlinuz-6.12")), log.clone());
        fs::write(&log, "Linux version 6.12\nKernel panic - not syncing: VFS: Unable to mount root fs on 0,0\n")
            .unwrap();
        assert_eq!(test.judge(Ok(())), Ok("/boot/vmlinuz-6.12".to_owned()));
        fs::write(&log, "Probing EDD (edd=off to disable)... ok\n\n").unwrap();
        assert_eq!(
            test.judge(Err("QEMU timed out after 20s: KVM internal error. Suberror: 1".to_owned())),
            Err("boot /boot/vmlinuz-6.12: QEMU timed out after 20s: KVM internal error. Suberror: 1; the last words \
                 were `Probing EDD (edd=off to disable)... ok`"
                .to_owned())
        );
        fs::remove_file(&log).unwrap();
        let early = test.judge(Ok(())).unwrap_err();
        assert!(early.contains("ended before") && early.contains("nothing was said"), "{early}");
    }

    #[test]
    #[ignore = "needs QEMU: make e2e"]
    fn the_firmware_comes_to_its_end_under_emulation_too() {
        let folder = tempfile::tempdir().unwrap();
        let test = BootTest { accelerator: "tcg", cpu_model: "maximum", ..test(None, folder.path().join("log")) };
        test.command().run(&Cancel::new(), &mut Discard).unwrap().check(&test.command()).unwrap();
        assert!(test.judge(Ok(())).unwrap().starts_with("the firmware alone"));
    }

    #[test]
    fn a_result_is_read_back_and_another_boot_is_another_result() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RECORD);
        let now = || Circumstances::now("QEMU 7.2".to_owned(), None, "host-passthrough");
        Record { circumstances: now(), result: Kvm::Broken("it hangs".to_owned()) }.write(&path);
        let read = Record::read(&path).unwrap();
        assert_eq!((&read.circumstances, read.result), (&now(), Kvm::Broken("it hangs".to_owned())));
        assert_ne!(read.circumstances, Circumstances { boot: "another".to_owned(), ..now() });
    }
}
