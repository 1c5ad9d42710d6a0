//! Executes a plan.

use imgtool::image::ImageConfig;
use imgtool::platform::Platform;

use crate::steps::DEFAULT_PATH;

/// The configuration of `FROM scratch`: nothing but a search path.
pub fn scratch(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::new(platform);
    config.set_env(&[DEFAULT_PATH.to_owned()]);
    config
}
