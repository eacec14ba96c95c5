//! Somebody else's endpoint, in the form of Llama Stack: a credential and the request that it came with are posted
//! there, and a 200 says whom it proves.
//!
//! What is hard about it: everything but a plain yes is a no. And what is remembered is remembered under everything that
//! was sent, so that a yes for one request is never one for another.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use super::asking::{AtOnce, Away, is_own};
use super::recent::{Recent, digest};
use super::unlinked::{Proved, UnlinkedWarning};
use crate::gate::{Ask, Authenticator, Credential, Described, Fetch, FetchError, Later, Presented, Reply, Verdict};
use crate::model::{
    AuthMethod, EntityUid, Identity, RESERVED_ROLE_PREFIX, Refusal, RefusalReason, Said, SecretText, Timestamp,
    check_name, strict_json,
};
use crate::policy::Snapshot;

/// Longest answer that is read.
const MOST_REPLY_BYTES: usize = 64 * 1024;
/// Longest request that is sent.
const MOST_SENT_BYTES: usize = 64 * 1024;
/// Most values of all attributes together.
const MOST_VALUES: usize = 1_000;
/// For how long a no is remembered.
const NO_MS: i64 = 1_000;
/// What words in the names of headers and parameters begin or end with that hold secrets.
const SECRET_ENDS: [&str; 9] =
    ["key", "keys", "token", "secret", "password", "pwd", "cookie", "signature", "assertion"];
const SECRET_BEGINNINGS: [&str; 9] =
    ["apikey", "authoriz", "authenti", "passw", "passphrase", "passcode", "credential", "secret", "saml"];
/// Such words themselves.
const SECRET_WORDS: [&str; 17] = [
    "auth",
    "bearer",
    "code",
    "dsn",
    "hmac",
    "jwt",
    "keypair",
    "macaroon",
    "otp",
    "pin",
    "pass",
    "session",
    "sessionid",
    "sid",
    "sig",
    "ticket",
    "vk",
];
/// Names that hold none, though they look so.
const NO_SECRETS: [&str; 6] =
    ["pin-memory", "pass-through", "session-length", "code-interpreter", "sig-figs", "monkey"];

/// Whom to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegatedOptions {
    /// Where: `https://`, or `http://` on this machine.
    pub url: SmolStr,
    /// For the whole exchange.
    pub timeout: Duration,
    /// How many are asked about at once; more are refused.
    pub at_once: usize,
    /// For how long a yes is remembered, in milliseconds; 0 for not at all.
    pub cache_ms: i64,
    /// How many answers are remembered.
    pub cache_entries: usize,
    /// What a principal is that is named without its type: `User` or `Service`.
    pub principal_type: &'static str,
    /// Whom a bare yes proves, an empty body or `{}`; `None` refuses it.
    pub nameless: Option<EntityUid>,
    /// Headers that are sent on; without a list, all but those that hold secrets.
    pub headers: Option<Vec<SmolStr>>,
    /// Headers that hold keys of this server's callers, which are nobody else's to see either.
    pub key_headers: Vec<SmolStr>,
    /// Which attributes are teams, orgs, roles and tags.
    pub attributes: Attributes,
    /// Whether keys (`tg_…`) are this server's own, which are nobody else's to see.
    pub own_keys: bool,
    /// Whether the next provider is asked where the endpoint does not answer.
    pub pass_on_error: bool,
}

impl DelegatedOptions {
    /// An endpoint with what is usual: 2 seconds for each exchange, 64 at once, a yes is remembered for 30 seconds, names are
    /// those of users, and a bare yes proves nobody.
    #[must_use]
    pub fn new(url: impl Into<SmolStr>) -> Self {
        Self {
            url: url.into(),
            timeout: Duration::from_secs(2),
            at_once: 64,
            cache_ms: 30_000,
            cache_entries: 10_000,
            principal_type: "User",
            nameless: None,
            headers: None,
            key_headers: Vec::new(),
            attributes: Attributes::default(),
            own_keys: true,
            pass_on_error: false,
        }
    }
}

/// The names of attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Those that are teams.
    pub teams: Vec<SmolStr>,
    /// Those that are orgs.
    pub orgs: Vec<SmolStr>,
    /// Those that are roles; none of them may be Tollgate's own.
    pub roles: Vec<SmolStr>,
    /// Those that are tags.
    pub tags: Vec<SmolStr>,
}

impl Default for Attributes {
    fn default() -> Self {
        let one = |name: &'static str| vec![SmolStr::new_static(name)];
        Self { teams: one("teams"), orgs: one("orgs"), roles: one("roles"), tags: one("tags") }
    }
}

