//! `claims:`, what the claims of an issuer mean, as written and then as meant.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use smol_str::SmolStr;

use crate::config::scalars::OneOrMany;
use crate::edge::identity::claims::{
    ClaimPath, ClaimSource, EmailProof, Fold, Link, Mapping, ServiceWhen, Source, Sources, Split, Wanted,
};
use crate::model::{RESERVED_ROLE_PREFIX, check_name};

/// Most alternatives, values, and members of one setting.
const MAX_ITEMS: usize = 1_000;

/// What the claims of an issuer mean.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "claims")]
#[serde(deny_unknown_fields)]
pub(super) struct RawClaims {
    /// The id of a user.
    user: Option<OneOrMany<RawSource>>,
    /// The id of a service.
    service: Option<OneOrMany<RawSource>>,
    /// The id in the issuer's directory. Default: `sub`.
    external_id: Option<OneOrMany<RawSource>>,
    /// Teams.
    teams: Option<OneOrMany<RawSource>>,
    /// Orgs.
    orgs: Option<OneOrMany<RawSource>>,
    /// Roles.
    roles: Option<OneOrMany<RawSource>>,
    /// Roles in teams that the principal is in, each as `team:role`.
    team_roles: Option<OneOrMany<RawSource>>,
    /// Tags.
    tags: Option<OneOrMany<RawSource>>,
    /// The address. Default: `email`.
    email: Option<OneOrMany<RawSource>>,
    /// What becomes `context.metadata`, by name.
    metadata: Option<BTreeMap<String, OneOrMany<RawSource>>>,
}

/// Most texts that `aud` may call this server.
const MAX_AUDIENCES: usize = 100;

/// `audiences:`, one of which a token is for. None would let in the tokens of everybody else's services.
pub(super) fn audiences(said: OneOrMany<String>) -> Result<Vec<SmolStr>, String> {
    let audiences: Vec<SmolStr> = said.0.into_iter().map(SmolStr::from).collect();
    let fits = (1..=MAX_AUDIENCES).contains(&audiences.len()) && !audiences.iter().any(SmolStr::is_empty);
    fits.then_some(audiences)
        .ok_or_else(|| format!("`audiences` takes 1 to {MAX_AUDIENCES} texts: what `aud` calls this server"))
}

/// What stands beside `claims:` in an issuer or an introspection endpoint.
#[derive(Debug, Default)]
pub(super) struct RawMapping {
    pub(super) claims: Option<RawClaims>,
    pub(super) principal: Option<RawPrincipal>,
    pub(super) service_when: Option<BTreeMap<String, OneOrMany<String>>>,
    pub(super) memberships: Option<Memberships>,
    pub(super) unknown_users: Option<UnknownUsers>,
    pub(super) link: Option<OneOrMany<RawLink>>,
    pub(super) email_verified: Option<RawEmailVerified>,
    pub(super) directory: Option<bool>,
    pub(super) metadata_headers: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawPrincipal {
    User,
    Service,
}

/// How a token is linked to a user or service of the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawLink {
    ExternalId,
    Email,
}

/// The evidence that an email address belongs to the subject of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawEmailVerified {
    /// The token's: its `email_verified` is true.
    Claimed,
    /// The operator's.
    Assumed,
}

/// What becomes of the teams and orgs of the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub(super) enum Memberships {
    Join,
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub(super) enum UnknownUsers {
    Allow,
    Refuse,
}

#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename = "claim_source", untagged)]
pub(super) enum RawSource {
    Path(String),
    Detailed(RawDetailed),
}

