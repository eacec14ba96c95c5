//! The files of a bundle: find them, read them, make sure they are all there, and notice when they change.
//!
//! Nobody tells a reader that a writer has finished. A file cut at the end of a line is valid YAML with fewer rules,
//! and a lost `forbid` opens what was closed. Hence the steps: [`walk`] lists, [`mod@read`] reads, [`manifest`] proves
//! a set of files complete where its author says so, [`mod@settle`] waits until they lie still where not, and [`watch`]
//! does it all again whenever something changes; [`mod@sequence`] remembers what was accepted. Events of the operating system are but a hint to look sooner.

pub mod manifest;
mod native;
pub mod read;
pub mod sequence;
pub mod settle;
mod signals;
pub mod walk;
pub mod watch;

pub use manifest::{ManifestPolicy, PublicKey, SigningKey};
pub use read::{ManifestText, Reader, Reading, read};
pub use sequence::Sequence;
pub use settle::{Patience, SettleOptions, settle};
pub use walk::ReadLimits;
pub use watch::{Follower, WatchOptions, WatchStatus, Watcher};
