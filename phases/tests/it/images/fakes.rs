//! Executables in place of Packer, QEMU and ssh, for tests that boot nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::Stand;

/// Told by each machine that is asked what is in it; `ID` is who it is.
const DESCRIPTION: &str = "os Debian GNU/Linux 13 (trixie)
kernel 6.12.57+deb13-amd64
running 6.12.57+deb13-amd64
cloud-init done
machine-id ID
host-key SHA256:ID
unit NetworkManager enabled
unit systemd-resolved enabled
unit ssh enabled
unit prometheus-node-exporter disabled
unit systemd-networkd disabled
used-kib 900000
package cloud-guest-utils 1
package cloud-init 1
package curl 1
package htop 1
package network-manager 1
package openssh-server 1
package prometheus-node-exporter 1
package python3 1
package qemu-guest-agent 1
package sudo 1
package systemd-resolved 1
package vim 1
package wget 1
package ca-certificates 1
";

/// Makes what it is asked to; the folder of the template is the last argument.
const PACKER: &str = r#"
for last; do :; done
work=${last%/*}
case $1 in
  version) echo 'Packer v1.6.6' ;;
  validate) [ -s "$last/image.pkr.hcl" ] ;;
  build)
    echo build >>"$FAKES/builds"
    if [ -e "$FAKES/BUILD_FAILS" ]; then
      echo 'Kernel panic - not syncing' >"$work/console.log"
      echo "Build 'qemu.image' errored: Timeout waiting for SSH."
      exit 1
    fi
    mkdir "$work/packed"
    echo image >"$work/packed/cloud-base.qcow2"
    [ ! -e "$FAKES/BUILD_HANGS" ] || sleep 600
    cat "$FAKES/description" >"$work/report"
    ;;
esac
"#;

const QEMU: &str = r#"
[ "$1" != --version ] || { echo 'QEMU emulator version 7.2.22'; exit; }
while [ $# -gt 0 ]; do [ "$1" != -pidfile ] || pid=$2; shift; done
echo $$ >"$pid"
exec sleep 600
"#;

const QEMU_IMG: &str = r#"
case $1 in
  info) echo '{"virtual-size": 10737418240}' ;;
  create) for last; do :; done; echo overlay >"$last" ;;
esac
"#;

const SSH: &str = r#"
script=$(cat)
case $script in
  *os-release*)
    id=$(printf '%032d' $$)
    [ ! -e "$FAKES/CLONES_ARE_ALIKE" ] || id=00000000000000000000000000000000
    sed "s/ID/$id/" "$FAKES/description"
    ;;
  *) echo 'status: done' ;;
esac
"#;

const XORRISO: &str = r#"
while [ $# -gt 0 ]; do [ "$1" != -output ] || iso=$2; shift; done
echo seed >"$iso"
"#;

/// What the fakes and the program need besides.
const REAL: [&str; 7] = ["sh", "cat", "sed", "mkdir", "sleep", "ssh-keygen", "sha256sum"];

/// A folder of executables, which is all that is on PATH.
pub(super) struct Fakes {
    folder: tempfile::TempDir,
}

impl Fakes {
    pub(super) fn new() -> Self {
        Self::without(&[])
    }

    /// All but those called so.
    pub(super) fn without(missing: &[&str]) -> Self {
        let fakes = Self { folder: tempfile::tempdir().unwrap() };
        let scripts = [
            ("packer", PACKER),
            ("qemu-system-x86_64", QEMU),
            ("qemu-img", QEMU_IMG),
            ("ssh", SSH),
            ("xorriso", XORRISO),
        ];
        for (name, script) in scripts.into_iter().filter(|(name, _)| !missing.contains(name)) {
            let file = fakes.path().join(name);
            fs::write(&file, format!("#!/bin/sh\nset -e\n{script}")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in REAL {
            symlink(real(name), fakes.path().join(name)).unwrap();
        }
        fs::write(fakes.path().join("description"), DESCRIPTION).unwrap();
        fakes
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lets the fakes do something else.
    pub(super) fn set(&self, what: &str) {
        fs::write(self.path().join(what), "").unwrap();
    }

    /// Undoes [`set`](Self::set).
    pub(super) fn unset(&self, what: &str) {
        fs::remove_file(self.path().join(what)).unwrap();
    }

    /// How often Packer was asked to build.
    pub(super) fn builds(&self) -> usize {
        fs::read_to_string(self.path().join("builds")).unwrap_or_default().lines().count()
    }

    /// The program, with nothing but the fakes on PATH.
    pub(super) fn command(&self, stand: &Stand, args: &[&str]) -> Command {
        let mut command = stand.command(&[&["--config", "c.yaml"], args].concat());
        command.env("PATH", self.path()).env("FAKES", self.path());
        command
    }
}

fn real(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap()
}
