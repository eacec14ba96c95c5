//! The policy decision point: the one service through which every protocol, the library and the tower layer authenticate
//! callers, ask for decisions, and settle what decisions reserved.
//!
//! A protocol converts its wire form into an [`AuthorizeCall`], and the [`Answer`] back. Counting, alerts, the decision
//! log and panic isolation happen here, once for all of them. What is hard about it: everything that one request reads
//! must come from one bundle at one instant, so a request pins both before its first step ([`Pinned`]).

mod answer;
mod assume;
mod authenticate;
mod authority;
mod authorize;
mod call;
mod catch;
mod error;
pub(crate) mod events;
mod idempotency;
mod json;
mod observe;
mod spending;

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;

pub use answer::{Answer, AnswerResult, ReplayedReservation};
pub use assume::decide_assuming;
pub use authority::Client;
pub use call::{Authority, AuthorizeCall, Caller, LimitsMode, ReserveOptions, Target};
pub(crate) use catch::block_on;
pub use error::{BatchError, PdpError};
pub(crate) use observe::OnAlert;
pub use spending::{UsageReport, UsageReports};

// The types that calls and answers are made of, so that a protocol needs this module alone.
pub use crate::gate::{
    BooksPage, BooksWish, By, CandidatesDecision, Credential, DecisionId, Described, Found, Group,
    MAX_ADDITIONAL_ENTITIES, MAX_CANDIDATES, MAX_LINES, MAX_STANDINGS, Mark, MeterStanding, Peer, Presented,
    ReportedUsage, Reserve, RouteError, RouteLimits, RouteMap, Standings, StandingsOf, Stated, Sum, TimeSpan, Via,
    day_of, month_begins,
};
pub use crate::meter::{Closed, DEFAULT_TTL_MS, MAX_TTL_MS, Measure, Mode, Part, ReservationId, State, Usage};

use crate::edge::random;
use crate::gate::{
    Authenticator, Clock, DecisionLog, DecisionLogStatus, DecisionRecord, FailureLimits, Failures, Meters, Observer,
    World,
};
use crate::meter::Alert;
use crate::model::{CandidatesRequest, EntityUid, Facts, Identity, Refusal, RefusalReason, Request, Timestamp};
use crate::policy::Snapshot;
use crate::policy::live::Live;

use authorize::Recording;
use call::QuestionRef;
use observe::{Observers, Stopwatch};

/// The decision service. Cheap to clone; all clones decide by the same bundle and the same limits.
///
/// Its methods are asynchronous and need no particular runtime; [`Engine`](crate::Engine) has the blocking forms. A
/// future that can reserve, settle or charge ([`AuthorizeCall::counts`]) should run to its end: dropped halfway, it can
/// leave a reservation that lasts until its TTL.
#[derive(Clone)]
pub struct Pdp {
    inner: Arc<Inner>,
}

struct Inner {
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    meters: Arc<dyn Meters>,
    max_open_reservations: usize,
    authenticators: Box<[Arc<dyn Authenticator>]>,
    /// Refused credentials by source and id; `None` if they are not limited.
    failures: Option<Mutex<Failures>>,
    observers: Observers,
    started_at: Timestamp,
}

/// The parts that a service is made of.
pub(crate) struct Parts {
    pub(crate) live: Arc<Live>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meters: Arc<dyn Meters>,
    /// The most reservations that one principal may have open.
    pub(crate) max_open_reservations: usize,
    pub(crate) authenticators: Vec<Arc<dyn Authenticator>>,
    pub(crate) failures: Option<FailureLimits>,
    pub(crate) log: Option<Arc<dyn DecisionLog>>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) on_alert: Option<OnAlert>,
}

/// The service, pinned to one bundle and one instant: everything that is asked of it is consistent.
pub struct Pinned<'p> {
    pdp: &'p Pdp,
    snapshot: Arc<Snapshot>,
    facts: Facts,
}

