#![forbid(unsafe_code)]
//! Tollgate.
pub mod model;
pub mod policy;
pub mod gate;
pub mod edge;
