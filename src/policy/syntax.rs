//! What a YAML file says, every value with its place: the syntax tree between `parse` and `check`.
//!
//! Kept per file, so that a reload parses only the files that changed; hence compact (a million rules stay resident).

mod limits;

use std::sync::Arc;

use smol_str::SmolStr;

use crate::meter::Price;
use crate::model::{AllowedPath, Effect, Kind, Network, PasswordHash, Timestamp};

pub use limits::{Each, LimitDeclaration};

/// Where a value stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The line, from 1; 0 where a problem is about the whole file.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// How many characters of that line the value covers; at least 1 when underlined.
    pub length: u32,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> Located<T> {
    /// `value`, standing at `place`.
    pub const fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

/// A name with its place.
pub type Name = Located<SmolStr>;

/// A YAML file, parsed. Every list is in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// `orgs`
    pub orgs: Vec<GroupDeclaration>,
    /// `teams`
    pub teams: Vec<GroupDeclaration>,
    /// `users`
    pub users: Vec<MemberDeclaration>,
    /// `services`
    pub services: Vec<MemberDeclaration>,
    /// `keys`
    pub keys: Vec<KeyDeclaration>,
    /// `provider_accounts`
    pub provider_accounts: Vec<AccountDeclaration>,
    /// `model_groups`
    pub model_groups: Vec<ModelsDeclaration>,
    /// `routers`
    pub routers: Vec<ModelsDeclaration>,
    /// `authz_rules`
    pub rules: Vec<RuleDeclaration>,
    /// `limits`
    pub limits: Vec<LimitDeclaration>,
}

impl Document {
    /// Whether it declares anyone or anything.
    #[must_use]
    pub fn declares(&self) -> bool {
        !self.declares_as(&Self::default())
    }

    /// Whether both declare the same, in the same places; their rules and limits may differ.
    #[must_use]
    pub fn declares_as(&self, other: &Self) -> bool {
        let Self { orgs, teams, users, services, keys, provider_accounts, model_groups, routers, rules: _, limits: _ } =
            self;
        *orgs == other.orgs
            && *teams == other.teams
            && *users == other.users
            && *services == other.services
            && *keys == other.keys
            && *provider_accounts == other.provider_accounts
            && *model_groups == other.model_groups
            && *routers == other.routers
    }
}

/// What declarations of people and things may say besides their names; most say none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// `email`
    pub email: Option<SmolStr>,
    /// `external_id`: the id in the company's own directory.
    pub external_id: Option<SmolStr>,
    /// `password_hash`: what is kept of a user's or service's password.
    pub password: Option<PasswordHash>,
    /// `expires_at`: from this instant on it is as if disabled.
    pub expires_at: Option<Timestamp>,
    /// `disabled`
    pub disabled: bool,
    /// `metadata`: strings by name.
    pub metadata: Box<[(SmolStr, SmolStr)]>,
}

/// An org (no `org`, no `parent`) or a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDeclaration {
    /// `id`
    pub id: Name,
    /// A team's `org`.
    pub org: Option<Name>,
    /// A team's `parent` team.
    pub parent: Option<Name>,
    /// `tags`
    pub tags: Box<[Name]>,
    /// The rest, if anything is said.
    pub extras: Option<Box<Extras>>,
}

/// A membership in a team, with a role there if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The team.
    pub team: Name,
    /// `role`
    pub role: Option<SmolStr>,
}

/// A user or a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDeclaration {
    /// `id`
    pub id: Name,
    /// `team` and `teams` together.
    pub teams: Box<[Membership]>,
    /// `org` and `orgs` together.
    pub orgs: Box<[Name]>,
    /// `roles`
    pub roles: Box<[Name]>,
    /// `tags`
    pub tags: Box<[Name]>,
    /// The rest, if anything is said.
    pub extras: Option<Box<Extras>>,
}

/// An API key that is kept in git, as a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDeclaration {
    /// `id`
    pub id: Name,
    /// `hash`: what the key's secret hashes to; never the secret.
    pub hash: SmolStr,
    /// `owner`, a uid such as `Service::"support-bot"`.
    pub owner: Located<crate::model::EntityUid>,
    /// `models`: what the key is narrowed to; `None` narrows nothing.
    pub models: Option<Box<[Name]>>,
    /// `routers`: likewise.
    pub routers: Option<Box<[Name]>>,
    /// `actions`: likewise.
    pub actions: Option<Box<[Name]>>,
    /// `paths`: likewise.
    pub paths: Option<Box<[AllowedPath]>>,
    /// `networks`: likewise.
    pub networks: Option<Box<[Network]>>,
    /// `tags`
    pub tags: Box<[Name]>,
    /// The rest, if anything is said.
    pub extras: Option<Box<Extras>>,
}

/// How many tokens a request is estimated to use where it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimates {
    /// Input tokens.
    pub input_tokens: Option<u64>,
    /// Output tokens.
    pub output_tokens: Option<u64>,
}

/// A provider account with the models it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountDeclaration {
    /// `id`
    pub id: Name,
    /// `provider`
    pub provider: Option<SmolStr>,
    /// `tags`
    pub tags: Box<[Name]>,
    /// `models`; `None` where the account lists none and so is open.
    pub models: Option<Vec<ModelDeclaration>>,
    /// `estimate_input_tokens` and `estimate_output_tokens`, for those of its models that say none.
    pub estimates: Estimates,
    /// The rest, if anything is said.
    pub extras: Option<Box<Extras>>,
}