impl Pdp {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { live, clock, meters, max_open_reservations, authenticators, failures, log, observer, on_alert } =
            parts;
        let started_at = clock.now();
        let failures = failures.map(|limits| Mutex::new(Failures::new(limits)));
        let (authenticators, observers) = (authenticators.into(), Observers::new(log, observer, on_alert));
        let inner =
            Inner { live, clock, meters, max_open_reservations, authenticators, failures, observers, started_at };
        Self { inner: Arc::new(inner) }
    }

    /// Pins the current bundle and instant.
    ///
    /// # Errors
    /// [`PdpError::NoBundle`] before the first bundle.
    pub fn pin(&self) -> Result<Pinned<'_>, PdpError> {
        let snapshot = self.snapshot().ok_or(PdpError::NoBundle)?;
        Ok(Pinned { pdp: self, snapshot, facts: self.facts() })
    }

    /// Pins a bundle and an instant that were read before.
    #[cfg(feature = "server")]
    pub(crate) fn pin_to(&self, snapshot: Arc<Snapshot>, facts: Facts) -> Pinned<'_> {
        Pinned { pdp: self, snapshot, facts }
    }

    /// Reports a credential that another service refused, such as a refresh token.
    #[cfg(feature = "server")]
    pub(crate) fn credential_refused(&self, refusal: &Refusal, source: Option<std::net::IpAddr>) {
        if let Some(observer) = &self.inner.observers.observer {
            observer.credential_refused(refusal, source);
        }
    }

    /// Decides one call.
    ///
    /// ```no_run
    /// # async fn example(engine: tollgate::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// use tollgate::pdp::{AuthorizeCall, Caller, ReserveOptions};
    /// use tollgate::{EntityUid, gate::ReportedUsage};
    ///
    /// let alice: EntityUid = r#"User::"alice""#.parse()?;
    /// let model: EntityUid = r#"Model::"openai-main/gpt-4o""#.parse()?;
    /// let options = ReserveOptions { idempotency_key: Some("request-17".into()), ..ReserveOptions::default() };
    /// let call = AuthorizeCall::new(Caller::Asserted(alice), "chat", model).with_reserve(options);
    ///
    /// let answer = engine.pdp().authorize(call).await?;
    /// if let Some(reservation) = answer.reservation() {
    ///     // Call the model, then:
    ///     let usage = ReportedUsage { input_tokens: Some(870), output_tokens: Some(312), ..ReportedUsage::default() };
    ///     engine.pdp().settle(reservation, usage, None).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If no decision could be made. A forbid is an answer, and so is a refused credential.
    pub async fn authorize(&self, call: AuthorizeCall) -> Result<Answer, PdpError> {
        self.pin()?.authorize(call).await
    }

    /// Decides several calls by the same bundle at the same instant; each reserves on its own.
    ///
    /// # Errors
    /// If one of the calls has no answer. Then the batch has none: what its other calls reserved is released.
    pub async fn authorize_batch(&self, calls: Vec<AuthorizeCall>) -> Result<Vec<Answer>, BatchError> {
        let pinned = self.pin().map_err(|error| BatchError { index: 0, error })?;
        pinned.authorize_batch(calls).await
    }

    /// Authenticates a credential.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub async fn authenticate(&self, presented: &Presented) -> Result<Arc<Identity>, Refusal> {
        let pinned = self.pin().map_err(|error| Refusal::new(RefusalReason::ProviderUnavailable, error.to_string()))?;
        pinned.authenticate(presented).await
    }

    /// Charges what a reservation used and releases the rest; see [`Pinned::settle`].
    ///
    /// # Errors
    /// As [`Pinned::settle`].
    pub async fn settle(
        &self,
        reservation: ReservationId,
        usage: impl Into<Stated>,
        resource: Option<&EntityUid>,
    ) -> Result<Closed, PdpError> {
        self.pin()?.settle(reservation, usage, resource).await
    }

    /// Releases what a reservation holds; see [`Pinned::release`].
    ///
    /// # Errors
    /// As [`Pinned::release`].
    pub async fn release(&self, reservation: ReservationId) -> Result<Closed, PdpError> {
        self.pin()?.release(reservation).await
    }

    /// Extends a reservation; see [`Pinned::extend`].
    ///
    /// # Errors
    /// As [`Pinned::extend`].
    pub async fn extend(&self, reservation: ReservationId, ttl_ms: i64) -> Result<Timestamp, PdpError> {
        self.pin()?.extend(reservation, ttl_ms).await
    }

    /// Charges usage that nothing was reserved for; see [`Pinned::record_usage`].
    ///
    /// # Errors
    /// As [`Pinned::record_usage`].
    pub async fn record_usage(&self, report: &UsageReport) -> Result<Closed, PdpError> {
        self.pin()?.record_usage(report).await
    }

    /// The recorded usage.
    ///
    /// # Errors
    /// [`PdpError::NoUsageHistory`] if the store of meters records none.
    pub fn usage(&self) -> Result<UsageReports, PdpError> {
        self.inner.meters.books().map(UsageReports::new).ok_or(PdpError::NoUsageHistory)
    }

    /// The current bundle; `None` before the first one.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.inner.live.current()
    }

    /// The facts of a decision at this instant.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts::at(self.inner.clock.now())
    }

    /// The providers of identities, in the order in which they are asked.
    #[must_use]
    pub fn authenticators(&self) -> &[Arc<dyn Authenticator>] {
        &self.inner.authenticators
    }

    /// The store of meters and reservations.
    #[must_use]
    pub fn meters(&self) -> &Arc<dyn Meters> {
        &self.inner.meters
    }

    /// The state of the decision log; `None` without one.
    #[must_use]
    pub fn decision_log_status(&self) -> Option<DecisionLogStatus> {
        self.inner.observers.log_status()
    }

    /// A new id for a reservation, which cannot be guessed.
    pub(crate) fn reservation_id(&self) -> ReservationId {
        ReservationId::new(self.inner.clock.now(), random_number())
    }

    pub(crate) fn live(&self) -> &Live {
        &self.inner.live
    }
}

