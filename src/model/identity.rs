//! Who asks, as a credential proved it: a principal, and what the credential says of it beside the bundle.

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use smol_str::{SmolStr, format_smolstr};

use super::decision::DecisionCode;
use super::facts::{AuthMethod, Timestamp};
use super::hex;
use super::kind::Kind;
use super::limit::KeyLimit;
use super::path::{PathError, normal_pattern};
use super::uid::{EntityUid, check_name};

/// What roles of Tollgate's own begin with: no token, directory or other provider may hand them out.
pub const RESERVED_ROLE_PREFIX: &str = "tollgate:";
/// The role of whoever may do everything on this server.
pub const ADMINISTRATOR: &str = "tollgate:administrator";
/// The role of a gateway: it may say who asks, reserve and settle.
pub const GATEWAY: &str = "tollgate:gateway";
/// The role of whoever watches: metrics, the bundle's state, usage.
pub const MONITOR: &str = "tollgate:monitor";

/// A principal that a credential proved. Only [`crate::gate::authenticate`] hands one to a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Whom rules see: a `User` or `Service`, or an `ApiKey`.
    pub principal: EntityUid,
    /// Whose key it is, where the principal is one.
    pub owner: Option<EntityUid>,
    /// How it was proved.
    pub method: AuthMethod,
    /// What the credential says of the principal.
    pub said: Said,
    /// What becomes `context.metadata`; the request may not say otherwise.
    pub metadata: Box<[(SmolStr, SmolStr)]>,
    /// The team that pays for what a key uses.
    pub payer: Option<SmolStr>,
    /// What a key is narrowed to.
    pub narrowed: Option<Arc<Narrowed>>,
    /// A key's own limits, beside those of the bundle.
    pub limits: Arc<[KeyLimit]>,
    /// When the credential ends; nothing remembers it longer.
    pub expires_at: Option<Timestamp>,
    /// When the key itself ends, where it is one; a token that came of it ends sooner.
    pub key_ends_at: Option<Timestamp>,
    /// What is kept of the credential, so that what came of it ends when that is replaced; `None` where nothing is.
    pub mark: Option<CredentialMark>,
    /// Whether its secret was replaced by a newer one, and is taken only for a while.
    pub replaced: bool,
    /// Whether it was a token of Tollgate's own, which is not exchanged once more.
    pub exchanged: bool,
}

impl Identity {
    /// A principal of which nothing else is said.
    #[must_use]
    pub fn new(principal: EntityUid, method: AuthMethod) -> Self {
        Self {
            principal,
            owner: None,
            method,
            said: Said::default(),
            metadata: Box::default(),
            payer: None,
            narrowed: None,
            limits: Arc::default(),
            expires_at: None,
            key_ends_at: None,
            mark: None,
            replaced: false,
            exchanged: false,
        }
    }
}

/// Tells what is kept of a credential from what is kept of another: half of a SHA-256. It says nothing of the credential,
/// as long as what is kept does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialMark([u8; 16]);

impl CredentialMark {
    /// Of what is kept: a hash that is keyed, salted, or of a random secret.
    #[must_use]
    pub fn of(kept: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(kept).into();
        let mut mark = [0; 16];
        mark.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(mark)
    }

    /// As it is written: 32 hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> String {
        hex::encode(&self.0)
    }
}

/// What a credential says of its principal, beside what the bundle says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Whether `teams` and `orgs` replace those of the bundle, or join them.
    pub replaces: bool,
    /// Teams, by id; one that the bundle does not declare is none.
    pub teams: Box<[SmolStr]>,
    /// Orgs, by id; as teams.
    pub orgs: Box<[SmolStr]>,
    /// Roles. Providers leave out those that begin with [`RESERVED_ROLE_PREFIX`].
    pub roles: Box<[SmolStr]>,
    /// Roles in teams, as `team:role`.
    pub team_roles: Box<[SmolStr]>,
    /// Tags.
    pub tags: Box<[SmolStr]>,
    /// The email address.
    pub email: Option<SmolStr>,
    /// The id in the company's own directory.
    pub external_id: Option<SmolStr>,
}

