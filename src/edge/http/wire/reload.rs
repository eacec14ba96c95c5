//! The body of `/bundle/reload`.

use schemars::JsonSchema;
use serde::Deserialize;
use smol_str::SmolStr;

use super::super::errors::ApiError;
use super::json::{Optional, RequestBody, Text, read};

/// How to reload.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ReloadRequest<'a> {
    /// The revision that is accepted although it drops much, or newly permits every principal.
    #[serde(default, borrow)]
    acknowledge: Optional<Text<'a>>,
}

impl RequestBody for ReloadRequest<'_> {
    const EXPECTED: &'static str = "an object with `acknowledge`";
}

/// Reads the body: the revision that is acknowledged, if one is.
pub(in super::super) fn reload(body: &[u8]) -> Result<Option<SmolStr>, ApiError> {
    let ReloadRequest { acknowledge } = read(body)?;
    Ok(acknowledge.0.map(|revision| SmolStr::from(revision.0)))
}