/// Not derived, since the error of an untagged enum has neither the member nor its place.
impl<'de> Deserialize<'de> for RawSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = RawSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a claim, or a mapping with `claim` or `value`")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<RawSource, E> {
                Ok(RawSource::Path(path.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<RawSource, A::Error> {
                RawDetailed::deserialize(MapAccessDeserializer::new(members)).map(RawSource::Detailed)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDetailed {
    /// The path of a claim: `realm_access.roles`, `["https://example.com/roles"]`, or a JSON pointer.
    claim: Option<String>,
    /// Fixed, whatever the token says.
    value: Option<OneOrMany<String>>,
    /// Several values in one text, with these between.
    split: Option<RawSplit>,
    /// Values in lower case (ASCII letters alone), before anything else is done with them.
    fold: Option<RawFold>,
    /// Only values that begin so.
    only_prefix: Option<String>,
    /// Only values that begin so, without that.
    strip_prefix: Option<String>,
    /// Only these values, and what they stand for.
    map: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum RawSplit {
    Comma,
    Space,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
enum RawFold {
    Lower,
}

impl RawMapping {
    pub(super) fn checked(self) -> Result<Mapping, String> {
        let claims = self.claims.unwrap_or_default();
        let usual = Mapping::default();
        let service_when = match (self.principal, self.service_when) {
            (None | Some(RawPrincipal::User), None) => ServiceWhen::Never,
            (Some(RawPrincipal::Service), None) => ServiceWhen::Always,
            (None, Some(wanted)) => ServiceWhen::All(self::wanted("service_when", wanted)?),
            (Some(_), Some(_)) => return Err("`principal` and `service_when` do not go together".to_owned()),
        };
        let metadata = claims.metadata.unwrap_or_default().into_iter().map(|(name, sources)| {
            check_name(&name).map_err(|error| format!("`metadata`: {error}"))?;
            Ok::<_, String>((SmolStr::from(name), checked("metadata", Some(sources))?))
        });
        let header = |name: String| {
            let header: Result<hyper::header::HeaderName, _> = name.parse();
            header.map(|name| SmolStr::new(name.as_str())).map_err(|_| format!("`{name}` is no name of a header"))
        };
        Ok(Mapping {
            service_when,
            user: checked("user", claims.user)?,
            service: checked("service", claims.service)?,
            external_id: match claims.external_id {
                None => usual.external_id,
                said => checked("external_id", said)?,
            },
            link: link(self.link, self.email_verified)?,
            directory: self.directory == Some(true),
            // Those of all providers are known when the whole section is read.
            known_issuers: Vec::new(),
            teams: checked("teams", claims.teams)?,
            orgs: checked("orgs", claims.orgs)?,
            roles: unreserved(checked("roles", claims.roles)?)?,
            team_roles: checked("team_roles", claims.team_roles)?,
            tags: checked("tags", claims.tags)?,
            email: match claims.email {
                None => usual.email,
                said => checked("email", said)?,
            },
            metadata: metadata.collect::<Result<_, _>>()?,
            headers: self.metadata_headers.unwrap_or_default().into_iter().map(header).collect::<Result<_, _>>()?,
            replaces: self.memberships == Some(Memberships::Replace),
            allow_unknown: self.unknown_users != Some(UnknownUsers::Refuse),
        })
    }
}

/// Reads how tokens are linked. An email address counts only if the token, or the operator, vouches for its owner.
fn link(said: Option<OneOrMany<RawLink>>, verified: Option<RawEmailVerified>) -> Result<Link, String> {
    let proof = match verified {
        Some(RawEmailVerified::Assumed) => EmailProof::Assumed,
        Some(RawEmailVerified::Claimed) | None => EmailProof::Verified,
    };
    let chosen = said.is_some();
    let link = match said.map(|link| link.0).as_deref() {
        None | Some([RawLink::ExternalId]) => Link::ExternalId { chosen },
        Some([RawLink::ExternalId, RawLink::Email]) => Link::Email(proof),
        Some(_) => return Err("`link` is [external_id] or [external_id, email], in this order".to_owned()),
    };
    if proof == EmailProof::Assumed && !matches!(link, Link::Email(_)) {
        return Err("`email_verified: assumed` is for `link: [external_id, email]`".to_owned());
    }
    Ok(link)
}

/// What claims must say.
pub(super) fn wanted(name: &str, raw: BTreeMap<String, OneOrMany<String>>) -> Result<Vec<Wanted>, String> {
    let one = |(path, values): (String, OneOrMany<String>)| {
        let path = ClaimPath::parse(&path).map_err(|error| format!("`{name}`: {error}"))?;
        let values: Vec<SmolStr> = values.0.into_iter().map(SmolStr::from).collect();
        if values.is_empty() || values.iter().any(|value| value.is_empty() || value == "*") {
            return Err(format!("`{name}`: a claim wants a value; with a `*` at its end, one that begins so"));
        }
        if let Some(value) = values.iter().find(|value| value.trim_matches('*').contains('*') || stars(value) > 1) {
            return Err(format!(
                "`{name}`: `{}` may have a single `*`, at the beginning or at the end",
                value.escape_debug()
            ));
        }
        Ok(Wanted { path, values })
    };
    if raw.is_empty() {
        return Err(format!("`{name}` names no claim"));
    }
    raw.into_iter().map(one).collect()
}

fn stars(value: &str) -> usize {
    value.matches('*').count()
}

fn checked(name: &str, raw: Option<OneOrMany<RawSource>>) -> Result<Sources, String> {
    let Some(raw) = raw else { return Ok(Sources::default()) };
    let sources = raw.0;
    if sources.is_empty() || sources.len() > MAX_ITEMS {
        return Err(format!("`{name}` takes 1 to {MAX_ITEMS} alternatives"));
    }
    let one = |source| RawSource::checked(source).map_err(|error| format!("`{name}`: {error}"));
    Ok(Sources(sources.into_iter().map(one).collect::<Result<_, _>>()?))
}

impl RawSource {
    fn checked(self) -> Result<Source, String> {
        let detailed = match self {
            Self::Path(path) => return Ok(Source::Claim(ClaimSource::of(parsed(&path)?))),
            Self::Detailed(detailed) => detailed,
        };
        let RawDetailed { claim, value, split, fold, only_prefix, strip_prefix, map } = detailed;
        let changes =
            split.is_some() || fold.is_some() || only_prefix.is_some() || strip_prefix.is_some() || map.is_some();
        match (claim, value) {
            (None, Some(value)) if !changes => Ok(Source::Fixed(names(value.0)?)),
            (Some(claim), None) => Ok(Source::Claim(ClaimSource {
                path: parsed(&claim)?,
                split: split.map(|split| if split == RawSplit::Comma { Split::Comma } else { Split::Space }),
                fold: fold.map(|RawFold::Lower| Fold::Lower),
                only_prefix: only_prefix.map(SmolStr::from),
                strip_prefix: strip_prefix.map(SmolStr::from),
                map: map.map(|map| map.into_iter().map(|(from, to)| (from.into(), to.into())).collect()),
            })),
            _ => Err(
                "a source has `claim`, with `split`, `fold`, `only_prefix`, `strip_prefix` or `map`; or only `value`"
                    .to_owned(),
            ),
        }
    }
}

fn parsed(path: &str) -> Result<ClaimPath, String> {
    ClaimPath::parse(path).map_err(|error| error.to_string())
}

fn names(values: Vec<String>) -> Result<Vec<SmolStr>, String> {
    let one = |value: String| check_name(&value).map(|()| value.into()).map_err(|error| format!("`value`: {error}"));
    values.into_iter().map(one).collect()
}

/// Roles of Tollgate's own come from the bundle: who gives its teams such a role sees there who has it.
fn unreserved(sources: Sources) -> Result<Sources, String> {
    let is_ours = |role: &SmolStr| role.starts_with(RESERVED_ROLE_PREFIX);
    let gives = |source: &Source| match source {
        Source::Fixed(values) => values.iter().any(is_ours),
        Source::Claim(claim) => claim.map.iter().flatten().any(|(_, to)| is_ours(to)),
    };
    if sources.0.iter().any(gives) {
        return Err(format!(
            "`roles`: give roles that begin with `{RESERVED_ROLE_PREFIX}` to users or services in the bundle"
        ));
    }
    Ok(sources)
}
