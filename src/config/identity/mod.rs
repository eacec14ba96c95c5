//! `identity:`, who may be whom: the providers in their order, as written and then as meant.
//!
//! ```yaml
//! identity:
//!   loopback: open            # or closed: callers on this machine prove themselves too
//!   key_headers: [x-api-key, api-key]
//!   providers:
//!     - static: { tokens: [{ token_file: /run/secrets/dev, principal: 'User::"alice"' }] }
//! ```

mod asking;
mod basic;
mod certificate;
mod claims;
mod delegated;
mod digest;
mod failures;
mod introspection;
mod jwt;
mod keys;
mod roles;
mod static_token;
mod tokens;

use std::path::PathBuf;

use hyper::header::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;
use smol_str::SmolStr;

use super::faults::NodeError;
use super::secret_files::WatchedFile;
use crate::edge::identity::DelegatedOptions;
use crate::edge::identity::Mapping;
use crate::edge::identity::claims::Mapping as ClaimMapping;
use crate::edge::identity::introspection::IntrospectionSettings;
use crate::edge::identity::jwt::JwtSettings;
use crate::gate::FailureLimits;
use crate::policy::syntax::{Located, Place};

pub use basic::BasicSettings;
pub use certificate::ForwardedCertificates;
pub use digest::DigestSettings;
pub use keys::{FirstKey, KeySettings};
pub use static_token::StaticTokens;
pub use tokens::TokenSettings;

/// Most providers.
const MAX_PROVIDERS: usize = 32;
/// Longest name of one.
const MAX_NAME_BYTES: usize = 64;
/// What a provider is.
const ONE_KIND: &str = "a provider is of one kind: `keys`, `static`, `jwt`, `introspection`, `basic`, `digest`, `delegated`, \
                        `client_certificate`, `forwarded_certificate`";
/// Headers that hold no key: other credentials, and what every request has.
const NO_KEY_HEADERS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-forwarded-client-cert",
    "host",
    "content-type",
    "content-length",
];

/// Who may be whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Whether callers on loopback prove themselves too.
    pub loopback_closed: bool,
    /// Headers that hold a caller's key, besides `Authorization`.
    pub key_headers: Vec<HeaderName>,
    /// How many credentials that prove nobody are borne; `None` for any number.
    pub failures: Option<FailureLimits>,
    /// Whether the policies that ship say who manages keys where the bundle does not.
    pub admin_policies: bool,
    /// Tollgate's own tokens, where it hands them out.
    pub tokens: Option<TokenSettings>,
    /// Providers, in the order in which they are asked.
    pub providers: Vec<Provider>,
    /// Files of the providers that hold secrets or determine trust.
    pub files: Vec<WatchedFile>,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        let key_headers = ["x-api-key", "api-key"].map(HeaderName::from_static).into();
        let failures = Some(FailureLimits::default());
        let providers = vec![Provider::keys()];
        let tokens = Some(TokenSettings::default());
        Self {
            loopback_closed: false,
            key_headers,
            failures,
            admin_policies: true,
            tokens,
            providers,
            files: Vec::new(),
        }
    }
}

/// A provider that is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// What logs and metrics call it; its kind, where nothing is said.
    pub name: String,
    /// Whether the next provider is asked where this one cannot tell, because whom it asks does not answer.
    pub pass_on_error: bool,
    /// What it knows.
    pub kind: ProviderKind,
}

/// What a provider knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    /// API keys.
    Keys(KeySettings),
    /// Fixed tokens, for development.
    Static(StaticTokens),
    /// Tokens of other issuers.
    Jwt(JwtSettings),
    /// Opaque tokens, which another server is asked about.
    Introspection(Box<IntrospectionSettings>),
    /// Names and passwords.
    Basic(BasicSettings),
    /// Names and proofs of passwords.
    Digest(DigestSettings),
    /// Somebody else's endpoint.
    Delegated(Box<DelegatedOptions>),
    /// The listener's client certificates.
    ClientCertificate(Vec<Mapping>),
    /// Client certificates that a proxy tells of.
    ForwardedCertificate(ForwardedCertificates),
}

