#![forbid(unsafe_code)]
//! Tollgate.
pub mod model;
pub mod policy;
pub mod edge;