impl Pinned<'_> {
    /// The bundle.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The instant, and the other facts that a decision starts from.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Decides a question of the library, which is at hand already.
    pub(crate) async fn check_one(&self, request: &Request) -> Result<Answer, PdpError> {
        let of = self.recording(Via::Library);
        self.isolated(pin!(self.check(of, QuestionRef::One(request)))).await
    }

    pub(crate) async fn check_candidates(&self, request: &CandidatesRequest) -> Result<Answer, PdpError> {
        let of = self.recording(Via::Library);
        self.isolated(pin!(self.check(of, QuestionRef::Candidates(request, false)))).await
    }

    pub(crate) async fn reserve_one(&self, request: &Request, reserve: Reserve) -> Result<Answer, PdpError> {
        let of = self.recording(Via::Library);
        let wish = self.wish(reserve, crate::meter::DEFAULT_TTL_MS, None);
        self.isolated(pin!(self.reserve_with(of, QuestionRef::One(request), &wish))).await
    }

    /// The resource that a route leads to.
    ///
    /// # Errors
    /// If a name is not a valid model name, or if two models are named.
    pub fn resource_of(&self, found: &Found) -> Result<EntityUid, RouteError> {
        found.resource(&self.snapshot)
    }

    /// What the core reads.
    fn env(&self) -> World<'_> {
        let Inner { meters, max_open_reservations, .. } = &*self.pdp.inner;
        World { snapshot: &self.snapshot, meters: &**meters, facts: &self.facts, most_open: *max_open_reservations }
    }

    /// Begins a decision. Its id is drawn before anything is decided, so that all log events of the decision carry it.
    fn recording(&self, via: Via) -> Recording {
        let observers = &self.pdp.inner.observers;
        let started = observers.start();
        Recording { id: observers.next_id(self.snapshot.revision()), via, started }
    }

    fn record(&self, record: &DecisionRecord<'_>, started: Stopwatch) {
        self.pdp.inner.observers.decided(record, started);
    }

    fn alert(&self, alerts: &[Alert]) {
        self.pdp.inner.observers.alert(alerts, &self.snapshot, &self.facts);
    }
}

/// This many random numbers are drawn at a time, since the start of a draw takes most of its time.
const DRAWN: usize = 32;

thread_local! {
    static RANDOM: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

/// A random number that was not returned before.
fn random_number() -> u128 {
    RANDOM.with_borrow_mut(|numbers| {
        numbers.pop().unwrap_or_else(|| {
            let drawn: [u8; 16 * DRAWN] = random::bytes();
            numbers.extend(drawn.as_chunks().0.iter().map(|bytes| u128::from_le_bytes(*bytes)));
            numbers.pop().unwrap_or_default()
        })
    })
}
