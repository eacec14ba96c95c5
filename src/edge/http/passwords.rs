//! Passwords over HTTP: `/v1/users/{user}/password`. Always with a credential, also on loopback. Whoever may make a key of a
//! user that is all that the user is may set the user's password: both are the same in its hands.
//!
//! A user whom the caller may not manage looks as one that is not there. No answer shows a password or a hash.

use std::sync::Arc;

use axum::extract::State;
use hyper::{StatusCode, Uri};
use schemars::JsonSchema;
use serde::Serialize;

use super::app::App;
use super::body::json;
use super::caller;
use super::errors::{ApiError, ErrorCode, Response};
use super::extract::{JsonBody, NoBody, NoQuery};
use super::keys::{Caller, forbidden};
use super::query::percent_decoded;
use super::services::PasswordService;
use super::wire::{self, NewPassword, PasswordChange};
use crate::edge::identity::PasswordPlace;
use crate::gate::{Credential, Described, PasswordWrite, PasswordWriteError, Presented, Right};
use crate::model::{
    AuthMethod, EntityUid, PasswordHash, PasswordRecord, RESERVED_ROLE_PREFIX, RefusalReason, SecretText,
};

type Answer = Result<Response, ApiError>;

/// `GET /v1/users/{user}/password`.
pub(super) async fn show(State(app): State<Arc<App>>, caller: Caller, uri: Uri, _: NoQuery, _: NoBody) -> Answer {
    let (work, _) = work(&app, &caller, &uri)?;
    work.show()
}

/// `PUT /v1/users/{user}/password`.
pub(super) async fn set(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    _: NoQuery,
    JsonBody(body): JsonBody,
) -> Answer {
    let (work, right) = work(&app, &caller, &uri)?;
    work.set(&app, right, &body).await
}

/// `DELETE /v1/users/{user}/password`.
pub(super) async fn remove(State(app): State<Arc<App>>, caller: Caller, uri: Uri, _: NoQuery, _: NoBody) -> Answer {
    let (work, right) = work(&app, &caller, &uri)?;
    work.remove(right).await
}

/// The password that the path names, and the right of the caller to manage it.
fn work<'a>(app: &'a App, caller: &'a Caller, uri: &Uri) -> Result<(Work<'a>, Right), ApiError> {
    let Some(service) = &app.passwords else {
        let message = "this server keeps no passwords: no `basic` with `store` is among its `identity.providers`";
        return Err(ApiError::new(ErrorCode::NotFound, message));
    };
    let user = user_of(uri.path())?;
    let unknown = || ApiError::new(ErrorCode::NotFound, "no such user, or none that you may manage");
    let right = caller.right(&user).ok_or_else(unknown)?;
    Ok((Work { service, caller, user }, right))
}

/// The user in `/v1/users/{user}/password`.
fn user_of(path: &str) -> Result<EntityUid, ApiError> {
    let part = path.strip_prefix("/v1/users/").and_then(|rest| rest.strip_suffix("/password"));
    let wrong = || ApiError::invalid("user", "the name of a user is percent-encoded UTF-8 in a path");
    let name = part.and_then(percent_decoded).ok_or_else(wrong)?;
    let user = EntityUid::new("User", name).map_err(|error| ApiError::from(error).within("user"))?;
    if user.id().starts_with(RESERVED_ROLE_PREFIX) {
        return Err(ApiError::invalid("user", format!("names that begin with `{RESERVED_ROLE_PREFIX}` are nobody's")));
    }
    Ok(user)
}

/// Whose password it is, and who asks.
struct Work<'a> {
    service: &'a PasswordService,
    caller: &'a Caller,
    user: EntityUid,
}

/// Whether a user has a password.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Password")]
pub(super) struct Told<'a> {
    user: &'a str,
    set: bool,
    /// Where the password is set; `store` is one that was set by this API.
    #[schemars(extend("enum" = ["bundle", "htpasswd", "store"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_in: Option<&'static str>,
    /// When it was set, if it was set by this API.
    #[schemars(extend("format" = "date-time"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<String>,
}