/// Asks somebody else.
pub struct DelegatedProvider {
    name: String,
    options: Arc<DelegatedOptions>,
    fetch: Arc<dyn Fetch>,
    recent: Arc<Recent<(Timestamp, Answered)>>,
    at_once: AtOnce,
    /// Warns once that one of its users is undeclared while the bundle declares a similar one.
    unlinked: Arc<UnlinkedWarning>,
    away: Away,
}

/// What the endpoint said.
#[derive(Debug, Clone)]
enum Answered {
    Yes(Arc<Identity>),
    No(Refusal),
    /// It said nothing that can be used.
    Nothing(Refusal),
}

impl DelegatedProvider {
    /// Called `name`, asking by `fetch`.
    pub fn new(name: String, options: DelegatedOptions, fetch: Arc<dyn Fetch>) -> Self {
        let recent = Arc::new(Recent::new(options.cache_entries));
        let at_once = AtOnce::new(options.at_once);
        let (unlinked, away) = (Arc::default(), Away::default());
        Self { name, options: Arc::new(options), fetch, recent, at_once, unlinked, away }
    }

    /// Warns if the proved principal seems to be the same as a declared one.
    fn looked_at(&self, verdict: Later<Verdict>, snapshot: &Arc<Snapshot>) -> Later<Verdict> {
        let (name, unlinked, snapshot) = (self.name.clone(), Arc::clone(&self.unlinked), Arc::clone(snapshot));
        let look = move |verdict: Verdict| {
            if let Verdict::Proved(identity) = &verdict {
                let advice = "let the endpoint name the declared one";
                let proved = Proved { by: &name, principal: &identity.principal, email: None, advice };
                unlinked.look(&proved, &snapshot);
            }
            verdict
        };
        match verdict {
            Later::Ready(verdict) => Later::Ready(verdict.map(look)),
            Later::Pending(verdict) => Later::pending(async move { look(verdict.await) }),
        }
    }

    fn ask(&self, body: SecretText, now: Timestamp) -> Later<Verdict> {
        let key = digest(body.expose());
        match self.recent.get(&key) {
            Some((until, answered)) if now < until => return Later::ready(self.options.verdict(answered)),
            Some(_ended) => self.recent.forget(&key),
            None => {}
        }
        let Some(place) = self.at_once.take() else {
            let busy = away("too many are asked about at once").retry_after(1);
            return Later::ready(self.options.verdict(Answered::Nothing(busy)));
        };
        let asked = self.fetch.fetch(Ask {
            url: self.options.url.clone(),
            body: Some(("application/json", body)),
            headers: Vec::new(),
            timeout: self.options.timeout,
            most_bytes: MOST_REPLY_BYTES,
        });
        let (options, recent, away) = (Arc::clone(&self.options), Arc::clone(&self.recent), self.away.clone());
        Later::pending(async move {
            let answered = options.read(asked.await);
            drop(place);
            away.note(matches!(answered, Answered::Nothing(_)));
            let kept_ms = match &answered {
                Answered::Yes(_) => options.cache_ms,
                Answered::No(_) => options.cache_ms.min(NO_MS),
                Answered::Nothing(_) => 0,
            };
            if kept_ms > 0 {
                let until = Timestamp::from_millis(now.as_millis().saturating_add(kept_ms));
                recent.put(key, (until, answered.clone()));
            }
            options.verdict(answered)
        })
    }
}

impl Authenticator for DelegatedProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_away(&self) -> bool {
        self.away.is_so()
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let (Credential::Bearer(secret) | Credential::ApiKey(secret)) = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        if is_own(secret, self.options.own_keys) {
            return Later::ready(Verdict::Passed);
        }
        match self.options.body(secret, &presented.request) {
            Some(body) => self.looked_at(self.ask(body, now), snapshot),
            None => {
                let message = "the request is too long to be told to whoever knows the credential";
                Later::ready(Verdict::Refused(Refusal::new(RefusalReason::Malformed, message)))
            }
        }
    }
}

impl DelegatedOptions {
    fn verdict(&self, answered: Answered) -> Verdict {
        match answered {
            Answered::Yes(identity) => Verdict::Proved(identity),
            Answered::Nothing(refusal) if self.pass_on_error => Verdict::Unavailable(refusal),
            Answered::No(refusal) | Answered::Nothing(refusal) => Verdict::Refused(refusal),
        }
    }

