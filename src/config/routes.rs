//! `routes:`, what requests of a gateway ask for, as written and then as meant.
//!
//! ```yaml
//! routes:
//!   - { path: /v1/chat/completions, method: POST, action: chat }
//!   - { path: /v1/speech/*, action: audio, model_param: voice }
//!   - { path: /internal/*, action: use, resource: 'Router::"internal"' }
//! ```

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::node::{self, NodeError};
use crate::gate::{MAX_ROUTES, Mapped, Named, RouteMap};
use crate::model::{AllowedPath, EntityUid, check_name};
use crate::policy::yaml::Node;

/// The parameter that names the model where nothing else is said.
const USUAL_PARAM: &str = "model";

/// A route.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// `/v1/chat/completions`; a `/*` at the end takes every rest of one part or more.
    path: String,
    /// Its method, in capitals. Left out: any.
    method: Option<String>,
    /// The action that is asked for.
    action: String,
    /// The parameter that names the model. Default: `model`.
    model_param: Option<String>,
    /// The resource, where it is always this one: `Router::"internal"`.
    resource: Option<String>,
}

/// Reads the section; what is wrong comes with its place.
pub(super) fn read(node: &Node) -> Result<RouteMap, NodeError> {
    let raw: Vec<Raw> = node::read(node)?;
    let wrong = |message: String| NodeError { place: Some(node.place), message };
    if raw.is_empty() || raw.len() > MAX_ROUTES {
        return Err(wrong(format!(
            "there are 1 to {MAX_ROUTES} routes; left out, there are those of OpenAI and Anthropic"
        )));
    }
    raw.into_iter().map(Raw::checked).collect::<Result<_, _>>().map(RouteMap::new).map_err(wrong)
}

/// What the section takes.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Vec<Raw>>()
}

impl Raw {
    fn checked(self) -> Result<Mapped, String> {
        let Self { path, method, action, model_param, resource } = self;
        let about = |message: &str| format!("route `{}`: {message}", path.escape_debug());
        let method: Vec<_> = method.into_iter().map(Into::into).collect();
        let beginning = path.strip_suffix('*').unwrap_or(&path);
        let is_plain = path == beginning || beginning.ends_with('/');
        let allowed = AllowedPath::new(&path, method.into()).filter(|_| is_plain).ok_or_else(|| {
            about("a path begins with `/`, has no `*` but in a `/*` at its end, and a method is a word in capitals")
        })?;
        if check_name(&action).is_err() {
            return Err(about("`action` is the name of an action"));
        }
        let resource = match (resource, model_param) {
            (Some(_), Some(_)) => return Err(about("`resource` and `model_param` do not go together")),
            (Some(uid), None) => {
                Named::Fixed(uid.parse::<EntityUid>().map_err(|error| about(&format!("`resource`: {error}")))?)
            }
            (None, param) => Named::Param(param.as_deref().unwrap_or(USUAL_PARAM).into()),
        };
        let method = allowed.methods.first().cloned();
        Ok(Mapped { path: allowed.path, method, action: action.into(), resource })
    }
}