impl Work<'_> {
    fn show(&self) -> Result<Response, ApiError> {
        let (kept_in, changed_at) = match self.elsewhere() {
            Some(PasswordPlace::Bundle) => (Some("bundle"), None),
            Some(PasswordPlace::Htpasswd) => (Some("htpasswd"), None),
            None => {
                let kept = self.service.passwords.find(&self.user).map_err(PasswordWriteError::from)?;
                (kept.as_ref().map(|_| "store"), kept.map(|kept| kept.changed_at.to_string()))
            }
        };
        Ok(json(StatusCode::OK, &Told { user: self.user.id(), set: kept_in.is_some(), kept_in, changed_at }))
    }

    async fn set(&self, app: &App, right: Right, body: &[u8]) -> Result<Response, ApiError> {
        self.check(right)?;
        if !self.caller.may_own(&self.user) {
            let message = format!("{} is not declared, so that a password would prove nobody", self.user);
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
        if let Some(place) = self.elsewhere() {
            return Err(conflict(place, "change"));
        }
        let PasswordChange { new, current } = wire::password(body)?;
        self.check_current(app, current).await?;
        let hash = match new {
            // Its cost would tell whoever watches how long others' names take which of them are there.
            NewPassword::Hash(_) if right != Right::Administrator => {
                let message = "only an administrator sets a `password_hash`; send the `password`";
                return Err(forbidden(message.to_owned()));
            }
            NewPassword::Hash(hash) => hash,
            NewPassword::Password(password) => self.hashed(&password).await?,
        };
        let changed_at = self.caller.facts.now;
        let password = PasswordRecord { principal: self.user.clone(), hash, changed_at };
        self.service.passwords.write(PasswordWrite::Set(password)).await?;
        self.tell("was set");
        let changed_at = Some(changed_at.to_string());
        Ok(json(StatusCode::OK, &Told { user: self.user.id(), set: true, kept_in: Some("store"), changed_at }))
    }

    async fn remove(&self, right: Right) -> Result<Response, ApiError> {
        self.check(right)?;
        // A removal has no body that could prove the current password, and without a password the person is locked out.
        if self.caller.manager().needs_current_password(&self.user) {
            return Err(forbidden(
                "with a token, you cannot remove your own password; ask with a key or with the password itself"
                    .to_owned(),
            ));
        }
        let kept = self.service.passwords.find(&self.user).map_err(PasswordWriteError::from)?;
        if let (None, Some(place)) = (&kept, self.elsewhere()) {
            return Err(conflict(place, "remove"));
        }
        // Also where none is known: another node may have set one a moment ago.
        self.service.passwords.write(PasswordWrite::Remove(self.user.clone())).await?;
        if kept.is_some() {
            self.tell("was removed");
        }
        self.show()
    }

    /// Whether the caller may have all that the user is in hand.
    fn check(&self, right: Right) -> Result<(), ApiError> {
        self.caller.manager().may_set_password(right, &self.user).map_err(|wide| forbidden(wide.message))
    }

    /// Checks the current password if the caller sends it or has to send it. It is checked like a credential, so that
    /// guesses are slowed like guesses at any password.
    async fn check_current(&self, app: &App, current: Option<SecretText>) -> Result<(), ApiError> {
        let asking = self.caller;
        let refused =
            |message: &str| Err(ApiError { param: "current_password".to_owned(), ..forbidden(message.to_owned()) });
        let Some(password) = current else {
            if !asking.manager().needs_current_password(&self.user) {
                return Ok(());
            }
            return refused(
                "with a token, setting your own password needs the `current_password`; if you have none yet, set it \
                 with one of your keys, or let an administrator set it",
            );
        };
        let credential = Credential::Basic { username: self.user.id_smol().clone(), password };
        let presented = Presented { credential, source: asking.peer, request: Described::default() };
        let pinned = app.pdp().pin_to(std::sync::Arc::clone(&asking.snapshot), asking.facts.clone());
        match pinned.authenticate(&presented).await {
            // The mark shows that the password is stored here and was not verified by another server.
            Ok(proved)
                if proved.principal == self.user && proved.method == AuthMethod::Basic && proved.mark.is_some() =>
            {
                Ok(())
            }
            Err(refusal)
                if matches!(refusal.reason, RefusalReason::TooManyFailures | RefusalReason::ProviderUnavailable) =>
            {
                Err(caller::refused(&refusal, &presented.credential))
            }
            _ => refused("the current password is wrong"),
        }
    }

    fn elsewhere(&self) -> Option<PasswordPlace> {
        let (snapshot, now) = (&self.caller.snapshot, self.caller.facts.now);
        self.service.providers.iter().find_map(|basic| basic.elsewhere(self.user.id_smol(), snapshot, now))
    }

    async fn hashed(&self, password: &SecretText) -> Result<PasswordHash, ApiError> {
        // One at a time: whoever sets passwords without end leaves room for those who show theirs.
        let hashed = match (self.service.providers.first(), self.service.hashing.try_lock()) {
            (Some(basic), Ok(_turn)) => basic.hash(password, self.caller.peer).await,
            _ => None,
        };
        let message = "as many passwords are being checked as may be; try again in a moment";
        hashed.ok_or_else(|| ApiError::new(ErrorCode::Unavailable, message))
    }

    /// For the log: who did what to whose password.
    fn tell(&self, what: &str) {
        let (user, by) = (&self.user, &self.caller.identity.principal);
        tracing::info!(target: "tollgate::identity", %user, %by, "the password of {user} {what} by {by}");
    }
}

fn conflict(place: PasswordPlace, what: &str) -> ApiError {
    let message = match place {
        PasswordPlace::Bundle => {
            format!("the password of this name stands in the bundle (`password_hash`); {what} it there")
        }
        PasswordPlace::Htpasswd => format!("the password of this name stands in the htpasswd file; {what} it there"),
    };
    ApiError::new(ErrorCode::Conflict, message)
}

impl From<PasswordWriteError> for ApiError {
    fn from(error: PasswordWriteError) -> Self {
        let code = match &error {
            PasswordWriteError::Full(_) => ErrorCode::Conflict,
            PasswordWriteError::Store(_) => ErrorCode::StoreUnavailable,
        };
        Self::new(code, error.to_string())
    }
}