    /// What is sent; `None` where that is too much.
    fn body(&self, secret: &SecretText, request: &Described) -> Option<SecretText> {
        let mut headers = Map::new();
        for (name, value) in request.headers.iter().filter(|(name, _)| self.sends(name)) {
            headers.insert(name.to_string(), value.as_str().into());
        }
        let mut params = Map::new();
        for (name, value) in request.params.iter().filter(|(name, _)| !is_secret_name(name)) {
            match params.get_mut(name.as_str()) {
                None => drop(params.insert(name.to_string(), value.as_str().into())),
                Some(Value::Array(values)) => values.push(value.as_str().into()),
                Some(one) => *one = json!([one.take(), value.as_str()]),
            }
        }
        let path = bare_path(&request.path);
        let request = json!({ "path": path, "headers": headers, "params": params });
        let body = json!({ "api_key": secret.expose(), "request": request }).to_string();
        (body.len() <= MOST_SENT_BYTES).then(|| SecretText::new(body))
    }

    fn sends(&self, name: &SmolStr) -> bool {
        !is_secret_name(name)
            && !self.key_headers.contains(name)
            && self.headers.as_ref().is_none_or(|listed| listed.contains(name))
    }

    fn read(&self, replied: Result<Reply, FetchError>) -> Answered {
        let reply = match replied {
            Ok(reply) => reply,
            Err(error) => return Answered::Nothing(away(&error.to_string())),
        };
        match reply.status {
            200 => self.yes(&reply).unwrap_or_else(|fault| Answered::No(fault.into())),
            401 | 403 => Answered::No(refused()),
            429 | 500..=599 => Answered::Nothing(away(&format!("it answered with {}", reply.status))),
            status => Answered::No(unusable(&format!("answered with {status}"))),
        }
    }

    /// Whom a 200 proves.
    fn yes(&self, reply: &Reply) -> Result<Answered, Fault> {
        let value = if reply.body.is_empty() {
            Value::Object(Map::new())
        } else {
            let kind = reply.header("content-type").unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case("application/json") {
                return Err(Fault::Unusable("a body that is not JSON"));
            }
            strict_json::from_slice(&reply.body).map_err(|_| Fault::Unusable("a body that is not JSON"))?
        };
        let Value::Object(members) = value else { return Err(Fault::Unusable("JSON that is not an object")) };
        let principal = match members.get("principal") {
            // An answer that says something else than nothing may say no.
            None if !members.is_empty() => return Err(Fault::Nobody("an answer without a principal")),
            None => self
                .nameless
                .clone()
                .ok_or(Fault::Nobody("an answer without a principal, and `nameless` is not configured"))?,
            Some(Value::Null) => return Err(Fault::Nobody("a principal that is null")),
            Some(Value::String(name)) => self.principal(name)?,
            Some(_) => return Err(Fault::Unusable("a principal that is not a text")),
        };
        let said = match members.get("attributes") {
            None | Some(Value::Null) => Said::default(),
            Some(Value::Object(attributes)) => self.said(attributes).map_err(Fault::Unusable)?,
            Some(_) => return Err(Fault::Unusable("attributes that are not an object")),
        };
        Ok(Answered::Yes(Arc::new(Identity { said, ..Identity::new(principal, AuthMethod::Delegated) })))
    }

    /// A principal such as `alice` or `Service::"bot"`, and never an id that is reserved for Tollgate.
    fn principal(&self, name: &str) -> Result<EntityUid, Fault> {
        let uid = if name.contains("::") { name.parse().ok() } else { EntityUid::new(self.principal_type, name).ok() };
        match uid.filter(|uid| matches!(uid.kind(), "User" | "Service")) {
            None => Err(Fault::Unusable("a principal that is not a User or Service")),
            Some(uid) if uid.id().starts_with(RESERVED_ROLE_PREFIX) => {
                Err(Fault::Nobody("an id that is reserved for Tollgate"))
            }
            Some(uid) => Ok(uid),
        }
    }

