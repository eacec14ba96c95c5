//! Who may manage whose keys: the bundle's rules about `manage_keys`, and where they say nothing, the policies that ship
//! (`schema/admin.cedar`). What is made must not be more than its maker: those checks are no policy, and hold in any case.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use smol_str::SmolStr;

use super::authenticate::{has_role, is_narrowed, person};
use super::decide::{Who, decide};
use super::shipped::{Asked, is_shipped};
use super::widen::widened;
use crate::model::{
    ADMINISTRATOR, AuthMethod, DecisionCode, EntityUid, Facts, Identity, Inherited, KeyRecord, RESERVED_ROLE_PREFIX,
    Request, Timestamp, Told,
};
use crate::policy::Snapshot;
use crate::policy::entities::{EntityIndex, Kind};

/// The action of who manages keys.
pub const MANAGE_KEYS: &str = "manage_keys";

/// The action of who sees what was spent.
pub const VIEW_USAGE: &str = "view_usage";

/// By what somebody may manage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// A role in the owner's team.
    Team,
    /// A rule of the bundle.
    Bundle,
    /// It is the caller's own.
    Own,
    /// The role that may everything.
    Administrator,
}

/// Why a key may not be made or changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TooWide {
    /// The member that asks for too much.
    pub param: &'static str,
    /// Why.
    pub message: String,
}

/// Somebody who manages keys.
pub struct Manager<'a> {
    /// The bundle that decides.
    pub snapshot: &'a Snapshot,
    /// The instant.
    pub facts: &'a Facts,
    /// Who.
    pub identity: &'a Arc<Identity>,
    /// From where, where that is known.
    pub peer: Option<IpAddr>,
    /// For how long a key lasts at most that a person makes or prolongs with a token.
    pub session_key_ms: i64,
}