/// As written.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Whether decisions are open to this machine without a credential. Default: open.
    loopback: Option<Loopback>,
    /// Headers that hold a key. Default: `x-api-key` and `api-key`.
    key_headers: Option<Located<Vec<String>>>,
    /// How those who fail to prove themselves are slowed.
    failures: Option<Located<failures::Raw>>,
    /// Whether the policies that ship say who manages keys where the bundle says nothing of it. Default: on.
    admin_policies: Option<Switch>,
    /// Tollgate's own tokens. Left out: handed out where `keys` is among the providers.
    tokens: Option<Located<tokens::Raw>>,
    /// Who is asked whom a credential proves, in this order. Left out: `keys`.
    providers: Option<Located<Vec<Located<RawProvider>>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum Loopback {
    Open,
    Closed,
}

/// One member says of which kind it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct RawProvider {
    /// What it is called in logs. Default: as its kind.
    name: Option<String>,
    /// Whether it is asked. Default: true.
    enabled: Option<bool>,
    /// What becomes of a credential while whom it asks is away. Default: refuse.
    on_error: Option<OnError>,
    /// API keys.
    keys: Option<keys::Raw>,
    /// Fixed tokens, for development.
    r#static: Option<static_token::Raw>,
    /// Tokens of other issuers (RFC 7519).
    jwt: Option<jwt::Raw>,
    /// Opaque tokens, which an endpoint is asked about (RFC 7662).
    introspection: Option<introspection::Raw>,
    /// Names and passwords (RFC 7617).
    basic: Option<basic::Raw>,
    /// Somebody else's endpoint says whom a credential proves.
    delegated: Option<delegated::Raw>,
    /// Proofs of passwords (RFC 7616, SHA-256).
    digest: Option<digest::Raw>,
    /// The listener's client certificates.
    client_certificate: Option<certificate::Raw>,
    /// Client certificates of which a trusted proxy tells.
    forwarded_certificate: Option<certificate::RawForwarded>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum OnError {
    Refuse,
    Pass,
}

impl IdentitySettings {
    /// How API keys are taken, where they are.
    #[must_use]
    pub fn keys(&self) -> Option<&KeySettings> {
        self.providers.iter().find_map(|provider| match &provider.kind {
            ProviderKind::Keys(settings) => Some(settings),
            _ => None,
        })
    }

    /// The settings of the section.
    ///
    /// # Errors
    /// The first setting that is wrong, with its place.
    pub(super) fn checked(raw: Raw) -> Result<Self, NodeError> {
        let mut settings = Self { loopback_closed: raw.loopback == Some(Loopback::Closed), ..Self::default() };
        if let Some(Located { value: names, place }) = raw.key_headers {
            settings.key_headers = key_headers(&names).map_err(|message| wrong(place, message))?;
        }
        if let Some(Located { value: failures, place }) = raw.failures {
            settings.failures = failures.checked().map_err(|message| wrong(place, message))?;
        }
        settings.admin_policies = raw.admin_policies != Some(Switch::Off);
        if let Some(raw) = raw.providers {
            let is_on = |raw: &&Located<RawProvider>| raw.value.enabled != Some(false);
            settings.files = raw.value.iter().filter(is_on).flat_map(|raw| raw.value.files()).collect();
            settings.providers = providers(raw)?;
            settings.say_whose_keys_are();
            settings.say_which_issuers_there_are();
        }
        settings.tokens = match raw.tokens {
            Some(Located { value: tokens, place }) => tokens.checked().map_err(|message| wrong(place, message))?,
            None => settings.keys().map(|_| TokenSettings::default()),
        };
        Ok(settings)
    }

    /// Tells those that ask others whether keys are this server's own, and where they stand.
    fn say_whose_keys_are(&mut self) {
        let own_keys = self.keys().is_some();
        let key_headers: Vec<SmolStr> = self.key_headers.iter().map(|name| name.as_str().into()).collect();
        for provider in &mut self.providers {
            if let ProviderKind::Delegated(options) = &mut provider.kind {
                options.own_keys = own_keys;
                options.key_headers.clone_from(&key_headers);
            }
        }
    }

