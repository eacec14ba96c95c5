//! Keys over HTTP: `/v1/keys`. Always with a credential, also on loopback; who may manage whose keys is policy
//! ([`gate::Manager`]), and what a key would be more than its maker is refused in any case.
//!
//! A key that the caller may not manage looks as one that is not there.

mod change;
mod inherited;
pub(super) mod orphans;
mod told;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use axum::extract::{FromRequestParts, RawQuery};
use hyper::StatusCode;
use hyper::http::request::Parts as Head;
use smol_str::SmolStr;
use tokio::sync::MutexGuard;

use super::app::App;
use super::body::json;
use super::caller::{self, Peer};
use super::errors::{ApiError, ErrorCode, Response};
use super::extract::{NoBody, NoQuery, OptionalJsonBody};
use super::query::{self, Query};
use super::services::KeyService;
use crate::edge::random;
use crate::gate::{self, KeyWrite, KeyWriteError, KeysOf, MANAGE_KEYS, Manager, Right, TooWide};
use crate::model::{
    ADMINISTRATOR, EntityUid, Facts, Identity, KeyDetails, KeyHash, KeyRecord, KeyText, Pause, RESERVED_ROLE_PREFIX,
    Revocation, SecretText, Timestamp, key_id, key_text,
};
use crate::policy::Snapshot;

use super::wire::{self, KeyMembers};
use change::Unknown;
pub(super) use told::{Page, Told};

/// Most keys of an owner, but for administrators.
const MAX_KEYS_OF_ONE: usize = 1_000;
/// How often a revocation is tried while others change the key.
const MOST_TRIES: usize = 500;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);
/// Most keys of a page.
const MAX_PAGE: usize = 1_000;

/// Who manages, by what bundle, at which instant.
pub(super) struct Caller {
    service: KeyService,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) facts: Facts,
    pub(super) identity: Arc<Identity>,
    pub(super) peer: Option<IpAddr>,
}

/// Authenticates the caller. A handler extracts it before its body, so that nothing is read for others.
impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(head: &mut Head, app: &Arc<App>) -> Result<Self, ApiError> {
        let Some(service) = app.keys.clone() else {
            let message = "this server keeps no keys: `keys` is not among its `identity.providers`";
            return Err(ApiError::new(ErrorCode::NotFound, message));
        };
        let Ok(peer) = Peer::from_request_parts(head, app).await;
        let pinned = app.pdp().pin()?;
        let identity = caller::authenticated(app, &pinned, head, &peer).await?;
        let (snapshot, facts) = (Arc::clone(pinned.snapshot()), pinned.facts().clone());
        Ok(Self { service, facts, snapshot, identity, peer: peer.address })
    }
}

/// The id in the path. The router has checked its form.
pub(super) struct KeyId(SmolStr);

impl FromRequestParts<Arc<App>> for KeyId {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Head, _: &Arc<App>) -> Result<Self, Infallible> {
        let rest = head.uri.path().strip_prefix("/v1/keys/");
        Ok(Self(rest.and_then(|rest| rest.split('/').next()).unwrap_or_default().into()))
    }
}

type Answer = Result<Response, ApiError>;

/// `GET /v1/keys`.
pub(super) async fn list(caller: Caller, RawQuery(query): RawQuery, _: NoBody) -> Answer {
    caller.list(query.as_deref()).await
}