/// A model of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDeclaration {
    /// `name`, without the account.
    pub name: Name,
    /// `enabled`
    pub enabled: bool,
    /// `tags`
    pub tags: Box<[Name]>,
    /// `aliases`
    pub aliases: Box<[Name]>,
    /// `max_output_tokens`
    pub max_output_tokens: Option<u64>,
    /// `estimate_input_tokens` and `estimate_output_tokens`
    pub estimates: Estimates,
    /// `price`
    pub price: Option<Arc<Price>>,
    /// `metadata`
    pub metadata: Box<[(SmolStr, SmolStr)]>,
}

impl KeyDeclaration {
    /// The lists of resources that the key is narrowed to.
    pub(crate) fn lists(&self) -> [(SelectorKind, Option<&[Name]>); 2] {
        [(SelectorKind::Model, self.models.as_deref()), (SelectorKind::Router, self.routers.as_deref())]
    }
}

/// A model group or a router: a name for a list of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsDeclaration {
    /// `id`
    pub id: Name,
    /// `models`: names, aliases and patterns.
    pub models: Box<[Name]>,
    /// `tags`
    pub tags: Box<[Name]>,
    /// `metadata`
    pub metadata: Box<[(SmolStr, SmolStr)]>,
}

/// What kind of thing a selector names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SelectorKind {
    /// `users`
    User,
    /// `services`
    Service,
    /// `keys`
    Key,
    /// `teams`
    Team,
    /// `orgs`
    Org,
    /// `tags`
    Tag,
    /// `roles`
    Role,
    /// `models`
    Model,
    /// `model_groups`
    ModelGroup,
    /// `provider_accounts`
    ProviderAccount,
    /// `routers`
    Router,
    /// `model_tags`
    ModelTag,
}

impl SelectorKind {
    /// The key of the rule that holds such selectors.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::User => "users",
            Self::Service => "services",
            Self::Key => "keys",
            Self::Team => "teams",
            Self::Org => "orgs",
            Self::Tag => "tags",
            Self::Role => "roles",
            Self::Model => "models",
            Self::ModelGroup => "model_groups",
            Self::ProviderAccount => "provider_accounts",
            Self::Router => "routers",
            Self::ModelTag => "model_tags",
        }
    }

    /// The kind of entity that the names of such selectors belong to, or that has the tags; `None` for labels of
    /// principals.
    #[must_use]
    pub const fn entity_kind(self) -> Option<Kind> {
        Some(match self {
            Self::User => Kind::USER,
            Self::Service => Kind::SERVICE,
            Self::Key => Kind::API_KEY,
            Self::Team => Kind::TEAM,
            Self::Org => Kind::ORG,
            Self::Model | Self::ModelTag => Kind::MODEL,
            Self::ModelGroup => Kind::MODEL_GROUP,
            Self::ProviderAccount => Kind::PROVIDER_ACCOUNT,
            Self::Router => Kind::ROUTER,
            Self::Tag | Self::Role => return None,
        })
    }

    /// Whether `"*"` may stand for every one of the kind.
    #[must_use]
    pub const fn takes_wildcard(self) -> bool {
        matches!(self, Self::User | Self::Service | Self::Key | Self::Model | Self::Router)
    }
}

/// One name in one of a rule's lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Which list.
    pub kind: SelectorKind,
    /// The name as written; `*` (where [`SelectorKind::takes_wildcard`]) is every one of the kind.
    pub name: Name,
}

/// A condition as written: the text that Cedar reads, and where each of its lines stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionText {
    /// The expression.
    pub text: SmolStr,
    /// Where it begins.
    pub place: Place,
    /// Whether each character of the text stands in the file as it is, from `place` on (a plain or quoted scalar
    /// on one line), or a line below (a block scalar, whose lines begin at `place.column`).
    pub layout: TextLayout,
}

/// How a scalar's text lies in its file, for pointing into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextLayout {
    /// On one line, character for character from the place on.
    Inline,
    /// A literal block (`|`): line n of the text is line n of the block, `place` being that of its first character.
    Block,
    /// Folded or escaped: only the beginning is known.
    Opaque,
}

/// A rule as written.
#[derive(Debug, Clone)]
pub struct RuleDeclaration {
    /// `id`; without one the rule is named by its file and number.
    pub id: Option<Name>,
    /// Where the rule begins.
    pub place: Place,
    /// `effect`
    pub effect: Effect,
    /// `description`
    pub description: Option<Box<str>>,
    /// `users`, `teams`, `orgs`, `services`, `keys`, `tags`, `roles`.
    pub who: Box<[Selector]>,
    /// `models`, `model_groups`, `provider_accounts`, `routers`, `model_tags`.
    pub what: Box<[Selector]>,
    /// `actions`; empty where the rule says none: every action of `use`.
    pub actions: Box<[Name]>,
    /// `when`: all must hold.
    pub when: Box<[ConditionText]>,
    /// `unless`: none may hold.
    pub unless: Box<[ConditionText]>,
}