    /// The name and the mapping of every issuer, in any provider.
    pub fn issuers(&self) -> impl Iterator<Item = (&SmolStr, &ClaimMapping)> {
        self.providers.iter().flat_map(|provider| {
            let (jwt, introspection) = match &provider.kind {
                ProviderKind::Jwt(jwt) => (jwt.issuers.as_slice(), None),
                ProviderKind::Introspection(asked) => (&[][..], Some((&asked.issuer, &asked.mapping))),
                _ => (&[][..], None),
            };
            jwt.iter().map(|issuer| (&issuer.checks.issuer, &issuer.mapping)).chain(introspection)
        })
    }

    /// Passes the known issuers to the directory, so that it does not treat the id of another issuer as its own.
    fn say_which_issuers_there_are(&mut self) {
        let known: Vec<SmolStr> = self.issuers().map(|(issuer, _)| issuer.clone()).collect();
        for provider in &mut self.providers {
            match &mut provider.kind {
                ProviderKind::Jwt(jwt) => {
                    for issuer in &mut jwt.issuers {
                        issuer.mapping.known_issuers.clone_from(&known);
                    }
                }
                ProviderKind::Introspection(asked) => asked.mapping.known_issuers.clone_from(&known),
                _ => {}
            }
        }
    }
}

/// An error of this section.
fn wrong(place: Place, message: impl Into<String>) -> NodeError {
    NodeError::of_setting("identity", place, message)
}

/// Headers that hold a key. Others than these hold something else, so that every request with one would bring a credential
/// too many, or a wrong one.
fn key_headers(names: &[String]) -> Result<Vec<HeaderName>, String> {
    let mut headers: Vec<HeaderName> = Vec::with_capacity(names.len());
    for name in names {
        let header: HeaderName = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
        if NO_KEY_HEADERS.contains(&header.as_str()) {
            return Err(format!("`{name}` holds no key alone; `authorization` is read in any case"));
        }
        if headers.contains(&header) {
            return Err(format!("`{name}` stands twice; case does not matter"));
        }
        headers.push(header);
    }
    Ok(headers)
}

/// The providers that are on, in their order.
///
/// # Errors
/// The first provider that is wrong, with its place.
fn providers(list: Located<Vec<Located<RawProvider>>>) -> Result<Vec<Provider>, NodeError> {
    if list.value.len() > MAX_PROVIDERS {
        return Err(wrong(list.place, format!("there may be {MAX_PROVIDERS} providers at most")));
    }
    let keeps_keys = list.value.iter().any(|raw| raw.value.keys.is_some() && raw.value.enabled != Some(false));
    let mut known: Vec<Provider> = Vec::with_capacity(list.value.len());
    for Located { value: raw, place } in list.value {
        let wrong = |message: String| wrong(place, message);
        if raw.enabled == Some(false) && raw.kinds() == 1 {
            // Its files need not be there, nor be right.
            continue;
        }
        let provider = Provider::checked(raw, keeps_keys).map_err(wrong)?;
        if known.iter().any(|other| other.name == provider.name) {
            return Err(wrong(format!("two providers are called `{}`; give them a `name` each", provider.name)));
        }
        let of_keys = |provider: &Provider| matches!(provider.kind, ProviderKind::Keys(_));
        if provider.directories() + known.iter().map(Provider::directories).sum::<usize>() > 1 {
            let message = "only one issuer may have `directory: true`, since an `external_id` without an issuer \
                           belongs to it";
            return Err(wrong(message.to_owned()));
        }
        if of_keys(&provider) && known.iter().any(of_keys) {
            return Err(wrong("`keys` is there once, since there is one store of them".to_owned()));
        }
        known.push(provider);
    }
    Ok(known)
}

