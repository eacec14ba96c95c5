//! The way of a policy: files become a snapshot, one step after the other. Pure; each step takes what the one before made.

pub mod bundle;
pub mod syntax;
mod yaml;
pub mod parse;
pub mod problem;
mod excerpt;
pub mod report;
