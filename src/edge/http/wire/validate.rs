//! The body of `/v1/auth/validate`, in the form of Llama Stack. Errors show no part of it, since any part may be the
//! credential.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::super::errors::ApiError;
use super::json::{Object, Optional, RequestBody, Secret, read};
use crate::edge::identity::after_bearer;
use crate::model::strict_json::Strict;
use crate::model::{PathError, RequestPath, SecretText, request_address};
use crate::pdp::{Credential, Described, Presented};

/// Longest credential.
const MAX_CREDENTIAL_BYTES: usize = 16 * 1024;
const MEMBERS: [&str; 3] = ["api_key", "request", "authorize"];

/// A credential, and the request that it came with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Validate", extend("required" = ["api_key"]))]
pub(in super::super) struct ValidateRequest<'a> {
    /// The bearer token or key that the request came with.
    #[serde(default, borrow)]
    #[schemars(extend("maxLength" = MAX_CREDENTIAL_BYTES))]
    api_key: Optional<Secret<'a>>,
    #[serde(default, borrow)]
    request: Optional<Object<DelegatedRequest<'a>>>,
    /// Whether the request is also decided, by its path, method and parameters, and a permit charged to the limits that
    /// apply. The server may be configured to decide every request (`validate.authorize`).
    #[serde(default)]
    authorize: Optional<bool>,
}

impl RequestBody for ValidateRequest<'_> {
    const EXPECTED: &'static str = "an object with `api_key` and `request`";
}

/// The request that the credential came with.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct DelegatedRequest<'a> {
    #[serde(default, borrow)]
    path: Optional<Secret<'a>>,
    #[serde(default, borrow)]
    method: Optional<Secret<'a>>,
    /// The address that the request comes from.
    #[serde(default, borrow)]
    ip: Optional<Secret<'a>>,
    #[serde(default)]
    headers: Option<Members>,
    /// Texts by name, or lists of one. `model`, `user`, `max_tokens`, `max_completion_tokens`, `max_output_tokens`,
    /// `generationConfig`, `inferenceConfig` and `stream` determine the resource, the context and the estimate.
    #[serde(default)]
    params: Option<Members>,
}

impl RequestBody for DelegatedRequest<'_> {
    const EXPECTED: &'static str = "an object with `path`, `headers` and `params`";
}

/// Members that the caller chooses, each once.
#[derive(Default, JsonSchema)]
#[schemars(inline)]
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::DeserializeSeed as _;
        match Strict.deserialize(deserializer) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            _ => Err(D::Error::custom("this is an object whose members stand once")),
        }
    }
}

/// The body, checked.
pub(in super::super) struct Delegated {
    pub(in super::super) presented: Presented,
    pub(in super::super) params: Map<String, Value>,
    pub(in super::super) method: Option<SmolStr>,
    /// The length of the body of the request, if it is known.
    pub(in super::super) body_bytes: Option<u64>,
    pub(in super::super) authorize: bool,
}

/// Reads the body. With `always`, every request is decided.
pub(in super::super) fn validate(body: &[u8], always: bool) -> Result<Delegated, ApiError> {
    let written = read::<ValidateRequest>(body).map_err(without_input)?;
    written.or_authorize(always).try_into()
}

/// The error with a message of its own. Of the body, it contains only the names of members.
fn without_input(error: ApiError) -> ApiError {
    let form = "expected {\"api_key\": …, \"request\": {\"path\", \"headers\", \"params\"}}";
    let member = error.param.split('.').next().unwrap_or_default();
    if !MEMBERS.contains(&member) {
        let message =
            if member.is_empty() { form.to_owned() } else { format!("the members are `{}`", MEMBERS.join("`, `")) };
        return ApiError::invalid("", message);
    }
    // Only a member of a known name can stand twice, so that the message has no input either.
    if error.message.ends_with("stands twice") {
        return error;
    }
    let message = match &*error.param {
        "api_key" => "`api_key` is a text of 1 to 16384 bytes",
        "authorize" => "`authorize` is true or false",
        "request" => "`request` is an object with `path`, `headers` and `params`",
        "request.path" | "request.method" | "request.ip" => "this is a text",
        "request.headers" | "request.params" => "this is an object whose members stand once",
        _ => "`request` has `path`, `method`, `ip`, `headers` and `params`",
    };
    ApiError::invalid(error.param, message)
}