impl RawProvider {
    /// The files of the provider that hold secrets or determine trust.
    fn files(&self) -> Vec<WatchedFile> {
        let mut files = Vec::new();
        let secret = |setting: &str, path: Option<&PathBuf>| path.map(|path| WatchedFile::secret(setting, path));
        files.extend(secret("`keys`: `pepper_file`", self.keys.as_ref().and_then(|keys| keys.pepper_file())));
        files.extend(secret("`basic`: `htpasswd`", self.basic.as_ref().and_then(|basic| basic.htpasswd())));
        files.extend(self.digest.iter().map(|digest| WatchedFile::secret("`digest`: `file`", digest.file())));
        let client_secret = self.introspection.iter().map(introspection::Raw::client_secret_file);
        files.extend(client_secret.map(|path| WatchedFile::secret("`introspection`: `client_secret_file`", path)));
        files.extend(self.r#static.iter().flat_map(static_token::Raw::files));
        files.extend(self.jwt.iter().flat_map(jwt::Raw::files));
        files
    }

    /// Of how many kinds it is.
    fn kinds(&self) -> usize {
        let named = [
            self.keys.is_some(),
            self.r#static.is_some(),
            self.jwt.is_some(),
            self.introspection.is_some(),
            self.basic.is_some(),
            self.delegated.is_some(),
            self.digest.is_some(),
            self.client_certificate.is_some(),
            self.forwarded_certificate.is_some(),
        ];
        named.into_iter().filter(|named| *named).count()
    }
}

impl Provider {
    /// The number of issuers to which an `external_id` without an issuer could belong.
    fn directories(&self) -> usize {
        match &self.kind {
            ProviderKind::Jwt(jwt) => jwt.issuers.iter().filter(|issuer| issuer.mapping.directory).count(),
            ProviderKind::Introspection(asked) => usize::from(asked.mapping.directory),
            _ => 0,
        }
    }

    /// The one that there is where nobody names any.
    fn keys() -> Self {
        Self { name: "keys".to_owned(), pass_on_error: false, kind: ProviderKind::Keys(KeySettings::default()) }
    }

    fn checked(raw: RawProvider, keeps_keys: bool) -> Result<Self, String> {
        // First: what is wrong with one of two is no help to whoever wrote them as one.
        if raw.kinds() != 1 {
            return Err(ONE_KIND.to_owned());
        }
        let (client_certificate, forwarded_certificate) = (raw.client_certificate, raw.forwarded_certificate);
        let RawProvider {
            name,
            enabled: _,
            on_error,
            keys,
            r#static,
            jwt,
            introspection,
            basic,
            delegated,
            digest,
            ..
        } = raw;
        let mut kinds = Vec::new();
        if let Some(raw) = keys {
            kinds.push(("keys", ProviderKind::Keys(raw.checked()?)));
        }
        if let Some(raw) = r#static {
            kinds.push(("static", ProviderKind::Static(raw.checked()?)));
        }
        if let Some(raw) = jwt {
            kinds.push(("jwt", ProviderKind::Jwt(raw.checked()?)));
        }
        if let Some(raw) = introspection {
            kinds.push(("introspection", ProviderKind::Introspection(Box::new(raw.checked()?))));
        }
        if let Some(raw) = basic {
            kinds.push(("basic", ProviderKind::Basic(raw.checked(keeps_keys)?)));
        }
        if let Some(raw) = client_certificate {
            kinds.push(("client_certificate", ProviderKind::ClientCertificate(raw.checked()?)));
        }
        if let Some(raw) = forwarded_certificate {
            kinds.push(("forwarded_certificate", ProviderKind::ForwardedCertificate(raw.checked()?)));
        }
        if let Some(raw) = digest {
            kinds.push(("digest", ProviderKind::Digest(raw.checked()?)));
        }
        let pass_on_error = on_error == Some(OnError::Pass);
        if let Some(raw) = delegated {
            kinds.push(("delegated", ProviderKind::Delegated(Box::new(raw.checked(pass_on_error)?))));
        }
        let (Some((called, kind)), true) = (kinds.pop(), kinds.is_empty()) else {
            return Err(ONE_KIND.to_owned());
        };
        if on_error == Some(OnError::Pass) && !asks_others(&kind) {
            return Err(format!(
                "`on_error` is for providers that ask others (jwt, introspection, delegated), not for `{called}`"
            ));
        }
        let name = name.unwrap_or_else(|| called.to_owned());
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(format!("the name of a provider has 1 to {MAX_NAME_BYTES} bytes"));
        }
        Ok(Self { name, pass_on_error, kind })
    }
}

/// Whether a provider can be unable to tell because whom it asks is away.
fn asks_others(kind: &ProviderKind) -> bool {
    matches!(kind, ProviderKind::Jwt(_) | ProviderKind::Introspection(_) | ProviderKind::Delegated(_))
}
