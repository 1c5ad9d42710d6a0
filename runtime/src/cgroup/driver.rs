//! Who keeps the container's groups, as the state file remembers it: a later verb need not be told
//! again (CRI-O calls `update` without `--systemd-cgroup`).

use crate::error::Result;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

/// The keeper of the groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We make the directories ourselves, and remove them.
    #[default]
    Cgroupfs,
}

impl Driver {
    /// Tells the keeper of limits that are about to be written into the groups' files, so that it
    /// does not put the old ones back (`update`). To be called before the files are written.
    pub fn announce(&self, _resources: &LinuxResources) -> Result<()> {
        match self {
            Self::Cgroupfs => Ok(()),
        }
    }
}