/// What a key is narrowed to, beyond what its owner has: each list is a forbid of everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// Models as rules name them: `account/model`, an alias, `account/*`, `*/llama-*`. Routers then want a list too.
    pub models: Option<Box<[SmolStr]>>,
    /// Routers.
    pub routers: Option<Box<[SmolStr]>>,
    /// Actions.
    pub actions: Option<Box<[SmolStr]>>,
    /// Paths of the gateway, each with the methods it may be asked with (none: all). A `*` at the end takes every rest.
    pub paths: Option<Box<[AllowedPath]>>,
    /// Networks that `context.ip` must be in.
    pub networks: Option<Box<[Network]>>,
}

impl Narrowed {
    /// The list of resources of this kind, where the key has one.
    #[must_use]
    pub fn list(&self, kind: Kind) -> Option<&[SmolStr]> {
        match kind {
            Kind::MODEL => self.models.as_deref(),
            Kind::ROUTER => self.routers.as_deref(),
            _ => None,
        }
    }
}

/// A path that a key may be used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedPath {
    /// `/v1/chat/completions`, or `/v1/*`.
    pub path: SmolStr,
    /// Methods, in capitals; none for all.
    pub methods: Box<[SmolStr]>,
}

/// A network: an address, and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl AllowedPath {
    /// This path with these methods, in the form that requests' paths are compared in; `None` where no request has such a
    /// path ([`RequestPath`](super::path::RequestPath)), a `*` stands elsewhere than at its end, or one of the methods is
    /// no word in capitals.
    #[must_use]
    pub fn new(path: &str, methods: Box<[SmolStr]>) -> Option<Self> {
        let (normal, is_beginning) = Self::normal(path).ok()?;
        // A decoded `*` would be treated as the wildcard for the rest of the path.
        let is_plain = check_name(path).is_ok() && !normal.contains('*');
        let is_taken = is_plain && methods.iter().all(|method| Self::is_method(method));
        let path = if is_beginning { format_smolstr!("{normal}*") } else { normal };
        is_taken.then_some(Self { path, methods })
    }

    /// Why no request has such a path.
    #[must_use]
    pub fn why_not(path: &str) -> Option<PathError> {
        Self::normal(path).err()
    }

    /// The path without a `*` at its end, and whether there is one.
    fn normal(path: &str) -> Result<(SmolStr, bool), PathError> {
        let beginning = path.strip_suffix('*');
        let is_beginning = beginning.is_some();
        normal_pattern(beginning.unwrap_or(path), is_beginning).map(|normal| (normal, is_beginning))
    }

    /// Whether that is a word in capitals, as methods are.
    #[must_use]
    pub fn is_method(text: &str) -> bool {
        (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase())
    }

    /// What the path begins with, where its rest may be any.
    #[must_use]
    pub fn beginning(&self) -> Option<&str> {
        self.path.strip_suffix('*')
    }
}

impl Network {
    /// The address and how many of its leading bits count; an IPv4 network in IPv6's clothes is the IPv4 network.
    #[must_use]
    pub fn canonical(&self) -> (IpAddr, u8) {
        match self.address.to_canonical() {
            IpAddr::V4(address) if self.address.is_ipv6() => (address.into(), self.prefix.saturating_sub(96)),
            address => (address, self.prefix),
        }
    }

    /// Reads `10.0.0.0/8`, `fd00::/8`, or an address alone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                let plain = prefix.bytes().all(|byte| byte.is_ascii_digit());
                (address.parse::<IpAddr>().ok()?, plain.then(|| prefix.parse::<u8>().ok()).flatten()?)
            }
            None => {
                let address: IpAddr = text.parse().ok()?;
                (address, if address.is_ipv4() { 32 } else { 128 })
            }
        };
        let widest = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= widest).then_some(Self { address, prefix })
    }

    /// Whether every address of `other` is in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let ((_, own_prefix), (address, prefix)) = (self.canonical(), other.canonical());
        prefix >= own_prefix && self.contains(address)
    }

    /// Whether `address` is in it. An IPv4 address in IPv6's clothes is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, prefix) = self.canonical();
        match (network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32_u32.saturating_sub(u32::from(prefix));
                let cut = |bits: u32| bits.checked_shr(shift).unwrap_or(0);
                cut(network.to_bits()) == cut(address.to_bits())
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128_u32.saturating_sub(u32::from(prefix));
                let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
                cut(network.to_bits()) == cut(address.to_bits())
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Whose an address is: one machine's, or, of IPv6, that of the /64 which a provider gives to one.
#[must_use]
pub fn source_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address) >> 64 << 64,
    }
}

