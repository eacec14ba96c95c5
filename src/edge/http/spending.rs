//! After a call: `POST /settle`, `/release`, `/extend` and `/usage`. Each may be sent again, and is answered as it was.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use serde::de::MapAccess;
use sha2::{Digest as _, Sha256};
use smol_str::SmolStr;

use super::amounts::{Seconds, StatedUsage, UsageMembers};
use super::app::App;
use super::body::json;
use super::errors::{ApiError, ErrorCode, Response};
use super::grammar::{List, Members, Trail, Uid, action, missing, object, text};
use crate::gate::{self, ClientKey, ReportedUsage, SettleError, Spent, Stated};
use crate::meter::{Closed, DEFAULT_TTL_MS, Part, ReservationId, State, Usage};
use crate::model::{Amount, EntityUid, Request, Told, Unit};

/// Longest `idempotency_key`, in bytes.
pub(super) const MAX_KEY_BYTES: usize = 255;

/// `POST /settle`.
pub(super) async fn settle(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let asked = read(body, &["reservation", "usage", "resource"])?;
    let usage = asked.usage.ok_or_else(|| missing("usage"))?;
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let facts = app.engine.facts();
    let world = app.engine.world(&snapshot, &facts);
    let closed = gate::settle(world, asked.reservation, usage, asked.resource.as_ref()).await?;
    app.alert(&closed.alerts, &snapshot, &facts);
    Ok(json(StatusCode::OK, &Outcome::of_held(&closed)))
}

/// `POST /release`.
pub(super) async fn release(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let asked = read(body, &["reservation"])?;
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let facts = app.engine.facts();
    let closed = gate::release(app.engine.world(&snapshot, &facts), asked.reservation).await?;
    Ok(json(StatusCode::OK, &Outcome::of_held(&closed)))
}

#[derive(Serialize)]
struct Extended {
    reservation: String,
    expires_at: String,
}

/// `POST /extend`.
pub(super) async fn extend(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let asked = read(body, &["reservation", "ttl_seconds"])?;
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let facts = app.engine.facts();
    let ttl_ms = asked.ttl_ms.unwrap_or(DEFAULT_TTL_MS);
    let expires_at = gate::extend(app.engine.world(&snapshot, &facts), asked.reservation, ttl_ms).await?;
    let answer = Extended { reservation: asked.reservation.to_string(), expires_at: expires_at.to_string() };
    Ok(json(StatusCode::OK, &answer))
}

/// `POST /usage`: one, or a batch of which each is noted or refused by itself, so that a queue can be sent again.
pub(super) async fn usage(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let trail = Trail::default();
    let members = UsageBody { trail: &trail, most: app.batch, one: SpentMembers::new(&trail), batch: None };
    match trail.read(body, object(members))? {
        Noted::One(spent) => Ok(json(StatusCode::OK, &note(app, &spent).await?)),
        Noted::Batch(batch) => {
            let mut responses = Vec::with_capacity(batch.len());
            for (number, spent) in batch.iter().enumerate() {
                let noted = note(app, spent).await.map_err(|error| error.within(&format!("usages[{number}]")));
                responses.push(match noted {
                    Ok(told) => serde_json::to_value(&told).unwrap_or_default(),
                    Err(error) => error.value(),
                });
            }
            Ok(json(StatusCode::OK, &serde_json::json!({ "responses": responses })))
        }
    }
}

async fn note(app: &App, spent: &Spent) -> Result<Outcome, ApiError> {
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let facts = app.engine.facts();
    let spent = Spent { key: app.as_known(&spent.key), ..spent.clone() };
    let closed = gate::record(app.engine.world(&snapshot, &facts), app.engine.reservation_id(), &spent).await?;
    app.alert(&closed.alerts, &snapshot, &facts);
    Ok(Outcome::of(&closed))
}

/// What became of a reservation, as it is told each time.
#[derive(Serialize)]
struct Outcome {
    reservation: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ToldUsage>,
    /// Whether it used more than it had held; never of what nothing was held for.
    over: bool,
    charged: Vec<ToldPart>,
}

#[derive(Serialize)]
struct ToldUsage {
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    cached_input_tokens: u64,
    cache_write_tokens: u64,
    reasoning_tokens: u64,
    images: u64,
    usd: Option<String>,
}

#[derive(Serialize)]
struct ToldPart {
    id: SmolStr,
    meter: Option<SmolStr>,
    unit: &'static str,
    held: String,
    charged: String,
}

impl Outcome {
    /// Of what was held before.
    fn of_held(closed: &Closed) -> Self {
        let over = closed.reservation.parts.iter().any(|part| part.charged > part.held);
        Self { over, ..Self::of(closed) }
    }

