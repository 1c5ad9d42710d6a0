//! One file per verb: its arguments, and what it does.

pub mod catalog;
pub mod commit;
pub mod completions;
pub mod copy;
pub mod delete;
pub mod diff;
pub mod digest;
pub mod gc;
pub mod inspect;
pub mod load;
pub mod login;
pub mod ls;
pub mod man;
pub mod mount;
pub mod pull;
pub mod push;
pub mod rm;
pub mod save;
pub mod search;
pub mod tag;
pub mod tags;
pub mod umount;
pub mod unpack;
pub mod verify;