/// Why nobody is proved: a closed set, as logs and metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// No provider knows credentials of this form.
    NotRecognized,
    /// The form is broken: a checksum, an encoding, a length.
    Malformed,
    /// Well formed, and wrong: an unknown key, a wrong secret, password or signature.
    Wrong,
    /// From nobody that is trusted: an issuer, an algorithm, a certificate authority.
    Untrusted,
    /// For somebody else: the audience or the kind of token.
    WrongAudience,
    /// Not valid yet.
    NotYetValid,
    /// Expired.
    Expired,
    /// Revoked.
    Revoked,
    /// Replaced by a newer secret, and past the grace period.
    Rotated,
    /// Proved, but nobody that may ask: unknown to the bundle, or its owner is gone.
    UnknownPrincipal,
    /// The key is paused.
    Disabled,
    /// Used where it may not be.
    NotAllowedHere,
    /// Too many wrong ones came from there, or for this id.
    TooManyFailures,
    /// Whoever would know does not answer.
    ProviderUnavailable,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::NotRecognized,
        Self::Malformed,
        Self::Wrong,
        Self::Untrusted,
        Self::WrongAudience,
        Self::NotYetValid,
        Self::Expired,
        Self::Revoked,
        Self::Rotated,
        Self::UnknownPrincipal,
        Self::Disabled,
        Self::NotAllowedHere,
        Self::TooManyFailures,
        Self::ProviderUnavailable,
    ];

    /// The reason as logs and metrics have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRecognized => "not_recognized",
            Self::Malformed => "malformed",
            Self::Wrong => "wrong",
            Self::Untrusted => "untrusted",
            Self::WrongAudience => "wrong_audience",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Rotated => "rotated",
            Self::UnknownPrincipal => "unknown_principal",
            Self::Disabled => "disabled",
            Self::NotAllowedHere => "not_allowed_here",
            Self::TooManyFailures => "too_many_failures",
            Self::ProviderUnavailable => "provider_unavailable",
        }
    }

    /// The code of the decision that it makes.
    #[must_use]
    pub const fn code(self) -> DecisionCode {
        match self {
            Self::Revoked => DecisionCode::CredentialRevoked,
            Self::Expired | Self::Rotated => DecisionCode::CredentialExpired,
            Self::Disabled => DecisionCode::PrincipalDisabled,
            Self::ProviderUnavailable => DecisionCode::ProviderUnavailable,
            _ => DecisionCode::Unauthenticated,
        }
    }
}

/// The value of `Retry-After` for an unavailable provider or store with an unknown recovery time.
pub const UNAVAILABLE_RETRY_SECONDS: u64 = 5;

/// That a credential proves nobody, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// What the caller may read: nothing of the credential, and nothing that tells whether somebody exists.
    pub message: String,
    /// What the log gets besides: a key's public id, an issuer. Never a secret.
    pub about: Option<SmolStr>,
    /// When to try again, where waiting helps.
    pub retry_after_seconds: Option<u64>,
}

impl Refusal {
    /// A refusal with a `message` for the caller. If a provider is unavailable, it also has a time to try again.
    pub fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        let retry_after_seconds = (reason == RefusalReason::ProviderUnavailable).then_some(UNAVAILABLE_RETRY_SECONDS);
        Self { reason, message: message.into(), about: None, retry_after_seconds }
    }

    /// The same, with what the log gets besides.
    #[must_use]
    pub fn about(mut self, about: impl Into<SmolStr>) -> Self {
        self.about = Some(about.into());
        self
    }

    /// The same, with when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_machines_or_of_one_network() {
        let source = |address: &str| source_of(address.parse().unwrap());
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(source(one) == source(other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_network_holds_what_is_in_it() {
        for (network, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), holds, "{network:?} {address}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/+8", "10.0.0.0/", "x"] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }
}