    fn said(&self, attributes: &Map<String, Value>) -> Result<Said, &'static str> {
        let mut left = MOST_VALUES;
        let mut of = |names: &[SmolStr]| {
            let mut all: Vec<SmolStr> = Vec::new();
            for value in names.iter().filter_map(|name| attributes.get(name.as_str())) {
                let texts: Vec<&Value> = match value {
                    Value::Null => Vec::new(),
                    Value::Array(values) => values.iter().collect(),
                    one => vec![one],
                };
                for text in texts {
                    let text = text.as_str().ok_or("an attribute that is no text")?;
                    left = left.checked_sub(1).ok_or("too many attributes")?;
                    // A text that cannot be a name is not a team or role, and must not lock the user out.
                    if check_name(text).is_ok() {
                        all.push(text.into());
                    }
                }
            }
            Ok::<_, &'static str>(all)
        };
        let Attributes { teams, orgs, roles, tags } = &self.attributes;
        let (teams, orgs, roles, tags) = (of(teams)?, of(orgs)?, of(roles)?, of(tags)?);
        // What is Tollgate's own is for the operator to give.
        let roles = roles.into_iter().filter(|role| !role.starts_with(RESERVED_ROLE_PREFIX)).collect();
        Ok(Said { teams: teams.into(), orgs: orgs.into(), roles, tags: tags.into(), ..Said::default() })
    }
}

/// The reason why a 200 proves no principal.
enum Fault {
    /// The answer rejects the credential.
    Nobody(&'static str),
    /// The answer is unreadable: it does not come from the endpoint, or the endpoint is broken.
    Unusable(&'static str),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Nobody(what) => refused().about(what),
            Fault::Unusable(what) => unusable(what),
        }
    }
}

/// A path without what may hold secrets: parameters, however they begin, and whoever stands before a host.
fn bare_path(path: &str) -> &str {
    let small = path.to_ascii_lowercase();
    let ends = [small.find(['?', '#', ';']), small.find("%3f"), small.find("%23"), small.find("%3b")];
    let path = path.get(..ends.into_iter().flatten().min().unwrap_or(path.len())).unwrap_or_default();
    match path.split_once("//") {
        Some((before, rest)) if before.is_empty() || before.ends_with(':') => {
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => path,
    }
}

/// Whether a header or a parameter of this name may hold a secret, so that it is never sent on.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
    if NO_SECRETS.contains(&&*name) {
        return false;
    }
    let is_secret = |word: &str| {
        // `key2` and `keyv2` are keys too.
        let word = word.trim_end_matches(|end: char| end.is_ascii_digit() || end == 'v');
        SECRET_WORDS.contains(&word)
            || SECRET_ENDS.iter().any(|end| word.ends_with(end))
            || SECRET_BEGINNINGS.iter().any(|beginning| word.starts_with(beginning))
    };
    name == "x-forwarded-client-cert" || name == "connection-string" || name.split('-').any(is_secret)
}

fn refused() -> Refusal {
    Refusal::new(RefusalReason::Wrong, "whoever knows such credentials refuses this one")
}

fn unusable(what: &str) -> Refusal {
    let message = "whoever knows such credentials gave no answer that can be used";
    Refusal::new(RefusalReason::ProviderUnavailable, message).about(what)
}

fn away(why: &str) -> Refusal {
    let message = "whoever knows such credentials does not answer";
    Refusal::new(RefusalReason::ProviderUnavailable, message).about(why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn of_a_path_what_may_be_secret_is_not_sent_on() {
        for (path, sent) in [
            ("/v1/chat", "/v1/chat"),
            ("/v1/chat?key=x", "/v1/chat"),
            ("/v1/chat%3Fkey=x#y", "/v1/chat"),
            ("/v1/x;jsessionid=y", "/v1/x"),
            ("https://u:p@h/x", "/x"),
            ("//u:p@h/x", "/x"),
            ("https://u:p@h", "/"),
            ("/a//b", "/a//b"),
            ("", ""),
        ] {
            assert_eq!(bare_path(path), sent, "{path}");
        }
    }

    #[test]
    fn secrets_are_not_sent_on() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-api-key",
            "api-key",
            "x-auth-token",
            "key",
            "session",
            "x-forwarded-client-cert",
            "access_token",
            "X-Amz-Signature",
            "client_secret",
            "password",
            "api_key",
            "access-key",
            "Ocp-Apim-Subscription-Key",
            "x-functions-key",
            "x-bf-vk",
            "x_pwd",
            "sig",
            "jwt",
            "code",
            "x-passphrase",
            "passcode",
            "x-bearer",
            "client_assertion",
            "SAMLResponse",
            "x-api-keys",
            "api_key_2",
            "apikeyv2",
            "private_key_pem",
            "x-keypair",
            "userpwd",
            "sid",
            "ticket",
            "hmac",
            "connection_string",
            "id_token",
            "x-goog-authenticated-user",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "user-agent",
            "content-type",
            "x-tenant",
            "accept",
            "x-forwarded-for",
            "model",
            "x-signal",
            "encoding",
            "max_tokens",
            "tokenizer",
            "author",
            "session_length",
            "pass_through",
            "pin_memory",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