/// `POST /v1/keys`.
pub(super) async fn create(
    caller: Caller,
    RawQuery(query): RawQuery,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Answer {
    caller.make(query.as_deref(), &body).await
}

/// `GET /v1/keys/{id}`.
pub(super) async fn show(caller: Caller, KeyId(id): KeyId, _: NoQuery, _: NoBody) -> Answer {
    let (key, _) = caller.find(&id)?;
    Ok(json(StatusCode::OK, &Told::of(&key, caller.facts.now)))
}

/// `PATCH /v1/keys/{id}`.
pub(super) async fn change(
    caller: Caller,
    KeyId(id): KeyId,
    RawQuery(query): RawQuery,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Answer {
    caller.change(&id, query.as_deref(), &body).await
}

/// `DELETE /v1/keys/{id}`.
pub(super) async fn delete(caller: Caller, KeyId(id): KeyId, _: NoQuery, _: NoBody) -> Answer {
    caller.remove(&id).await
}

/// `POST /v1/keys/{id}/revoke`.
pub(super) async fn revoke(
    caller: Caller,
    KeyId(id): KeyId,
    _: NoQuery,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Answer {
    caller.revoke(&id, &body).await
}

/// `POST /v1/keys/{id}/rotate`.
pub(super) async fn rotate(
    caller: Caller,
    KeyId(id): KeyId,
    _: NoQuery,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Answer {
    caller.rotate(&id, &body).await
}

impl Caller {
    pub(super) fn manager(&self) -> Manager<'_> {
        let Self { service, snapshot, facts, identity, peer } = self;
        service.manager(snapshot, facts, identity, *peer)
    }

    /// By what the caller may manage what is `owner`'s, where it may.
    pub(super) fn right(&self, owner: &EntityUid) -> Option<Right> {
        self.manager().right(MANAGE_KEYS, owner)
    }

    /// Whom the caller is, its key's owner where it is a key.
    fn own(&self) -> EntityUid {
        self.manager().person()
    }

    /// A key that the caller may manage.
    fn find(&self, id: &str) -> Result<(Arc<KeyRecord>, Right), ApiError> {
        let found = self.service.keys.find(id).map_err(KeyWriteError::from)?;
        let found = found.and_then(|key| Some((self.right(&key.owner)?, key)));
        let nobody = || ApiError::new(ErrorCode::NotFound, "no such key, or none that you may manage");
        found.map(|(right, key)| (key, right)).ok_or_else(nobody)
    }

    /// A page of keys. The store scans all of them, so it runs on the blocking pool.
    async fn page(&self, of: KeysOf) -> Result<Vec<Arc<KeyRecord>>, ApiError> {
        let keys = Arc::clone(&self.service.keys);
        let page = tokio::task::spawn_blocking(move || keys.page(&of)).await;
        page.map_err(|_ended| ApiError::new(ErrorCode::Unavailable, "the keys could not be looked through"))
    }

    async fn list(&self, query: Option<&str>) -> Result<Response, ApiError> {
        let query = Query::read(query, &["owner", "after", "page_size"])?;
        let most = query.page_size(MAX_PAGE)?;
        let after: Option<SmolStr> = query.get("after").map(query::read_cursor).transpose()?;
        // Of everybody's keys, who may manage everything sees all; anybody else sees their own.
        let owner = match query.uid("owner")? {
            Some(owner) => Some(owner),
            None if self.is_administrator() => None,
            None => Some(self.own()),
        };
        if let Some(owner) = &owner
            && self.right(owner).is_none()
        {
            return Err(forbidden(format!("{} may not manage the keys of {owner}", self.identity.principal)));
        }
        let mut page = self.page(KeysOf { owner, after, most: most.saturating_add(1) }).await?;
        let more = page.len() > most;
        page.truncate(most);
        let next = page.last().filter(|_| more).map(|last| query::cursor(&last.id));
        let keys = page.iter().map(|key| Told::of(key, self.facts.now)).collect();
        Ok(json(StatusCode::OK, &Page { keys, next }))
    }

    /// Whether a key of `owner` would prove somebody.
    pub(super) fn may_own(&self, owner: &EntityUid) -> bool {
        self.service.options.unknown_owners || self.snapshot.declares(owner)
    }

    /// A key that is all that its owner is, for as long as its owner is.
    pub(super) fn unrestricted(&self, id: SmolStr, owner: EntityUid) -> KeyRecord {
        KeyRecord {
            id,
            owner,
            hash: KeyHash::default(),
            version: 1,
            created_at: self.facts.now,
            expires_at: None,
            used_at: AtomicI64::new(0),
            more: None,
        }
    }

    fn is_administrator(&self) -> bool {
        let Self { snapshot, facts, identity, peer, .. } = self;
        let whole = !identity.replaced && !gate::is_narrowed(snapshot, identity);
        whole && gate::has_role(snapshot, identity, &[ADMINISTRATOR], *peer, facts.now)
    }

    async fn make(&self, query: Option<&str>, body: &[u8]) -> Result<Response, ApiError> {
        let is_strict = is_strict(query)?;
        let members = wire::new_key(body)?;
        let warnings = self.warnings(&members, is_strict)?;
        let owner = members.owner.clone().unwrap_or_else(|| self.own());
        change::check_owner(&owner)?;
        let Some(right) = self.right(&owner) else {
            return Err(forbidden(format!("{} may not make keys of {owner}", self.identity.principal)));
        };
        let reserved = owner.id().starts_with(RESERVED_ROLE_PREFIX) && right == Right::Administrator;
        if !reserved && !self.may_own(&owner) {
            let message = format!(
                "{owner} is not declared, so that a key of it would prove nobody; declare it in the bundle, or let keys of \
                 others prove somebody too (`unknown_owners: allow` of `keys` in `identity.providers`)"
            );
            return Err(ApiError::invalid("owner", message));
        }
        let _making = self.room(&owner, right).await?;
        let id = key_id(random::bytes());
        let text = Self::new_text(&id)?;
        let mut key = KeyRecord { hash: self.hash(&text)?, ..self.unrestricted(id, owner) };
        let inherited = inherited::of_maker(self, &key.owner)?;
        let more = details(&mut key);
        more.created_by = Some(self.identity.principal.clone());
        more.inherited = inherited.map(Box::new);
        members.apply(&mut key, &self.snapshot, self.facts.now)?;
        self.manager().may_hand_out(right, &key)?;
        self.service.keys.write(KeyWrite::Make(key.clone())).await?;
        self.tell(&key, "was made");
        let told = Told::of(&key, self.facts.now).with_key(text.expose()).with_warnings(warnings);
        Ok(json(StatusCode::CREATED, &told))
    }

    /// Warnings about names in the lists of a request that the bundle does not know; errors if `is_strict`.
    fn warnings(&self, members: &KeyMembers, is_strict: bool) -> Result<Vec<Unknown>, ApiError> {
        let mut unknown = members.unknown_names(&self.snapshot);
        if is_strict && !unknown.is_empty() {
            let Unknown { param, message } = unknown.swap_remove(0);
            return Err(ApiError::invalid(param, message));
        }
        Ok(unknown)
    }

    /// Whether `owner` may have one more, until what this gives is gone.
    async fn room(&self, owner: &EntityUid, right: Right) -> Result<Option<MutexGuard<'_, ()>>, ApiError> {
        if right == Right::Administrator {
            return Ok(None);
        }
        let making = self.service.creating.lock().await;
        let of_owner = KeysOf { owner: Some(owner.clone()), after: None, most: MAX_KEYS_OF_ONE };
        if self.page(of_owner).await?.len() >= MAX_KEYS_OF_ONE {
            return Err(ApiError::new(ErrorCode::Conflict, format!("{owner} has {MAX_KEYS_OF_ONE} keys already")));
        }
        Ok(Some(making))
    }

    async fn change(&self, id: &str, query: Option<&str>, body: &[u8]) -> Result<Response, ApiError> {
        let is_strict = is_strict(query)?;
        let members = wire::change_key(body)?;
        let (before, right) = self.find(id)?;
        if before.has_expired(self.facts.now) {
            let message = "the key has expired and can no longer be changed; make a new one";
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        let warnings = self.warnings(&members, is_strict)?;
        let mut key = next(&before);
        let paused = members.disabled;
        members.apply(&mut key, &self.snapshot, self.facts.now)?;
        match paused {
            Some(true) if before.details().disabled.is_none() => {
                details(&mut key).disabled = Some(Pause { at: self.facts.now, by: self.own() });
            }
            Some(false) => details(&mut key).disabled = None,
            Some(true) | None => {}
        }
        self.manager().may_change(right, &key, &before)?;
        self.service.keys.write(KeyWrite::Change(key.clone())).await?;
        self.tell(&key, "was changed");
        Ok(json(StatusCode::OK, &Told::of(&key, self.facts.now).with_warnings(warnings)))
    }

    async fn remove(&self, id: &str) -> Result<Response, ApiError> {
        let key = self
            .written(id, |key| Some((KeyWrite::Remove { id: key.id.clone(), version: key.version }, key.clone())))
            .await?;
        self.tell(&key, "was deleted");
        Ok(json(StatusCode::OK, &serde_json::json!({ "id": key.id, "deleted": true })))
    }

    async fn revoke(&self, id: &str, body: &[u8]) -> Result<Response, ApiError> {
        let reason = wire::revoke(body)?;
        let by = Some(self.identity.principal.clone());
        let revocation = Revocation { at: self.facts.now, by, reason };
        let revoked = |key: &KeyRecord| {
            let mut next = next(key);
            details(&mut next).revoked = Some(revocation.clone());
            // The first reason is the one that counts.
            key.details().revoked.is_none().then(|| (KeyWrite::Change(next.clone()), next))
        };
        let key = self.written(id, revoked).await?;
        if key.details().revoked.as_ref() == Some(&revocation) {
            self.tell(&key, "was revoked");
        }
        Ok(json(StatusCode::OK, &Told::of(&key, self.facts.now)))
    }

    /// Writes what `change` makes of a key, whatever others write at the same time: to take a key away must not depend on who
    /// is quicker. What it makes nothing of stays as it is.
    async fn written(
        &self,
        id: &str,
        change: impl Fn(&KeyRecord) -> Option<(KeyWrite, KeyRecord)>,
    ) -> Result<KeyRecord, ApiError> {
        for _ in 0..MOST_TRIES {
            let (key, _) = self.find(id)?;
            let Some((write, next)) = change(&key) else { return Ok((*key).clone()) };
            match self.service.keys.write(write).await {
                Err(KeyWriteError::Changed) => tokio::time::sleep(BETWEEN_TRIES).await,
                outcome => return outcome.map(|()| next).map_err(ApiError::from),
            }
        }
        Err(KeyWriteError::Changed.into())
    }

    async fn rotate(&self, id: &str, body: &[u8]) -> Result<Response, ApiError> {
        let grace_ms = wire::rotate(body)?;
        let (key, right) = self.find(id)?;
        if key.details().revoked.is_some() || key.has_expired(self.facts.now) {
            let message = "the key is revoked or has expired, and stays so with another secret; make a new one";
            return Err(ApiError::new(ErrorCode::Conflict, message));
        }
        self.manager().may_hand_out(right, &key)?;
        let mut key = next(&key);
        let text = Self::new_text(&key.id)?;
        let until = Timestamp::from_millis(self.facts.now.as_millis().saturating_add(grace_ms));
        let before = std::mem::replace(&mut key.hash, self.hash(&text)?);
        details(&mut key).previous = Some((before, until));
        self.service.keys.write(KeyWrite::Change(key.clone())).await?;
        self.tell(&key, "got a new secret");
        Ok(json(StatusCode::OK, &Told::of(&key, self.facts.now).with_key(text.expose())))
    }

    fn new_text(id: &str) -> Result<SecretText, ApiError> {
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        random::fill(&mut *secret);
        key_text(id, *secret).map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))
    }

    fn hash(&self, text: &SecretText) -> Result<KeyHash, ApiError> {
        let key = KeyText::parse(text.expose());
        let key = key.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))?;
        Ok(self.service.keys.hash(&key))
    }

    /// For the log: who did what to which key.
    fn tell(&self, key: &KeyRecord, what: &str) {
        let (id, owner, by) = (key.id.as_str(), &key.owner, &self.identity.principal);
        tracing::info!(target: "tollgate::identity", key = id, %owner, %by, "the key {id} of {owner} {what} by {by}");
    }
}

/// Whether a query asks for names that the bundle does not know to be errors.
fn is_strict(query: Option<&str>) -> Result<bool, ApiError> {
    match Query::read(query, &["strict"])?.get("strict") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::invalid("strict", "`strict` is `true` or `false`")),
    }
}

/// The key as it will be written next.
fn next(key: &KeyRecord) -> KeyRecord {
    KeyRecord { version: key.version.saturating_add(1), ..key.clone() }
}

fn details(key: &mut KeyRecord) -> &mut KeyDetails {
    key.more.get_or_insert_with(Box::default)
}

pub(super) fn forbidden(message: String) -> ApiError {
    ApiError::new(ErrorCode::Forbidden, message)
}

impl From<TooWide> for ApiError {
    fn from(error: TooWide) -> Self {
        Self { param: error.param.to_owned(), ..forbidden(error.message) }
    }
}

impl From<KeyWriteError> for ApiError {
    fn from(error: KeyWriteError) -> Self {
        let code = match &error {
            KeyWriteError::Taken | KeyWriteError::Changed | KeyWriteError::Full(_) => ErrorCode::Conflict,
            KeyWriteError::Store(_) => ErrorCode::StoreUnavailable,
        };
        Self::new(code, error.to_string())
    }
}
