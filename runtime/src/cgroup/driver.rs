//! Who keeps the container's groups, as the state file remembers it: a later verb need not be told
//! again (CRI-O calls `update` without `--systemd-cgroup`).

use super::resources::Write;
use super::systemd::properties;
use super::systemd::unit::Unit;
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// The keeper of the groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We make the directories ourselves, and remove them.
    #[default]
    Cgroupfs,
    /// systemd does, for a scope.
    Systemd(Unit),
}

impl Driver {
    /// Tells the keeper of limits that have been written into the groups' files (`update`), so that
    /// it does not put the old ones back. Returns whether it has written the files by itself, and so
    /// rounded as it likes.
    pub fn announce(&self, writes: &[Write]) -> Result<bool> {
        let Self::Systemd(unit) = self else { return Ok(false) };
        unit.set(&properties::from_writes(writes))?;
        Ok(true)
    }
}
