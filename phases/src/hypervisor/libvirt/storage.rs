//! Storage pools and volumes.

use std::path::PathBuf;

use virt::error::Error;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;

use super::{Libvirt, Session, is_other_state, unless_absent, unreadable};
use crate::hypervisor::spec::{PoolSpec, VolumeSpec};
use crate::hypervisor::{HypervisorError, PoolFacts, VolumeFacts, xml};

impl Libvirt {
    pub(super) fn pool_facts(&self, name: &str) -> Result<Option<PoolFacts>, HypervisorError> {
        let what = format!("look at the storage pool {name}");
        let session = self.session()?;
        let ask = || match find(&session, name)? {
            Some(pool) => {
                let active = pool.is_active()?;
                if active {
                    pool.refresh(0)?;
                }
                Ok(Some((pool.get_xml_desc(0)?, active, pool.get_info()?.available)))
            }
            None => Ok(None),
        };
        let found = ask().map_err(|error| session.refused(what.clone(), &error))?;
        let Some((text, active, available)) = found else { return Ok(None) };
        let folder = folder(&text).map_err(unreadable(what))?;
        Ok(Some(PoolFacts { name: name.to_owned(), folder, active, available }))
    }

    pub(super) fn set_pool(&self, spec: &PoolSpec) -> Result<(), HypervisorError> {
        let what = format!("define the storage pool {}", spec.name);
        let session = self.session()?;
        let refused = |error: Error| session.refused(what.clone(), &error);
        let there = find(&session, &spec.name).map_err(refused)?;
        let uuid = there.as_ref().map(StoragePool::get_uuid_string).transpose().map_err(refused)?;
        let wanted = xml::storage::Pool::of(spec, uuid);
        let define = || -> Result<StoragePool, HypervisorError> {
            let text = wanted.to_xml().map_err(unreadable(what.clone()))?;
            StoragePool::define_xml(&session.0, &text, 0).map_err(refused)
        };
        let pool = match there {
            Some(pool) => {
                let text = pool.get_xml_desc(0).map_err(refused)?;
                if folder(&text).map_err(unreadable(what.clone()))? == spec.folder {
                    pool
                } else {
                    // Domains name files, not pools: they go on meanwhile.
                    if pool.is_active().map_err(refused)? {
                        pool.destroy().map_err(refused)?;
                    }
                    define()?
                }
            }
            None => define()?,
        };
        let start = || {
            if !pool.get_autostart()? {
                pool.set_autostart(true)?;
            }
            if pool.is_active()? {
                return Ok(());
            }
            // A folder that is there keeps its mode.
            if !spec.folder.exists() {
                pool.build(0)?;
            }
            match pool.create(0) {
                Err(error) if is_other_state(&error) && pool.is_active()? => Ok(()),
                done => done.map(drop),
            }
        };
        start().map_err(refused)
    }

    pub(super) fn undefine_pool(&self, name: &str) -> Result<(), HypervisorError> {
        let session = self.session()?;
        let remove = |pool: &StoragePool| {
            if pool.is_active()? {
                match pool.destroy() {
                    Err(error) if !is_other_state(&error) => return Err(error),
                    _ => {}
                }
            }
            pool.undefine()
        };
        let done = find(&session, name).and_then(|pool| match pool {
            Some(pool) => unless_absent(remove(&pool)).map(drop),
            None => Ok(()),
        });
        done.map_err(|error| session.refused(format!("remove the storage pool {name}"), &error))
    }

    pub(super) fn volume_facts(&self, pool: &str) -> Result<Vec<VolumeFacts>, HypervisorError> {
        let what = format!("list the volumes of the storage pool {pool}");
        let session = self.session()?;
        let ask = || {
            let Some(pool) = find(&session, pool)? else { return Ok(Vec::new()) };
            if !pool.is_active()? {
                return Ok(Vec::new());
            }
            pool.refresh(0)?;
            let volumes = pool.list_all_volumes(0)?;
            volumes
                .iter()
                .filter_map(|volume| unless_absent(volume.get_xml_desc(0)).transpose())
                .collect::<Result<_, Error>>()
        };
        let texts: Vec<String> = ask().map_err(|error| session.refused(what.clone(), &error))?;
        texts.iter().map(|text| facts(text).map_err(unreadable(what.clone()))).collect()
    }

    pub(super) fn make_volume(&self, pool: &str, spec: &VolumeSpec) -> Result<(), HypervisorError> {
        let what = format!("make the volume {} in the storage pool {pool}", spec.name);
        let session = self.session()?;
        let text = xml::storage::Volume::of(spec).to_xml().map_err(unreadable(what.clone()))?;
        let make = || {
            let pool = StoragePool::lookup_by_name(&session.0, pool)?;
            pool.refresh(0)?;
            match unless_absent(StorageVol::lookup_by_name(&pool, &spec.name))? {
                Some(volume) if volume.get_info()?.capacity < spec.capacity => {
                    volume.resize(spec.capacity, 0).map(drop)
                }
                Some(_) => Ok(()),
                None => StorageVol::create_xml(&pool, &text, 0).map(drop),
            }
        };
        make().map_err(|error| session.refused(what, &error))
    }

    pub(super) fn delete_volume(&self, pool: &str, name: &str) -> Result<(), HypervisorError> {
        let session = self.session()?;
        let remove = || {
            let Some(pool) = find(&session, pool)? else { return Ok(()) };
            pool.refresh(0)?;
            match unless_absent(StorageVol::lookup_by_name(&pool, name))? {
                Some(volume) => unless_absent(volume.delete(0)).map(drop),
                None => Ok(()),
            }
        };
        let what = format!("remove the volume {name} of the storage pool {pool}");
        remove().map_err(|error| session.refused(what, &error))
    }
}

fn find(session: &Session, name: &str) -> Result<Option<StoragePool>, Error> {
    unless_absent(StoragePool::lookup_by_name(&session.0, name))
}

/// The folder of a pool; empty if it has none.
fn folder(text: &str) -> Result<PathBuf, xml::XmlError> {
    let pool: xml::storage::Pool = xml::read(text)?;
    Ok(pool.target.map(|target| target.path.into()).unwrap_or_default())
}

fn facts(text: &str) -> Result<VolumeFacts, xml::XmlError> {
    let volume: xml::storage::Volume = xml::read(text)?;
    Ok(VolumeFacts {
        name: volume.name,
        path: volume.target.path.unwrap_or_default().into(),
        capacity: volume.capacity.value,
        allocation: volume.allocation.map_or(0, |amount| amount.value),
        backing: volume.backing.and_then(|backing| backing.path).map(PathBuf::from),
    })
}