    fn of(closed: &Closed) -> Self {
        let reservation = &closed.reservation;
        let part = |part: &Part| ToldPart {
            id: part.limit.clone(),
            meter: part.meter.subject.clone(),
            unit: part.unit.as_str(),
            held: part.unit.show(part.held).to_string(),
            charged: part.unit.show(part.charged).to_string(),
        };
        let usd = |amount: Amount| Unit::Usd.show(amount).to_string();
        let usage = |usage: Usage| ToldUsage {
            requests: usage.requests,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            images: usage.images,
            usd: usage.usd.map(usd),
        };
        Self {
            reservation: reservation.id.to_string(),
            state: match reservation.state {
                State::Open => "open",
                State::Settled(_) | State::UsageUnknown => "settled",
                State::Released => "released",
                State::Expired => "expired",
            },
            usage: if let State::Settled(used) = reservation.state { Some(usage(used)) } else { None },
            over: false,
            charged: reservation.parts.iter().map(part).collect(),
        }
    }
}

impl From<SettleError> for ApiError {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Request(error) => error.into(),
            SettleError::Unknown => {
                Self { param: "reservation".to_owned(), ..Self::new(ErrorCode::ReservationUnknown, error.to_string()) }
            }
            SettleError::Conflict(_) => Self::new(ErrorCode::Conflict, error.to_string()),
            SettleError::Store(_) => Self::new(ErrorCode::StoreUnavailable, error.to_string()),
        }
    }
}

/// What is asked about a reservation.
struct Asked {
    reservation: ReservationId,
    usage: Option<Stated>,
    resource: Option<EntityUid>,
    ttl_ms: Option<i64>,
}

fn read(body: &[u8], taken: &'static [&'static str]) -> Result<Asked, ApiError> {
    let trail = Trail::default();
    let members =
        ReservationMembers { trail: &trail, taken, reservation: None, usage: None, resource: None, ttl_ms: None };
    trail.read(body, object(members))
}

struct ReservationMembers<'t> {
    trail: &'t Trail,
    taken: &'static [&'static str],
    reservation: Option<ReservationId>,
    usage: Option<Stated>,
    resource: Option<EntityUid>,
    ttl_ms: Option<i64>,
}

impl<'de, 't> Members<'de, 't> for ReservationMembers<'t> {
    const WHAT: &'static str = "an object with `reservation`";
    const NAMES: &'static [&'static str] = &["reservation", "usage", "resource", "ttl_seconds"];
    type Value = Asked;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        if !self.taken.contains(&name) {
            let message = format!("this path takes no `{name}`; its members are {}", self.taken.join(", "));
            return Err(trail.fail(ApiError::invalid("", message)));
        }
        match name {
            "reservation" => {
                let named = map.next_value_seed(text(trail, "the name of a reservation"))?;
                let id = named.parse().map_err(|error| trail.fail(ApiError::invalid("", format!("{error}"))));
                self.reservation = Some(id?);
            }
            "usage" => self.usage = Some(map.next_value_seed(StatedUsage { trail })?),
            "resource" => self.resource = Some(map.next_value_seed(Uid { trail })?),
            _ => self.ttl_ms = Some(map.next_value_seed(Seconds { trail })?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Asked, ApiError> {
        let reservation = self.reservation.ok_or_else(|| missing("reservation"))?;
        Ok(Asked { reservation, usage: self.usage, resource: self.resource, ttl_ms: self.ttl_ms })
    }
}

/// What `/usage` is sent.
enum Noted {
    One(Box<Spent>),
    Batch(Vec<Spent>),
}

struct UsageBody<'t> {
    trail: &'t Trail,
    most: usize,
    one: SpentMembers<'t>,
    batch: Option<Vec<Spent>>,
}

impl<'de, 't> Members<'de, 't> for UsageBody<'t> {
    const WHAT: &'static str =
        "an object with `principal`, `action`, `resource`, `usage` and `idempotency_key`, or with `usages`";
    const NAMES: &'static [&'static str] =
        &["principal", "action", "resource", "context", "usage", "idempotency_key", "usages"];
    type Value = Noted;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        if name != "usages" {
            return self.one.member(name, map);
        }
        let too_many = |most| ApiError::new(ErrorCode::BatchTooLarge, format!("`usages` may hold {most} at most"));
        let list = List { trail, most: self.most, too_many, item: || object(SpentMembers::new(trail)) };
        self.batch = Some(map.next_value_seed(list)?);
        Ok(())
    }

    fn finish(self) -> Result<Noted, ApiError> {
        match self.batch {
            Some(_) if self.one.begun => {
                Err(ApiError::invalid("usages", "`usages` stands alone; each of its items says who, what and how much"))
            }
            Some(batch) => Ok(Noted::Batch(batch)),
            None => Ok(Noted::One(Box::new(self.one.finish()?))),
        }
    }
}

