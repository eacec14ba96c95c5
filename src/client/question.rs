//! What is asked, and how much: as JSON for the server.
#![allow(clippy::needless_pass_by_value, reason = "who asks makes uids and amounts for the question alone")]

use serde_json::{Map, Value, json};

use crate::edge::random;
use crate::model::{EntityUid, Kind, hex};

/// Who asks for what.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    members: Map<String, Value>,
}

impl Question {
    /// A principal that asks for an action on a resource.
    #[must_use]
    pub fn new(principal: EntityUid, action: &str, resource: EntityUid) -> Self {
        Self::of([("principal", uid(&principal)), ("action", action.into()), ("resource", uid(&resource))])
    }

    /// Whoever a bearer token or a key proves, asking for an action on a resource.
    #[must_use]
    pub fn by_bearer(token: &str, action: &str, resource: EntityUid) -> Self {
        let credential = json!({ "bearer": token });
        Self::of([("credential", credential), ("action", action.into()), ("resource", uid(&resource))])
    }

    fn of(members: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self { members: members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }

    /// With what conditions may look at.
    #[must_use]
    pub fn with_context(self, context: Map<String, Value>) -> Self {
        self.with("context", Value::Object(context))
    }

    /// With a name for what it holds: sent again under the same name it holds once.
    #[must_use]
    pub fn with_idempotency_key(self, key: impl Into<String>) -> Self {
        self.with("idempotency_key", Value::String(key.into()))
    }

    /// Holding so much, where it is permitted.
    #[must_use]
    pub fn reserving(self, amounts: Amounts) -> Self {
        self.with("reserve", amounts.reserve())
    }

    /// With a hint what a forbid lacked.
    #[must_use]
    pub fn explained(self) -> Self {
        self.with("explain", Value::Bool(true))
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// A key that nobody has had, where there is none.
    pub(super) fn with_a_key(self) -> Self {
        if self.members.contains_key("idempotency_key") {
            return self;
        }
        self.with_idempotency_key(hex::encode(&random::bytes::<16>()))
    }

    /// Whether an answer that gets lost may be asked for again.
    pub(super) fn may_be_sent_again(&self) -> bool {
        !self.members.contains_key("reserve") || self.members.contains_key("idempotency_key")
    }

    pub(super) fn body(&self) -> Value {
        Value::Object(self.members.clone())
    }

    pub(super) fn about(&self, candidates: &[EntityUid]) -> Value {
        let mut members = self.members.clone();
        let is_router = |resource: &Value| {
            let kind = resource.get("type").and_then(Value::as_str).and_then(Kind::named);
            kind.is_some_and(Kind::grants_access)
        };
        if !members.get("resource").is_some_and(is_router) {
            members.remove("resource");
        }
        members.insert("candidates".to_owned(), candidates.iter().map(uid).collect());
        Value::Object(members)
    }

    pub(super) fn used(&self, usage: Amounts) -> Value {
        let mut members = self.members.clone();
        members.insert("usage".to_owned(), usage.body());
        Value::Object(members)
    }
}

fn uid(uid: &EntityUid) -> Value {
    json!({ "type": uid.kind(), "id": uid.id() })
}

/// How much is held, or was used. What is not said is the server's to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Requests.
    pub requests: Option<u64>,
    /// Tokens of the input.
    pub input_tokens: Option<u64>,
    /// Tokens of the output.
    pub output_tokens: Option<u64>,
    /// Of the input, those that came from a cache.
    pub cached_input_tokens: Option<u64>,
    /// US dollars, as an exact decimal.
    pub usd: Option<String>,
}

impl Amounts {
    /// So many tokens.
    #[must_use]
    pub fn tokens(input: u64, output: u64) -> Self {
        Self { input_tokens: Some(input), output_tokens: Some(output), ..Self::default() }
    }

    pub(super) fn body(&self) -> Value {
        let numbers = [
            ("requests", self.requests),
            ("input_tokens", self.input_tokens),
            ("output_tokens", self.output_tokens),
            ("cached_input_tokens", self.cached_input_tokens),
        ];
        let mut members: Map<String, Value> =
            numbers.into_iter().filter_map(|(name, number)| Some((name.to_owned(), number?.into()))).collect();
        if let Some(usd) = &self.usd {
            members.insert("usd".to_owned(), usd.clone().into());
        }
        Value::Object(members)
    }

    /// What is to be held: all of it from the context where nothing is said.
    fn reserve(&self) -> Value {
        if *self == Self::default() { Value::Bool(true) } else { self.body() }
    }
}
