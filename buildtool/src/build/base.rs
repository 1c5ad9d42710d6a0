//! Base images: from the store, or pulled into it.

use std::process::{Command, Stdio};

use imgtool::platform::Platform;
use imgtool::reference::Reference;

use super::{Builder, State};
use crate::error::{Context, Error, Result};

impl Builder<'_> {
    /// The image `reference` for `platform`, pulled if the store does not have it.
    pub(super) fn image(&self, reference: &Reference, platform: &Platform) -> Result<State> {
        if self.options.pull || self.store.resolve(reference)?.is_none() {
            self.pull(reference, platform)?;
        }
        let missing =
            || Error::new(format!("{reference} is not in the store, also after it was pulled"));
        let descriptor = self.store.resolve(reference)?.ok_or_else(missing)?;
        let image = self.store.image(&descriptor, platform)?;
        Ok(State { layers: image.manifest.layers.clone(), config: image.config })
    }

    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<()> {
        let program = &self.options.imgtool;
        self.log.note(&format!("pulling {reference} for {platform}"));
        let output = Command::new(program)
            .arg("--store")
            .arg(self.store.root())
            .args(["--quiet", "pull", "--platform", &platform.to_string(), &reference.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .wrap(|| {
                format!("{reference} is not in the store: execute {} to pull it", program.display())
            })?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.lines().next().unwrap_or("it gave no reason");
        let reason = reason.trim_start_matches("imgtool: ").to_owned();
        Err(Error::new(reason)
            .wrap(format!("{reference} is not in the store and can not be pulled")))
    }
}
