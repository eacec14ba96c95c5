//! The context of a request: checked whole when it comes, and handed to Cedar member by member, as conditions read it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{
    Context, Eid, Entity, EntityUID, ExtensionFunction, Name, PartialValue, Value as CedarValue,
};
use cedar_policy_core::extensions::Extensions;
use serde_json::Value;
use smol_str::{SmolStr, format_smolstr};

use crate::model::{
    AuthMethod, Budget, Facts, Identity, LimitFacts, Member, Rate, RequestError, RequestErrorCode, RequestPath, Told,
    check_name, request_address,
};
use crate::policy::addresses;
use crate::policy::condition::Members;
use crate::policy::entities::Kind;
use crate::policy::schema::{Action, BundleSchema};

/// What only Tollgate itself sets.
const RESERVED: [&str; 5] = ["now", "budget", "rate", "auth", "limits"];
/// Longest text of a member, in bytes.
const MAX_TEXT_BYTES: usize = 8 * 1024;
/// Most entries of `metadata`.
const MAX_METADATA: usize = 64;

/// The context of a request, as checked.
#[derive(Debug, Clone)]
pub enum RequestContext {
    /// For Tollgate's own actions.
    Tollgate(Checked),
    /// For actions of the bundle's own, as their schema wants it.
    Native(Context),
}

/// What the caller told of the request, each member of the form that conditions read.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    ip: Option<SmolStr>,
    method: Option<SmolStr>,
    path: Option<SmolStr>,
    end_user: Option<SmolStr>,
    team: Option<SmolStr>,
    input_tokens: Option<i64>,
    max_output_tokens: Option<i64>,
    stream: Option<bool>,
    metadata: Vec<(SmolStr, SmolStr)>,
    /// How the caller proved who it is, where a credential did.
    auth: Option<AuthMethod>,
}

impl RequestContext {
    /// Checks what a request tells for `action`.
    ///
    /// # Errors
    /// With the member that is unknown, reserved or of the wrong type.
    pub fn check(told: &Told, action: &Action, schema: &BundleSchema) -> Result<Self, RequestError> {
        if action.tollgate_context {
            return Checked::check(told).map(Self::Tollgate);
        }
        let context = cedar_policy::Context::from_json_value(
            Value::Object(told.to_json()),
            Some((&schema.schema, &cedar_policy::EntityUid::from(action.uid.as_ref().clone()))),
        );
        let refused = |message: String| RequestError::new(RequestErrorCode::InvalidContext, "context", message);
        let context = context.map_err(|error| refused(error.to_string()))?;
        let core: &Context = context.as_ref();
        Ok(Self::Native(addresses::context(core)))
    }

    /// The context that a condition sees: the members in `members`, or more.
    #[must_use]
    pub fn to_cedar(&self, facts: &Facts, members: Members) -> Context {
        match self {
            Self::Native(context) => context.clone(),
            Self::Tollgate(checked) => checked.to_cedar(facts, members),
        }
    }

    /// How many input tokens there are and how many output tokens there will be at most, as the request tells.
    pub(super) fn tokens(&self) -> (Option<u64>, Option<u64>) {
        let Self::Tollgate(told) = self else { return (None, None) };
        let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        (number(told.input_tokens), number(told.max_output_tokens))
    }

    /// Adds what a credential says of the circumstances: it beats what the request tells.
    pub fn add_proved(&mut self, identity: &Identity) {
        if let Self::Tollgate(checked) = self {
            checked.auth = Some(identity.method);
            if let Some(payer) = &identity.payer {
                checked.team = Some(payer.clone());
            }
            checked.metadata.retain(|(name, _)| !identity.metadata.iter().any(|(said, _)| said == name));
            checked.metadata.extend(identity.metadata.iter().cloned());
        }
    }

    /// The address that the request comes from, as it tells.
    pub(super) fn ip(&self) -> Option<&str> {
        if let Self::Tollgate(told) = self { told.ip.as_deref() } else { None }
    }