impl ValidateRequest<'_> {
    fn or_authorize(mut self, always: bool) -> Self {
        self.authorize.0 = Some(always || self.authorize.0.unwrap_or(false));
        self
    }
}

impl TryFrom<ValidateRequest<'_>> for Delegated {
    type Error = ApiError;

    fn try_from(written: ValidateRequest<'_>) -> Result<Self, ApiError> {
        let secret = credential(written.api_key.0.as_ref())?;
        let authorize = written.authorize.0.unwrap_or(false);
        let request = match written.request.0 {
            Some(Object(request)) => request,
            None if !authorize => DelegatedRequest::default(),
            None => {
                let message = "`request` is an object with `path`, `headers` and `params`";
                return Err(ApiError::invalid("request", message));
            }
        };
        let no_path = |error: PathError| ApiError::invalid("request.path", error.to_string());
        let path = request.path.0.map(|Secret(text)| RequestPath::parse(&text.0)).transpose().map_err(no_path)?;
        let no_address = || ApiError::invalid("request.ip", "`ip` is an IP address, and no range");
        let source = request.ip.0.map(|Secret(text)| request_address(&text.0).ok_or_else(no_address)).transpose()?;
        let method = request.method.0.map(|Secret(text)| SmolStr::from(text.0));
        let Members(headers) = request.headers.unwrap_or_default();
        let Members(params) = request.params.unwrap_or_default();
        let described = Described {
            method: method.clone().unwrap_or_default(),
            path: path.map(RequestPath::into_text).unwrap_or_default(),
            headers: texts(&headers).map(|(name, value)| (name.to_ascii_lowercase().into(), value)).collect(),
            params: texts(&params).map(|(name, value)| (name.into(), value)).collect(),
            ..Described::default()
        };
        let presented = Presented { request: described, source, ..Presented::new(Credential::Bearer(secret)) };
        let body_bytes = body_bytes(&headers, &params);
        Ok(Self { presented, params, method, body_bytes, authorize })
    }
}

fn credential(written: Option<&Secret<'_>>) -> Result<SecretText, ApiError> {
    let written = written.map_or("", |Secret(text)| &*text.0);
    match after_bearer(written) {
        token if !token.is_empty() && written.len() <= MAX_CREDENTIAL_BYTES => Ok(SecretText::new(token)),
        _ => Err(ApiError::invalid("api_key", "`api_key` is a text of 1 to 16384 bytes")),
    }
}

/// Every text with its name. A parameter may have several values.
fn texts(members: &Map<String, Value>) -> impl Iterator<Item = (&str, SmolStr)> {
    members.iter().flat_map(|(name, value)| {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        values.iter().filter_map(Value::as_str).map(move |value| (name.as_str(), SmolStr::from(value)))
    })
}

/// The length of the body of the described request: its `content-length`, or the length of `params` if they are the body;
/// the largest of them, since a caller that states less would pay less. `None` if neither is known.
fn body_bytes(headers: &Map<String, Value>, params: &Map<String, Value>) -> Option<u64> {
    let lengths = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let digits = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    // A header that came twice is a list.
    let values = lengths.flat_map(|(_, value)| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
    let length = values.filter_map(|value| value.as_u64().or_else(|| value.as_str().and_then(digits))).max();
    let is_body =
        ["messages", "input", "prompt", "contents", "documents"].iter().any(|name| params.contains_key(*name));
    let text = is_body.then(|| serde_json::to_string(params).ok()).flatten();
    length.max(text.and_then(|text| u64::try_from(text.len()).ok()))
}
