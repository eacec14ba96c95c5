//! `routes:`, what requests of a gateway ask for, as written and then as meant.
//!
//! ```yaml
//! routes:
//!   - { path: /v1/chat/completions, method: POST, action: chat }
//!   - { path: /v1/speech/*, action: audio, model_param: voice }
//!   - { path: "/openai/deployments/{model}/chat/completions", action: chat, account: azure-eu }
//!   - { path: /internal/*, action: chat, resource: 'Router::"internal"' }
//! ```

use schemars::JsonSchema;
use serde::Deserialize;

use super::faults::NodeError;
use crate::gate::{MAX_ROUTES, Mapped, Named, RouteLimits, RouteMap, check_route_path};
use crate::model::{AllowedPath, EntityUid, Kind, check_name};
use crate::policy::syntax::Located;

/// The parameter that names the model where nothing else is said.
const USUAL_PARAM: &str = "model";

/// A route.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// `/v1/chat/completions`; a `/*` at the end takes every rest of one segment or more, and `{model}` stands for the
    /// model's name within one segment: `/v1beta/models/{model}:generateContent`.
    path: String,
    /// Its method, in capitals. Left out: any.
    method: Option<String>,
    /// The action that is asked for.
    action: String,
    /// The parameter that names the model. Default: `model`.
    model_param: Option<String>,
    /// The resource, where it is always this one: `Router::"internal"`.
    resource: Option<String>,
    /// A router, `Router::"ogx"`: the resource where the parameters name no model.
    without_model: Option<String>,
    /// The account of models that are named without one, where the name is no alias.
    account: Option<String>,
    /// How the limits that apply are counted: `charge` counts one request and the estimate at once, `check` counts
    /// nothing. Default: `charge`.
    limits: Option<RawLimits>,
}

/// How limits are counted.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum RawLimits {
    /// One request and the estimate are counted at once.
    Charge,
    /// Limits are checked but not charged.
    Check,
}

/// The routes of the section.
///
/// # Errors
/// The first route that is wrong, with its place.
pub(super) fn checked(raw: Located<Vec<Located<Raw>>>) -> Result<RouteMap, NodeError> {
    if raw.value.is_empty() || raw.value.len() > MAX_ROUTES {
        let message = format!(
            "1 to {MAX_ROUTES} routes are allowed; by default there are those of OpenAI, Anthropic, Azure, Gemini \
             and Bedrock"
        );
        return Err(NodeError::of_setting("routes", raw.place, message));
    }
    let checked = |route: Located<Raw>| {
        let wrong = |message| NodeError::of_setting("routes", route.place, message);
        route.value.checked().map_err(wrong)
    };
    raw.value.into_iter().map(checked).collect::<Result<_, _>>().map(RouteMap::new)
}

impl Raw {
    fn checked(self) -> Result<Mapped, String> {
        let about = |message: &str| format!("route `{}`: {message}", self.path.escape_debug());
        let in_path = check_route_path(&self.path)
            .map_err(|error| about(&format!("a path begins with `/` and may end with `/*`: {error}")))?;
        if self.method.as_ref().is_some_and(|method| !AllowedPath::is_method(method)) {
            return Err(about("a method is a word in capitals such as POST"));
        }
        if check_name(&self.action).is_err() {
            return Err(about("`action` is the name of an action"));
        }
        let account = self.account.as_deref();
        if account.is_some_and(|account| check_name(account).is_err() || account.contains(['/', '*'])) {
            return Err(about("`account` is the id of an account"));
        }
        let resource = self.named(in_path, about)?;
        let limits = match self.limits {
            None | Some(RawLimits::Charge) => RouteLimits::Charge,
            Some(RawLimits::Check) => RouteLimits::Check,
        };
        let (method, account) = (self.method.map(Into::into), self.account.map(Into::into));
        Ok(Mapped { path: self.path.into(), method, action: self.action.into(), resource, account, limits })
    }

    /// Where the name of the resource comes from. `in_path` is whether the path names a model.
    fn named(&self, in_path: bool, about: impl Fn(&str) -> String) -> Result<Named, String> {
        let uid = |text: &Option<String>, name: &str| {
            let uid = text.as_deref().map(str::parse::<EntityUid>).transpose();
            uid.map_err(|error| about(&format!("`{name}`: {error}")))
        };
        let param = self.model_param.as_deref().unwrap_or(USUAL_PARAM).into();
        match (uid(&self.resource, "resource")?, uid(&self.without_model, "without_model")?) {
            (Some(_), _) if self.model_param.is_some() => Err(about(
                "`resource` and `model_param` do not go together; use `without_model` for requests whose parameters \
                 name no model",
            )),
            (Some(_), _) if in_path || self.account.is_some() => {
                Err(about("`resource` does not go together with `account` or with `{model}` in the path"))
            }
            (Some(_), Some(_)) => Err(about("`resource` and `without_model` do not go together")),
            (Some(uid), None) => Ok(Named::Fixed(uid)),
            (None, Some(_)) if in_path => Err(about("`without_model` does not go together with `{model}` in the path")),
            (None, Some(uid)) if !Kind::named(uid.kind()).is_some_and(Kind::grants_access) => {
                Err(about("`without_model` is a Router"))
            }
            (None, Some(uid)) => Ok(Named::ParamOr(param, uid)),
            (None, None) => Ok(Named::Param(param)),
        }
    }
}
