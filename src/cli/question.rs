//! The arguments of `decide` and `explain`: one request, and what Tollgate is to know when it decides.

use std::str::FromStr;

use clap::Args;
use serde_json::{Map, Value};

use super::assume::Assumed;
use super::load::Directory;
use super::output::Format;
use crate::edge::clock::SystemClock;
use crate::gate::{Assumptions, Clock};
use crate::model::{EntityUid, Facts, Request, strict_json};
use crate::policy::Snapshot;

/// A request, and what is known.
#[derive(Debug, Args)]
pub(super) struct Question {
    /// Who asks, as a Cedar uid: User::"alice"
    #[arg(long, value_name = "UID")]
    principal: EntityUid,
    /// What they want to do, a bare name or a uid: chat
    #[arg(long, value_name = "ACTION")]
    action: String,
    /// With what, as a Cedar uid: Model::"openai-main/gpt-4o"
    #[arg(long, value_name = "UID")]
    resource: EntityUid,
    /// What the gateway tells of the request, as in POST /is_authorized: {"ip": "10.1.2.3"}
    #[arg(long, value_name = "JSON")]
    context: Option<Told>,
    /// What Tollgate itself is to know: {"now": …, "budget": …, "rate": …, "limits": …, "auth": …}
    #[arg(long, value_name = "JSON")]
    assume: Option<Assumed>,
    #[command(flatten)]
    pub(super) bundle: Directory,
    /// Decide by the bundle alone, as a server with `identity.admin_policies: off`
    #[arg(long)]
    pub(super) no_admin_policies: bool,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

impl Question {
    /// The request that is asked.
    pub(super) fn request(&self) -> Request {
        let context = self.context.as_ref().map(|told| told.0.clone()).unwrap_or_default();
        Request::new(self.principal.clone(), self.action.as_str(), self.resource.clone()).with_context(context)
    }

    /// The assumed limits, with the current time and nothing used of every other limit.
    ///
    /// # Errors
    /// What is assumed of a limit that `snapshot` does not have.
    pub(super) fn assumptions(&self, snapshot: &Snapshot) -> Result<Assumptions, String> {
        let free = Facts::at(SystemClock.now());
        match &self.assume {
            Some(assumed) => assumed.over(free, Some(snapshot)).map_err(|message| format!("--assume: {message}")),
            None => Ok(Assumptions::none(free)),
        }
    }
}

/// A JSON object.
#[derive(Debug, Clone)]
struct Told(Map<String, Value>);

impl FromStr for Told {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        object(text).map(Self)
    }
}

pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match strict_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("it must be a JSON object, {…}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