    /// The gateway's path that the request asks, as it tells.
    pub(super) fn path(&self) -> Option<&str> {
        if let Self::Tollgate(told) = self { told.path.as_deref() } else { None }
    }

    /// And the method.
    pub(super) fn method(&self) -> Option<&str> {
        if let Self::Tollgate(told) = self { told.method.as_deref() } else { None }
    }

    /// The team that the request names as the one that pays.
    pub(super) fn team(&self) -> Option<&SmolStr> {
        if let Self::Tollgate(told) = self { told.team.as_ref() } else { None }
    }

    /// Whom the request names as the gateway's own user.
    pub(super) fn end_user(&self) -> Option<&SmolStr> {
        if let Self::Tollgate(told) = self { told.end_user.as_ref() } else { None }
    }

    /// What the request's metadata says under this name.
    pub(super) fn metadata_of(&self, key: &str) -> Option<&SmolStr> {
        let Self::Tollgate(told) = self else { return None };
        told.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The entity that stands for the request's metadata.
    #[must_use]
    pub fn metadata(&self) -> Option<Arc<Entity>> {
        let Self::Tollgate(checked) = self else { return None };
        let tags =
            checked.metadata.iter().map(|(name, value)| (name.clone(), PartialValue::Value(value.clone().into())));
        let uid = EntityUID::clone(&METADATA);
        Some(Arc::new(Entity::new_with_attr_partial_value(uid, [], HashSet::default(), HashSet::default(), tags)))
    }
}

/// The uid of the entity that stands for a request's metadata.
static METADATA: LazyLock<Arc<EntityUID>> = LazyLock::new(|| {
    let kind = crate::policy::entities::EntityStore::default().kind_core(Kind::METADATA).clone();
    Arc::new(EntityUID::from_components(kind, Eid::new("request"), None))
});

impl Checked {
    fn check(told: &Told) -> Result<Self, RequestError> {
        let mut checked = Self::default();
        for (name, member) in told.members() {
            checked.member(name, member)?;
        }
        Ok(checked)
    }

    fn member(&mut self, name: &str, member: &Member) -> Result<(), RequestError> {
        let wrong = |expected: &str| {
            let message = format!("`context.{name}` must be {expected}");
            RequestError::new(RequestErrorCode::InvalidContext, format!("context.{name}"), message)
        };
        let text = || short_text(member).ok_or_else(|| wrong("a text of 8192 bytes at most"));
        let amount = || match member {
            Member::Whole(number @ 0..) => Ok(*number),
            _ => Err(wrong("a whole number from 0 to 9223372036854775807")),
        };
        match (name, member) {
            ("ip", member) => {
                let address = member.as_text().and_then(|text| request_address(text));
                let expected = "an IP address such as \"10.1.2.3\" or \"2001:db8::1\", and no range";
                self.ip = Some(format_smolstr!("{}", address.ok_or_else(|| wrong(expected))?));
            }
            ("stream", Member::Flag(flag)) => self.stream = Some(*flag),
            ("stream", _) => return Err(wrong("true or false")),
            ("input_tokens", _) => self.input_tokens = Some(amount()?),
            ("max_output_tokens", _) => self.max_output_tokens = Some(amount()?),
            ("metadata", _) => self.metadata = metadata(member)?,
            ("method", _) => self.method = Some(text()?),
            ("path", _) => {
                let path = RequestPath::parse(&text()?).map_err(|error| {
                    let message = format!("`context.path` is invalid: {error}");
                    RequestError::new(RequestErrorCode::InvalidContext, "context.path", message)
                })?;
                self.path = Some(path.into_text());
            }
            ("end_user", _) => self.end_user = Some(text()?),
            ("team", _) => self.team = Some(text()?),
            _ => return Err(refused(name)),
        }
        Ok(())
    }