impl Manager<'_> {
    /// By what this caller may do the `action` of `admin` with what is `owner`'s; `None` where it may not.
    #[must_use]
    pub fn right(&self, action: &str, owner: &EntityUid) -> Option<Right> {
        // A key that may not do all that its owner may makes none that may; one that was replaced may be in other hands.
        if is_narrowed(self.snapshot, self.identity) || self.identity.replaced {
            return None;
        }
        let is_administrator = self.has_role(ADMINISTRATOR);
        let from = self.peer.map(|peer| ("ip".to_owned(), peer.to_string().into()));
        let context = Told::from(from.into_iter().collect::<serde_json::Map<_, _>>());
        let request = Request::proved(Arc::clone(self.identity), action, owner.clone()).with_context(context);
        let decision = decide(self.snapshot, self.facts, &request).ok()?;
        match decision.code {
            DecisionCode::Permitted if is_administrator => Some(Right::Administrator),
            // If several policies permit, the strongest right counts.
            DecisionCode::Permitted if decision.rules.iter().all(is_shipped) => {
                decision.rules.iter().filter_map(|rule| right_of(&rule.id)).max()
            }
            DecisionCode::Permitted => Some(Right::Bundle),
            _ => None,
        }
    }

    fn has_role(&self, role: &str) -> bool {
        has_role(self.snapshot, self.identity, &[role], self.peer, self.facts.now)
    }

    /// The right that the built-in policies give: the strongest one if several permit.
    fn by_default(&self, action: &str, owner: &EntityUid) -> Option<Right> {
        let who = Who::find(self.snapshot, None, &self.identity.principal, Some(self.identity)).ok()?;
        let resource = self.snapshot.subject(owner)?;
        let action = self.snapshot.schema.action(action)?;
        let asked = Asked { snapshot: self.snapshot, principal: &who.subject, action, resource: &resource };
        asked.permits().iter().filter_map(|rule| right_of(&rule.id)).max()
    }

    /// Whether a caller with this `right` may have the secret of `key` in hand: because the key is made, or gets a new
    /// secret.
    ///
    /// # Errors
    /// With what is more than the caller may give.
    pub fn may_hand_out(&self, right: Right, key: &KeyRecord) -> Result<(), TooWide> {
        self.check_end(key)?;
        // A key that gets itself a new secret is no more than it was.
        let is_itself = self.identity.principal.kind() == "ApiKey" && self.identity.principal.id() == key.id;
        if right == Right::Administrator || is_itself {
            return Ok(());
        }
        self.check_given(key, None)?;
        self.check_inherited(key)?;
        self.check_owner(right, &key.owner, key.details().inherited.as_deref())
    }

    /// Whether a caller with this `right` may set the password of `user`: it is as good as a key that never ends and is not
    /// narrowed. Of a person's token it takes more, see [`Manager::needs_current_password`].
    ///
    /// # Errors
    /// Returns an error that names the right that the caller lacks.
    pub fn may_set_password(&self, right: Right, user: &EntityUid) -> Result<(), TooWide> {
        if let Some(end) = self.identity.key_ends_at {
            let message = format!("your key ends at {end}, and a password does not");
            return Err(TooWide { param: "", message });
        }
        if right == Right::Administrator { Ok(()) } else { self.check_owner(right, user, None) }
    }

    /// Whether the caller sets the password of `user` only with the current one: it is that person, by a token that may
    /// have been stolen.
    #[must_use]
    pub fn needs_current_password(&self, user: &EntityUid) -> bool {
        self.is_session() && self.person() == *user
    }

    /// Whether a caller with this `right` may make `key` of `before`, whose secret stays as it is.
    ///
    /// Every caller that manages a key may narrow it. A change that widens it must stay within the rights of the
    /// caller, and a key that only an administrator can make can be widened only by
    /// administrators. A caller whose own credential ends may not widen a key that lasts longer.
    ///
    /// # Errors
    /// Returns an error that names the right that the caller lacks.
    pub fn may_change(&self, right: Right, key: &KeyRecord, before: &KeyRecord) -> Result<(), TooWide> {
        let is_administrator = right == Right::Administrator;
        if before.details().disabled.is_none() && key.details().disabled.is_some() {
            self.may_pause(right, before)?;
        }
        let Some(wider) = widened(before, key, self.snapshot) else { return Ok(()) };
        let too_wide = |param, message: String| Err(TooWide { param, message });
        if let Some(end) = self.identity.key_ends_at.filter(|end| key.lasts_beyond(*end)) {
            let message = match wider {
                "expires_at" => format!("your key ends before that, at {end}"),
                _ => format!("your key ends at {end}, and cannot widen a key that lasts longer"),
            };
            return too_wide(wider, message);
        }
        if before.expires_at.is_some_and(|end| key.lasts_beyond(end)) {
            self.check_session(key)?;
        }
        if is_administrator {
            return Ok(());
        }
        if self.is_privileged(before) {
            let message = format!(
                "this key has roles, metadata or tags that only an administrator gives, or the bundle names it; \
                 without the role {ADMINISTRATOR} you may only narrow it"
            );
            return too_wide(wider, message);
        }
        if let Some(pause) = before.details().disabled.as_ref().filter(|_| key.details().disabled.is_none())
            && pause.by != self.person()
        {
            return too_wide(
                "disabled",
                format!("the key was paused by {}; only they or an administrator may lift the pause", pause.by),
            );
        }
        self.check_given(key, Some(before))?;
        self.check_inherited(key)?;
        self.check_owner(right, &key.owner, key.details().inherited.as_deref())
    }

    /// Whether the caller may pause a key: only who could lift the pause again. Others revoke the key.
    fn may_pause(&self, right: Right, before: &KeyRecord) -> Result<(), TooWide> {
        let ends_first = self.identity.key_ends_at.is_some_and(|end| before.lasts_beyond(end));
        let could_lift = || {
            let inherited = before.details().inherited.as_deref();
            !self.is_privileged(before)
                && self.check_inherited(before).is_ok()
                && self.check_owner(right, &before.owner, inherited).is_ok()
        };
        if !ends_first && (right == Right::Administrator || could_lift()) {
            return Ok(());
        }
        let message = "you could not lift the pause of this key; let an administrator pause it, or revoke it";
        Err(TooWide { param: "disabled", message: message.to_owned() })
    }

    /// Whether a key is more than its owner could make: it has roles, metadata, or a tag that the owner lacks; or it is
    /// named in the bundle, whose rules may give it more than its owner has.
    fn is_privileged(&self, key: &KeyRecord) -> bool {
        let details = key.details();
        let owned = self.tags_of(&key.owner);
        !details.roles.is_empty()
            || !details.metadata.is_empty()
            || details.tags.iter().any(|tag| !owned.contains(tag))
            || self.snapshot.store.find(Kind::API_KEY, &key.id).is_some()
    }

    /// Whether a key ends no later than the caller may make one.
    fn check_end(&self, key: &KeyRecord) -> Result<(), TooWide> {
        match self.identity.key_ends_at.filter(|end| key.lasts_beyond(*end)) {
            Some(end) => {
                let message = format!("your key ends before that, at {end}");
                Err(TooWide { param: "expires_at", message })
            }
            None => self.check_session(key),
        }
    }

    /// Whether a key ends soon enough for a caller that shows a token: who steals one should not have access for good.
    fn check_session(&self, key: &KeyRecord) -> Result<(), TooWide> {
        let latest = Timestamp::from_millis(self.facts.now.as_millis().saturating_add(self.session_key_ms));
        if !self.is_session() || !key.lasts_beyond(latest) {
            return Ok(());
        }
        let message = format!(
            "with a token a person makes and prolongs keys that end by {latest} (`max_days` of `keys`); set `expires_at`, \
             or use a key or a password"
        );
        Err(TooWide { param: "expires_at", message })
    }

    /// Whether the caller is a person who shows a token: one of another issuer, or one of Tollgate's own, such as a
    /// session of `tollgate login`. Keys, passwords and certificates are not tokens in this sense.
    #[must_use]
    pub fn is_session(&self) -> bool {
        let method = self.identity.method;
        let is_token = matches!(method, AuthMethod::Jwt | AuthMethod::Introspection | AuthMethod::Delegated)
            || (method == AuthMethod::Custom && self.identity.expires_at.is_some());
        (self.identity.exchanged || is_token) && self.person().kind() == "User"
    }

    /// The person or service that asks; of a key, its owner.
    #[must_use]
    pub fn person(&self) -> EntityUid {
        person(self.snapshot, self.identity)
    }

    /// Whether what only administrators give was in the key `before`, if it is there at all.
    fn check_given(&self, key: &KeyRecord, before: Option<&KeyRecord>) -> Result<(), TooWide> {
        let too_wide = |param, message: String| Err(TooWide { param, message });
        let (details, had) = (key.details(), before.map(KeyRecord::details));
        if !details.roles.is_empty() && had.is_none_or(|had| had.roles != details.roles) {
            return too_wide("roles", format!("only who has the role {ADMINISTRATOR} gives roles to keys"));
        }
        if !details.metadata.is_empty() && had.is_none_or(|had| had.metadata != details.metadata) {
            let message = format!("only who has the role {ADMINISTRATOR} says what becomes `context.metadata`");
            return too_wide("metadata", message);
        }
        let owned = self.tags_of(&key.owner);
        let is_new = |tag: &&SmolStr| !owned.contains(*tag) && had.is_none_or(|had| !had.tags.contains(*tag));
        if let Some(tag) = details.tags.iter().find(is_new) {
            let message =
                format!("{} does not have the tag `{tag}`, so that only an administrator gives it", key.owner);
            return too_wide("tags", message);
        }
        Ok(())
    }

    /// Checks that the caller has every team, org, role and tag that `key` inherited from a token: by its own credential, or
    /// because the bundle gives it to the caller or to the owner. Otherwise the secret of such a key would add the caller to
    /// teams that it is not a member of.
    fn check_inherited(&self, key: &KeyRecord) -> Result<(), TooWide> {
        let Some(inherited) = key.details().inherited.as_deref() else { return Ok(()) };
        let (store, said) = (&self.snapshot.store, &self.identity.said);
        let mut known = self.indices_of(&key.owner, None);
        if let Ok(who) = Who::find(self.snapshot, None, &self.identity.principal, Some(self.identity)) {
            known.extend(store.index_of(&who.subject));
            known.extend(store.closure(store.parents(&who.subject)));
        }
        let is_in = |kind: Kind, id: &SmolStr| store.find(kind, id).is_some_and(|index| known.contains(&index));
        let has_role = |role: &SmolStr| known.iter().any(|index| store.record(*index).roles().contains(role));
        let has_tag = |tag: &SmolStr| known.iter().any(|index| store.record(*index).tags().contains(tag));
        let Inherited { teams, orgs, roles, tags } = inherited;
        let missing = None
            .or_else(|| teams.iter().find(|id| !said.teams.contains(id) && !is_in(Kind::TEAM, id)))
            .or_else(|| orgs.iter().find(|id| !said.orgs.contains(id) && !is_in(Kind::ORG, id)))
            .or_else(|| roles.iter().find(|role| !said.roles.contains(role) && !has_role(role)))
            .or_else(|| tags.iter().find(|tag| !said.tags.contains(tag) && !has_tag(tag)));
        let Some(missing) = missing else { return Ok(()) };
        let message = format!(
            "the key carries `{missing}` from the token that it was created with (`inherited`), and your credential does not; \
             use a token with it, the key itself or an administrator's credential, or create a new key"
        );
        Err(TooWide { param: "", message })
    }

    /// Checks that the owner of a key, with the teams that the key inherits, has no more rights than the caller.
    fn check_owner(&self, right: Right, owner: &EntityUid, inherited: Option<&Inherited>) -> Result<(), TooWide> {
        let too_wide = |message: String| Err(TooWide { param: "owner", message });
        // A principal that a delegated endpoint names has none of these roles, and must not get them through a key of
        // its owner.
        if (right != Right::Own || !self.identity.method.gives_reserved_roles())
            && let Some(role) = self.roles_of(owner, inherited).iter().find(|role| !self.has_role(role))
        {
            return too_wide(format!("{owner} has the role `{role}`, which you do not have"));
        }
        if self.is_for_a_team(right, owner) && !self.is_all_within(owner, inherited) {
            return too_wide(format!("{owner} is in more than the teams that you administer, and so would the key be"));
        }
        Ok(())
    }

    /// Whether it is as a team's administrator that the caller manages what is `owner`'s: also where a rule of the bundle
    /// says what the policies that ship say.
    fn is_for_a_team(&self, right: Right, owner: &EntityUid) -> bool {
        match right {
            Right::Team => true,
            Right::Bundle => self.by_default(MANAGE_KEYS, owner) == Some(Right::Team),
            Right::Own | Right::Administrator => false,
        }
    }

    /// Tollgate's own roles of `owner`, directly or through the teams and orgs of the owner and the key.
    fn roles_of(&self, owner: &EntityUid, inherited: Option<&Inherited>) -> Vec<SmolStr> {
        let (store, indices) = (&self.snapshot.store, self.indices_of(owner, inherited));
        let roles = indices.into_iter().flat_map(|index| store.record(index).roles().to_vec());
        roles.filter(|role| role.starts_with(RESERVED_ROLE_PREFIX)).collect()
    }

    fn tags_of(&self, owner: &EntityUid) -> HashSet<SmolStr> {
        let (store, indices) = (&self.snapshot.store, self.indices_of(owner, None));
        indices.into_iter().flat_map(|index| store.record(index).tags().to_vec()).collect()
    }

    /// The entities of the bundle for `owner`, for what `inherited` names and for all of their ancestors.
    fn indices_of(&self, owner: &EntityUid, inherited: Option<&Inherited>) -> Vec<EntityIndex> {
        let store = &self.snapshot.store;
        let own = store.kind_of(owner.kind()).and_then(|kind| store.find(kind, owner.id()));
        let more = inherited.map(|inherited| self.memberships(inherited)).unwrap_or_default();
        store.closure(&own.into_iter().chain(more).collect::<Vec<_>>())
    }

    /// The inherited teams and orgs that are in the bundle.
    fn memberships(&self, inherited: &Inherited) -> Vec<EntityIndex> {
        let store = &self.snapshot.store;
        let teams = inherited.teams.iter().filter_map(|id| store.find(Kind::TEAM, id));
        teams.chain(inherited.orgs.iter().filter_map(|id| store.find(Kind::ORG, id))).collect()
    }

    /// Whether everything that `owner` is in is a team that the caller administers, or what such a team is in. A key of
    /// somebody is all that this somebody is.
    fn is_all_within(&self, owner: &EntityUid, inherited: Option<&Inherited>) -> bool {
        let store = &self.snapshot.store;
        let Some(index) = store.kind_of(owner.kind()).and_then(|kind| store.find(kind, owner.id())) else {
            return false;
        };
        if matches!(store.record(index).kind, Kind::TEAM | Kind::ORG) {
            return true;
        }
        let Ok(who) = Who::find(self.snapshot, None, &self.identity.principal, Some(self.identity)) else {
            return false;
        };
        let administered = store.administered(&who.subject);
        let above = store.closure(&administered);
        let within = |parent: &EntityIndex| {
            above.contains(parent) || store.closure(&[*parent]).iter().any(|over| administered.contains(over))
        };
        let inherited = inherited.map(|inherited| self.memberships(inherited)).unwrap_or_default();
        store.record(index).parents.iter().chain(&inherited).all(within)
    }
}

/// The right that a built-in policy gives.
pub(super) fn right_of(id: &str) -> Option<Right> {
    match id {
        "tollgate:administrators" => Some(Right::Administrator),
        "tollgate:team-administrators" => Some(Right::Team),
        "tollgate:own" => Some(Right::Own),
        _ => None,
    }
}