struct SpentMembers<'t> {
    trail: &'t Trail,
    principal: Option<EntityUid>,
    action: Option<SmolStr>,
    resource: Option<EntityUid>,
    context: Told,
    usage: Option<ReportedUsage>,
    key: Option<SmolStr>,
    /// Whether any of them was said.
    begun: bool,
}

impl<'t> SpentMembers<'t> {
    fn new(trail: &'t Trail) -> Self {
        let (principal, action, resource, usage, key) = (None, None, None, None, None);
        Self { trail, principal, action, resource, context: Told::default(), usage, key, begun: false }
    }
}

impl<'de, 't> Members<'de, 't> for SpentMembers<'t> {
    const WHAT: &'static str = "an object with `principal`, `action`, `resource`, `usage` and `idempotency_key`";
    const NAMES: &'static [&'static str] = &["principal", "action", "resource", "context", "usage", "idempotency_key"];
    type Value = Spent;

    fn trail(&self) -> &'t Trail {
        self.trail
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &'static str, map: &mut A) -> Result<(), A::Error> {
        let trail = self.trail;
        self.begun = true;
        match name {
            "principal" => self.principal = Some(map.next_value_seed(Uid { trail })?),
            "action" => self.action = Some(map.next_value_seed(action(trail))?),
            "resource" => self.resource = Some(map.next_value_seed(Uid { trail })?),
            "context" => self.context = map.next_value()?,
            "usage" => self.usage = Some(map.next_value_seed(object(UsageMembers::new(trail)))?),
            _ => self.key = Some(key(trail, map)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<Spent, ApiError> {
        let principal = self.principal.ok_or_else(|| missing("principal"))?;
        let action = self.action.ok_or_else(|| missing("action"))?;
        let resource = self.resource.ok_or_else(|| missing("resource"))?;
        let usage = self.usage.ok_or_else(|| missing("usage"))?;
        let key = self.key.ok_or_else(|| missing("idempotency_key"))?;
        let request = Request::new(principal, action, resource).with_context(self.context);
        // Before keys were scoped, an absent amount in a usage was stored as zero.
        let before = Usage { requests: usage.requests.unwrap_or(0), ..usage.usage() };
        let unscoped_digest = Some(digest(&(&request, &before)));
        let key = ClientKey { text: key, digest: digest(&(&request, &usage)), unscoped_digest };
        Ok(Spent { request, usage, key })
    }
}

/// An `idempotency_key`.
pub(super) fn key<'de, A: MapAccess<'de>>(trail: &Trail, map: &mut A) -> Result<SmolStr, A::Error> {
    let key = map.next_value_seed(text(trail, "a text"))?;
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        let message = format!("an idempotency key is a text of 1 to {MAX_KEY_BYTES} bytes");
        return Err(trail.fail(ApiError::invalid("", message)));
    }
    Ok(key)
}

/// What makes the same request the same: what was read, however it was written.
pub(super) fn digest(read: &impl std::fmt::Debug) -> [u8; 32] {
    Sha256::digest(format!("{read:?}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::http::options::Silence;
    use crate::edge::http::wire::{Asked as Question, question};

    fn hex(digest: [u8; 32]) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reports that were stored before keys were scoped must still be found, so these digests must not change.
    #[test]
    fn digests_of_unscoped_keys_stay() {
        let asked = r#"{"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"a/b\"",
            "context": {"input_tokens": 5}, "reserve": {"output_tokens": 7}, "idempotency_key": "k"}"#;
        let Ok(Question::Named(asked)) = question(asked.as_bytes(), Silence::Checks) else {
            panic!("it is a question")
        };
        let key = asked.wanted.unwrap().key.unwrap();
        assert_eq!(
            key.unscoped_digest.map(hex).unwrap(),
            "f7e35eb3dff8628e0ae1c28843baa86709268f44294b99f4aaf73f43f2b0277e"
        );
        let spent = r#"{"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"a/b\"",
            "usage": {"input_tokens": 5, "usd": "0.01"}, "idempotency_key": "k"}"#;
        let trail = Trail::default();
        let spent = trail.read(spent.as_bytes(), object(SpentMembers::new(&trail))).unwrap();
        assert_eq!(
            spent.key.unscoped_digest.map(hex).unwrap(),
            "ba81847edbb301229627aef9c2a92ac35a3bbe591d7c3d5bf904b9ee4513bfe1"
        );
    }
}
