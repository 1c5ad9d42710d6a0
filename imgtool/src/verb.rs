//! One file per verb: its arguments, and what it does.

pub mod commit;
pub mod completions;
pub mod diff;
pub mod gc;
pub mod inspect;
pub mod load;
pub mod ls;
pub mod man;
pub mod mount;
pub mod pull;
pub mod push;
pub mod rm;
pub mod save;
pub mod tag;
pub mod umount;
pub mod unpack;
pub mod verify;