    fn to_cedar(&self, facts: &Facts, members: Members) -> Context {
        let mut record: BTreeMap<SmolStr, CedarValue> = BTreeMap::new();
        let mut put = |name: &'static str, value: CedarValue| drop(record.insert(SmolStr::new_static(name), value));
        if members.has("now")
            && let Some(now) = datetime(facts.now.as_millis())
        {
            put("now", now);
        }
        if members.has("budget") {
            put("budget", budget(&facts.budget));
        }
        if members.has("rate") {
            put("rate", rate(&facts.rate));
        }
        if members.has("limits") {
            put("limits", limits(&facts.limits));
        }
        if members.has("auth") {
            let method = self.auth.unwrap_or(facts.auth).as_str();
            let method = [(SmolStr::new_static("method"), CedarValue::from(SmolStr::new_static(method)))];
            put("auth", CedarValue::record(method, None));
        }
        if members.has("metadata") {
            put("metadata", CedarValue::from(Arc::clone(&METADATA)));
        }
        if members.has("ip")
            && let Some(ip) = self.ip.as_ref().and_then(ip)
        {
            put("ip", ip);
        }
        if let (true, Some(stream)) = (members.has("stream"), self.stream) {
            put("stream", CedarValue::from(stream));
        }
        let numbers = [("input_tokens", self.input_tokens), ("max_output_tokens", self.max_output_tokens)];
        for (name, number) in numbers {
            if let (true, Some(number)) = (members.has(name), number) {
                put(name, CedarValue::from(number));
            }
        }
        let texts =
            [("method", &self.method), ("path", &self.path), ("end_user", &self.end_user), ("team", &self.team)];
        for (name, text) in texts {
            if let (true, Some(text)) = (members.has(name), text) {
                put(name, CedarValue::from(text.clone()));
            }
        }
        Context::Value(Arc::new(record))
    }
}

/// A member that may not be sent, or that there is not.
fn refused(name: &str) -> RequestError {
    if RESERVED.contains(&name) {
        let message = format!("`context.{name}` is what Tollgate itself knows; it cannot be sent");
        return RequestError::new(RequestErrorCode::ReservedContext, format!("context.{name}"), message);
    }
    let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let message =
        format!("no context member is called `{shown}`; what is your own goes in `context.metadata`, as a text");
    RequestError::new(RequestErrorCode::InvalidContext, format!("context.{shown}"), message)
}

fn short_text(member: &Member) -> Option<SmolStr> {
    member.as_text().filter(|text| text.len() <= MAX_TEXT_BYTES).cloned()
}

fn metadata(member: &Member) -> Result<Vec<(SmolStr, SmolStr)>, RequestError> {
    let wrong = |param: String, message: String| RequestError::new(RequestErrorCode::InvalidContext, param, message);
    let Member::Object(told) = member else {
        let message = "`context.metadata` must be an object of texts";
        return Err(wrong("context.metadata".to_owned(), message.to_owned()));
    };
    if told.members().len() > MAX_METADATA {
        let message = format!("`context.metadata` may have {MAX_METADATA} members at most");
        return Err(wrong("context.metadata".to_owned(), message));
    }
    let entry = |(name, member): &(SmolStr, Member)| {
        let param =
            || format!("context.metadata.{}", name.chars().take(80).flat_map(char::escape_debug).collect::<String>());
        check_name(name).map_err(|error| wrong(param(), error.to_string()))?;
        let text = short_text(member).ok_or_else(|| {
            wrong(param(), "a member of `context.metadata` must be a text of 8192 bytes at most".to_owned())
        })?;
        Ok((name.clone(), text))
    };
    told.members().iter().map(entry).collect()
}

/// The functions of Cedar's extensions that members are made with. To find one by its name takes longer than to call it.
struct Functions {
    ip: &'static ExtensionFunction,
    duration: &'static ExtensionFunction,
    offset: &'static ExtensionFunction,
    epoch: CedarValue,
}

static FUNCTIONS: LazyLock<Option<Functions>> = LazyLock::new(|| {
    let function = |name: &str| Extensions::all_available().func(&name.parse::<Name>().ok()?).ok();
    let epoch = called(function("datetime")?, &["1970-01-01".into()])?;
    Some(Functions { ip: function("ip")?, duration: function("duration")?, offset: function("offset")?, epoch })
});

fn called(function: &ExtensionFunction, arguments: &[CedarValue]) -> Option<CedarValue> {
    match function.call(arguments) {
        Ok(PartialValue::Value(value)) => Some(value),
        _ => None,
    }
}

fn ip(text: &SmolStr) -> Option<CedarValue> {
    called(FUNCTIONS.as_ref()?.ip, &[text.clone().into()])
}

fn datetime(millis: i64) -> Option<CedarValue> {
    let Functions { duration, offset, epoch, .. } = FUNCTIONS.as_ref()?;
    let since = called(duration, &[format_smolstr!("{millis}ms").into()])?;
    called(offset, &[epoch.clone(), since])
}

fn longs(members: [(&'static str, i64); 2]) -> CedarValue {
    CedarValue::record(members.map(|(name, number)| (SmolStr::new_static(name), CedarValue::from(number))), None)
}

/// Nearly every caller is far from any limit, so the record for that is kept.
fn budget(budget: &Budget) -> CedarValue {
    static FREE: LazyLock<CedarValue> = LazyLock::new(|| made(&Budget::default()));
    fn made(budget: &Budget) -> CedarValue {
        longs([("used_percent", budget.used_percent), ("remaining_micros", budget.remaining_micros)])
    }
    if *budget == Budget::default() { FREE.clone() } else { made(budget) }
}

fn rate(rate: &Rate) -> CedarValue {
    static FREE: LazyLock<CedarValue> = LazyLock::new(|| made(&Rate::default()));
    fn made(rate: &Rate) -> CedarValue {
        longs([("remaining_requests", rate.remaining_requests), ("remaining_tokens", rate.remaining_tokens)])
    }
    if *rate == Rate::default() { FREE.clone() } else { made(rate) }
}

/// The limits that apply, by id: money in micro-dollars, anything else as it is counted.
fn limits(limits: &[(SmolStr, LimitFacts)]) -> CedarValue {
    let one = |(id, facts): &(SmolStr, LimitFacts)| {
        let members = facts.members().map(|(name, number)| (SmolStr::new_static(name), CedarValue::from(number)));
        (id.clone(), CedarValue::record(members, None))
    };
    CedarValue::record(limits.iter().map(one), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_request_is_one_that_cedar_takes() {
        for (text, canonical) in [
            ("10.1.2.3", Some("10.1.2.3")),
            ("::1", Some("::1")),
            ("ABCD:EF01:2345:6789:ABCD:EF01:2345:6789", Some("abcd:ef01:2345:6789:abcd:ef01:2345:6789")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("::1.2.3.4", Some("::102:304")),
            ("64:ff9b::1.2.3.4", Some("64:ff9b::102:304")),
            ("10.0.0.0/8", None),
            ("", None),
        ] {
            let mut checked = Checked::default();
            let taken = checked.member("ip", &Member::Text(text.into()));
            assert_eq!(checked.ip.as_deref(), canonical, "{text}");
            assert_eq!(taken.is_ok(), canonical.is_some(), "{text}");
            assert_eq!(checked.ip.as_ref().and_then(ip).is_some(), canonical.is_some(), "Cedar on {text}");
        }
    }

    #[test]
    fn an_instant_is_the_one_that_was_given() {
        let function = Extensions::all_available().func(&"datetime".parse().unwrap()).unwrap();
        assert_eq!(datetime(86_400_000), called(function, &["1970-01-02".into()]));
        assert!(datetime(-1).is_some() && datetime(i64::MAX).is_some());
    }
}
