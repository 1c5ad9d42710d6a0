//! The birth of a process in its namespaces and control groups.
//!
//! It is born in its v2 group where the kernel lets it, else it is given doors: files by which it
//! puts itself into its groups before it does anything else. Where namespaces are to be joined, a
//! helper joins them and bears it, as a child of ours.

use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::hooks::Output;
use crate::init::{Gate, Init};
use crate::log::Log;
use crate::namespaces;
use crate::plan::Plan;
use crate::plan::namespaces::{Kind, Namespaces};
use crate::procfs::Proc;
use crate::rootfs::Opened;
use crate::sync::{Child, FromChild};
use crate::sys::process::{self, Fork};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

/// What [`bear`] made.
pub enum Born {
    /// The container's first process.
    Child(i32, OwnedFd),
    /// A helper, which makes it and tells.
    Helper(i32),
}

/// What the first process is given on its way.
pub struct Birth<'a> {
    /// What it is to become.
    pub plan: &'a Plan,
    /// Its groups.
    pub cgroup: &'a Cgroup,
    /// Where it waits for its start.
    pub gate: Gate,
    /// The container's name.
    pub id: &'a str,
    /// Where the output of hooks goes.
    pub output: &'a Output,
    /// The child takes it out of its own copy of our memory.
    pub proc: &'a mut Option<Proc>,
    /// The root file system and the sources of its mounts, where the child might not find them.
    pub opened: Option<Opened>,
}

impl<'a> Birth<'a> {
    fn init(self, doors: Vec<OwnedFd>, sync: Child) -> Init<'a> {
        let Self { plan, cgroup, gate, id, output, proc, opened } = self;
        Init { id, plan, cgroup, doors, sync, gate, output, proc: proc.take(), opened }
    }

    /// In the parent, which opens nothing more.
    fn give_room_back(&self) -> Result<()> {
        self.opened.as_ref().map_or(Ok(()), Opened::give_room_back)
    }
}

/// Makes the first process, or a helper that does where namespaces are to be joined first.
pub fn bear(birth: Birth<'_>, joined: &[(Kind, OwnedFd)], sync: Child, log: &Log) -> Result<Born> {
    assert_single_thread()?;
    let (plan, cgroup) = (birth.plan, birth.cgroup);
    let doors = cgroup.doors()?;
    let flags = namespaces::clone_flags(&plan.namespaces);
    let helper = namespaces::need_helper(&plan.namespaces);
    if !helper {
        return match clone_into(flags, cgroup, doors, Some(log))? {
            (Fork::Parent(pid, pidfd), _) => {
                birth.give_room_back()?;
                Ok(Born::Child(pid, pidfd))
            }
            (Fork::Child, doors) => birth.init(doors, sync).main(),
        };
    }
    match process::clone(0, None)? {
        Fork::Parent(helper, _) => {
            birth.give_room_back()?;
            Ok(Born::Helper(helper))
        }
        Fork::Child => {
            let flags = flags | libc::CLONE_PARENT as u64;
            let born = early_door(&plan.namespaces, cgroup).and_then(|door| {
                enter(&plan.namespaces, joined, birth.proc.as_ref())?;
                match door {
                    None => clone_into(flags, cgroup, doors, None),
                    Some(door) => {
                        let doors = doors.into_iter().chain([door]).collect();
                        Ok((process::clone(flags, None)?, doors))
                    }
                }
            });
            match born {
                Ok((Fork::Child, doors)) => birth.init(doors, sync).main(),
                Ok((Fork::Parent(pid, pidfd), _)) => {
                    let told = sync.say(&FromChild::Made(pid), Some(pidfd.as_fd()));
                    process::exit(i32::from(told.is_err()))
                }
                Err(error) => {
                    drop(sync.say(&FromChild::Failed(error), None));
                    process::exit(1)
                }
            }
        }
    }
}

/// From inside another container's cgroup namespace nobody gets into a group outside of it
/// (cgroups(7), nsdelegate), except by a door that was opened before.
fn early_door(namespaces: &Namespaces, cgroup: &Cgroup) -> Result<Option<OwnedFd>> {
    match namespaces.joins(Kind::Cgroup) {
        true => cgroup.unified_door(),
        false => Ok(None),
    }
}

fn enter(namespaces: &Namespaces, opened: &[(Kind, OwnedFd)], proc: Option<&Proc>) -> Result<()> {
    namespaces::join(opened)?;
    namespaces::make_time(namespaces, proc)
}

/// clone3(2) into the v2 group, or beside it with a door more where the kernel does not allow it.
pub fn clone_into(
    flags: u64,
    cgroup: &Cgroup,
    mut doors: Vec<OwnedFd>,
    log: Option<&Log>,
) -> Result<(Fork, Vec<OwnedFd>)> {
    let Some(place) = cgroup.birthplace() else { return Ok((process::clone(flags, None)?, doors)) };
    match process::clone(flags, Some(place)) {
        Ok(fork) => Ok((fork, doors)),
        Err(refused) => {
            if let Some(log) = log {
                log.debug(&format!("the child enters its cgroup after its birth: {refused}"));
            }
            doors.extend(cgroup.unified_door()?);
            Ok((process::clone(flags, None)?, doors))
        }
    }
}

/// fork(2) copies only the calling thread; another one might hold a lock that the child needs.
pub fn assert_single_thread() -> Result<()> {
    let links = std::fs::metadata("/proc/self/task").wrap(|| "count our threads")?.nlink();
    match links {
        3 => Ok(()),
        n => Err(Error::new(format!("the runtime has {} threads, where it must have one", n - 2))),
    }
}
