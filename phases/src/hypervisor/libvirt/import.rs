//! Files that become volumes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use virt::error::Error;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::stream::Stream;

use super::{Libvirt, unless_absent, unreadable};
use crate::hypervisor::{HypervisorError, xml};

/// How much goes to libvirt at once, in bytes.
const PIECE: usize = 256 * 1024;

/// What went wrong on the way.
enum Broken {
    /// Libvirt refuses.
    Libvirt(Error),
    /// The file cannot be read.
    File(std::io::Error),
}

impl Libvirt {
    /// Makes a volume of a file. The daemon writes it, since only it may be allowed to.
    pub(super) fn upload(&self, pool: &str, name: &str, file: &Path) -> Result<(), HypervisorError> {
        let what = format!("make the volume {name} of {}", file.display());
        let session = self.session()?;
        let mut source = File::open(file).map_err(|error| HypervisorError::refused(what.clone(), error))?;
        let length = source.metadata().map_err(|error| HypervisorError::refused(what.clone(), error))?.len();
        let text = xml::storage::Volume::raw(name, length).to_xml().map_err(unreadable(what.clone()))?;
        let pool = |session: &super::Session| {
            let pool = StoragePool::lookup_by_name(&session.0, pool)?;
            pool.refresh(0)?;
            Ok(pool)
        };
        let mut make = || -> Result<(), Broken> {
            let pool = pool(&session).map_err(Broken::Libvirt)?;
            if let Some(there) = unless_absent(StorageVol::lookup_by_name(&pool, name)).map_err(Broken::Libvirt)? {
                unless_absent(there.delete(0)).map_err(Broken::Libvirt)?;
            }
            let volume = StorageVol::create_xml(&pool, &text, 0).map_err(Broken::Libvirt)?;
            let stream = Stream::new(&session.0, 0).map_err(Broken::Libvirt)?;
            volume.upload(&stream, 0, length, 0).map_err(Broken::Libvirt)?;
            match send(&mut source, &stream) {
                Ok(()) => stream.finish().map_err(Broken::Libvirt)?,
                Err(broken) => {
                    // What is there of it is not taken for the whole: the caller does not hear of a success.
                    let _ = stream.abort();
                    return Err(broken);
                }
            }
            // The format is that of the contents, which the pool looks at anew.
            pool.refresh(0).map(drop).map_err(Broken::Libvirt)
        };
        make().map_err(|broken| match broken {
            Broken::Libvirt(error) => session.refused(what, &error),
            Broken::File(error) => HypervisorError::refused(what, error),
        })
    }
}

fn send(source: &mut File, stream: &Stream) -> Result<(), Broken> {
    let mut piece = vec![0; PIECE];
    loop {
        let filled = source.read(&mut piece).map_err(Broken::File)?;
        if filled == 0 {
            return Ok(());
        }
        let mut left = &piece[..filled];
        while !left.is_empty() {
            let sent = stream.send(left).map_err(Broken::Libvirt)?;
            left = &left[sent.min(left.len())..];
        }
    }
}
