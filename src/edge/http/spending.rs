//! After a call: `POST /settle`, `/release`, `/extend` and `/usage`. Each may be sent again, and is answered as it was.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use serde::de::MapAccess;
use smol_str::SmolStr;

use super::amounts::{Seconds, StatedUsage, UsageMembers};
use super::app::App;
use super::body::json;
use super::errors::{ApiError, ErrorCode, Response};
use super::grammar::{List, Members, Trail, Uid, action, missing, object, text};
use crate::model::{Amount, EntityUid, Request, Told, Unit};
use crate::pdp::{Closed, DEFAULT_TTL_MS, Part, ReportedUsage, ReservationId, State, Stated, Usage, UsageReport};

/// Longest `idempotency_key`, in bytes.
pub(super) const MAX_KEY_BYTES: usize = 255;

/// `POST /settle`.
pub(super) async fn settle(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let asked = read(body, &["reservation", "usage", "resource"])?;
    let usage = asked.usage.ok_or_else(|| missing("usage"))?;
    let closed = app.pdp().settle(asked.reservation, usage, asked.resource.as_ref()).await?;
    Ok(json(StatusCode::OK, &Outcome::of_held(&closed)))
}

/// `POST /release`.
pub(super) async fn release(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let asked = read(body, &["reservation"])?;
    let closed = app.pdp().release(asked.reservation).await?;
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
    let expires_at = app.pdp().extend(asked.reservation, asked.ttl_ms.unwrap_or(DEFAULT_TTL_MS)).await?;
    let answer = Extended { reservation: asked.reservation.to_string(), expires_at: expires_at.to_string() };
    Ok(json(StatusCode::OK, &answer))
}

/// `POST /usage`: one, or a batch of which each is noted or refused by itself, so that a queue can be sent again.
pub(super) async fn usage(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let trail = Trail::default();
    let members = UsageBody { trail: &trail, most: app.batch, one: SpentMembers::new(&trail), batch: None };
    match trail.read(body, object(members))? {
        Noted::One(report) => Ok(json(StatusCode::OK, &record(app, &report).await?)),
        Noted::Batch(batch) => {
            let mut responses = Vec::with_capacity(batch.len());
            for (number, report) in batch.iter().enumerate() {
                let recorded = record(app, report).await.map_err(|error| error.within(&format!("usages[{number}]")));
                responses.push(match recorded {
                    Ok(told) => serde_json::to_value(&told).unwrap_or_default(),
                    Err(error) => error.value(),
                });
            }
            Ok(json(StatusCode::OK, &serde_json::json!({ "responses": responses })))
        }
    }
}

async fn record(app: &App, report: &UsageReport) -> Result<Outcome, ApiError> {
    Ok(Outcome::of(&app.pdp().record_usage(report).await?))
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
    One(Box<UsageReport>),
    Batch(Vec<UsageReport>),
}

struct UsageBody<'t> {
    trail: &'t Trail,
    most: usize,
    one: SpentMembers<'t>,
    batch: Option<Vec<UsageReport>>,
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
    type Value = UsageReport;

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

    fn finish(self) -> Result<UsageReport, ApiError> {
        let principal = self.principal.ok_or_else(|| missing("principal"))?;
        let action = self.action.ok_or_else(|| missing("action"))?;
        let resource = self.resource.ok_or_else(|| missing("resource"))?;
        let usage = self.usage.ok_or_else(|| missing("usage"))?;
        let idempotency_key = self.key.ok_or_else(|| missing("idempotency_key"))?;
        let request = Request::new(principal, action, resource).with_context(self.context);
        Ok(UsageReport { request, usage, idempotency_key })
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
