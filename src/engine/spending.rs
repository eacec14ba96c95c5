//! What an engine does about limits: decide by them, hold, settle, give back.

use std::cell::RefCell;
use std::sync::Arc;

use super::{Engine, EngineError, events};
use crate::edge::random;
use crate::gate::{
    self, Authorized, CandidatesDecision, Decided, DecisionRecord, Meters, Notice, Presented, Reserve, SettleError,
    Stated, Via, Wish, World,
};
use crate::meter::{Alert, Closed, DEFAULT_TTL_MS, ReservationId};
use crate::model::{CandidatesRequest, Decision, Facts, Identity, Request};
use crate::policy::Snapshot;

impl Engine {
    /// Decides one request by rules and limits. Nothing is held: a check counts against no limit.
    ///
    /// # Errors
    /// Before the first bundle, and when the schema does not take the request. A forbid is no error.
    pub fn is_authorized(&self, request: &Request) -> Result<Decision, EngineError> {
        let snapshot = self.inner.live.load();
        self.decide(snapshot.as_ref().ok_or(EngineError::NoBundle)?, &self.facts(), request)
    }

    /// Decides what whoever `presented` proves asks for, by rules and limits: one bundle and one instant for both. `ask`
    /// makes the request of it, as [`Request::proved`] does.
    ///
    /// # Errors
    /// As [`Engine::is_authorized`]; and where the credential proves nobody.
    pub fn authorize(
        &self,
        presented: &Presented,
        ask: impl FnOnce(Arc<Identity>) -> Request,
    ) -> Result<Decision, EngineError> {
        let snapshot = self.inner.live.load();
        let snapshot = snapshot.as_ref().ok_or(EngineError::NoBundle)?;
        let facts = self.facts();
        let identity = self.proved(presented, snapshot, facts.now)?;
        self.decide(snapshot, &facts, &ask(identity))
    }

    fn decide(&self, snapshot: &Snapshot, facts: &Facts, request: &Request) -> Result<Decision, EngineError> {
        let world = self.world(snapshot, facts);
        let (decision, seen) = if gate::has_limits(snapshot, request.identity.as_deref()) {
            let Authorized { decision, seen, .. } = pollster::block_on(gate::authorize(world, request, None))?;
            (decision, seen)
        } else {
            (gate::decide(snapshot, facts, request)?, Vec::new())
        };
        let decided = Decided::One(request, &decision);
        self.record(&DecisionRecord::of(self.next_decision(), Via::Library, world, decided).with_seen(&seen));
        Ok(decision)
    }

    /// Decides about a list of candidates by rules and limits.
    ///
    /// # Errors
    /// As [`Engine::is_authorized`].
    pub fn candidates(&self, request: &CandidatesRequest) -> Result<CandidatesDecision, EngineError> {
        let snapshot = self.snapshot().ok_or(EngineError::NoBundle)?;
        let facts = self.facts();
        let world = self.world(&snapshot, &facts);
        let (decision, seen) = if gate::has_limits(&snapshot, request.identity.as_deref()) {
            let authorized = pollster::block_on(gate::authorize_candidates(world, request, None))?;
            (authorized.decision, authorized.seen)
        } else {
            (gate::decide_candidates(&snapshot, &facts, request)?, Vec::new())
        };
        let decided = Decided::Candidates(request, &decision);
        self.record(&DecisionRecord::of(self.next_decision(), Via::Library, world, decided).with_seen(&seen));
        Ok(decision)
    }

    /// Decides one request and, if it is permitted, holds what it will use on every limit that applies; the decision's
    /// `reservation` names it. Waits until that is as durable as the limits say.
    ///
    /// # Errors
    /// As [`Engine::is_authorized`]; and where a limit needs an amount that nobody gave.
    pub fn reserve(&self, request: &Request, reserve: Reserve) -> Result<Decision, EngineError> {
        let snapshot = self.snapshot().ok_or(EngineError::NoBundle)?;
        let facts = self.facts();
        let wish = Wish { reserve, ttl_ms: DEFAULT_TTL_MS, id: self.reservation_id(), idempotency: None };
        let world = self.world(&snapshot, &facts);
        let held = pollster::block_on(gate::authorize(world, request, Some(&wish)))?;
        let decided = Decided::One(request, &held.decision);
        let record = DecisionRecord::of(self.next_decision(), Via::Library, world, decided);
        self.record(&record.with_seen(&held.seen).with_reserve(Some(&wish.reserve)));
        self.warn(&held.alerts, &snapshot, &facts);
        Ok(held.decision)
    }

    /// Charges what a reservation used and gives back the rest. The same again changes nothing.
    ///
    /// # Errors
    /// Returns an error if the reservation is unknown or closed otherwise, or if its usage or cost is unknown.
    pub fn settle(&self, reservation: ReservationId, usage: impl Into<Stated>) -> Result<Closed, SettleError> {
        let snapshot = self.snapshot().ok_or(SettleError::Unknown)?;
        let facts = self.facts();
        let closed = pollster::block_on(gate::settle(self.world(&snapshot, &facts), reservation, usage, None))?;
        self.warn(&closed.alerts, &snapshot, &facts);
        Ok(closed)
    }

    /// Gives back what a reservation held. The same again changes nothing.
    ///
    /// # Errors
    /// Where it is unknown, or was settled.
    pub fn release(&self, reservation: ReservationId) -> Result<Closed, SettleError> {
        let snapshot = self.snapshot().ok_or(SettleError::Unknown)?;
        let facts = self.facts();
        pollster::block_on(gate::release(self.world(&snapshot, &facts), reservation))
    }

    /// Tells whoever wants to know that percents of limits were crossed.
    pub(crate) fn warn(&self, alerts: &[Alert], snapshot: &Snapshot, facts: &Facts) {
        alerts.iter().for_each(events::limit_reached);
        let Some(warned) = &self.inner.warned else { return };
        for alert in alerts {
            warned(&Notice { alert: alert.clone(), at: facts.now, revision: Arc::clone(snapshot.revision()) });
        }
    }

    /// What a request is decided by.
    pub(crate) fn world<'a>(&'a self, snapshot: &'a Snapshot, facts: &'a Facts) -> World<'a> {
        World { snapshot, meters: &*self.inner.meters, facts, most_open: self.inner.most_open }
    }

    /// The meters.
    #[must_use]
    pub fn meters(&self) -> &Arc<dyn Meters> {
        &self.inner.meters
    }

    /// A name for a reservation that nobody has had or can guess.
    #[must_use]
    pub fn reservation_id(&self) -> ReservationId {
        ReservationId::new(self.inner.clock.now(), chance())
    }
}

/// So many numbers are drawn at a time: drawing takes most of its time to begin.
const DRAWN: usize = 32;

thread_local! {
    static CHANCES: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

/// A number that nobody can guess, of those that were drawn and given to nobody yet.
fn chance() -> u128 {
    CHANCES.with_borrow_mut(|chances| {
        chances.pop().unwrap_or_else(|| {
            let drawn: [u8; 16 * DRAWN] = random::bytes();
            chances.extend(drawn.as_chunks().0.iter().map(|bytes| u128::from_le_bytes(*bytes)));
            chances.pop().unwrap_or_default()
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::gate::{CloseError, HoldError, Later, Look, ReportedUsage, StoreError};
    use crate::meter::{Charge, Held, Hold, Reservation, Usage};
    use crate::model::{Amount, DecisionCode, Timestamp};
    use crate::policy::{Bundle, SourceFile};

    #[test]
    fn alerts_are_told_once_a_period() {
        let text = "authz_rules: [{ users: [a], models: \"*\" }]\nlimits: [{ id: few, users: [a], budget: { tokens: 10, \
                    every: total }, warn_at: [50] }]\n";
        let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
        let told: Arc<Mutex<Vec<Notice>>> = Arc::default();
        let telling = Arc::clone(&told);
        let builder =
            Engine::builder().bundle(bundle).on_alert(move |notice| telling.lock().unwrap().push(notice.clone()));
        let engine = builder.build().unwrap();
        let request = Request::new("User::\"a\"".parse().unwrap(), "chat", "Model::\"b/c\"".parse().unwrap());
        let hold = |tokens| {
            let reserve = Reserve { input_tokens: Some(tokens), output_tokens: Some(0), ..Reserve::default() };
            engine.reserve(&request, reserve).unwrap().reservation
        };
        // The second uses more than it held.
        let held = [hold(3), hold(1)].map(|held| held.unwrap().id.parse().unwrap());
        for (id, used) in held.into_iter().zip([3, 2]) {
            let usage = ReportedUsage { input_tokens: Some(used), output_tokens: Some(0), ..ReportedUsage::default() };
            engine.settle(id, usage).unwrap();
        }
        assert_eq!(told.lock().unwrap().len(), 1);
        drop([1, 9].map(hold));
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].alert.limit.as_str(), told[0].alert.percent), ("few", 50));
        assert_eq!(Some(&told[0].revision), engine.snapshot().as_ref().map(|snapshot| snapshot.revision()));
    }

    #[test]
    fn what_costs_nothing_is_charged_as_nothing() {
        let text = "provider_accounts: [{ id: b, models: [{ name: c, price: { input: 0, output: 0 } }] }]\nauthz_rules: [{ \
                    users: [a], models: \"*\" }]\nlimits: [{ id: none, users: [a], budget: { usd: 0, every: total } }, { \
                    id: pace, users: [a], rate: { requests: 1, every: day } }]\n";
        let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
        let engine = Engine::builder().bundle(bundle).build().unwrap();
        let request = Request::new("User::\"a\"".parse().unwrap(), "chat", "Model::\"b/c\"".parse().unwrap());
        let (snapshot, facts) = (engine.snapshot().unwrap(), engine.facts());
        let charge = || {
            let charging = gate::Charging { id: engine.reservation_id(), body_bytes: Some(8) };
            pollster::block_on(gate::authorize_and_charge(engine.world(&snapshot, &facts), &request, &charging))
                .unwrap()
        };
        assert!(charge().decision.is_permit());
        assert_eq!(charge().decision.code, DecisionCode::RateLimited);
    }

    /// Meters whose store goes away between a hold and its settle.
    struct NeverSettles(Arc<dyn Meters>);

    impl Meters for NeverSettles {
        fn settle(&self, _: ReservationId, _: Usage, _: Timestamp) -> Later<Result<Closed, CloseError>> {
            Later::ready(Err(CloseError::Store(StoreError::Away("it went away".into()))))
        }

        fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
            self.0.look(charges, now)
        }

        fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
            self.0.hold(hold, now)
        }

        fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
            self.0.record(hold, usage, now)
        }

        fn settle_unknown(
            &self,
            id: ReservationId,
            charged: &[Amount],
            now: Timestamp,
        ) -> Later<Result<Closed, CloseError>> {
            self.0.settle_unknown(id, charged, now)
        }

        fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
            self.0.release(id, now)
        }

        fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
            self.0.warn(charges, now)
        }

        fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
            self.0.extend(id, ttl_ms, now)
        }

        fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
            self.0.reservation(id, now)
        }

        fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
            self.0.named(key, now)
        }

        fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
            self.0.answered(id, answer)
        }

        fn tick(&self, now: Timestamp) {
            self.0.tick(now);
        }
    }

    fn engine_with(limits: &str) -> (Engine, Request) {
        let text = format!("authz_rules: [{{ users: [a], models: \"*\" }}]\nlimits: [{limits}]\n");
        let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
        let request = Request::new("User::\"a\"".parse().unwrap(), "chat", "Model::\"b/c\"".parse().unwrap());
        (Engine::builder().bundle(bundle).build().unwrap(), request)
    }

    fn charge(engine: &Engine, world: World<'_>, request: &Request) -> Decision {
        let charging = gate::Charging { id: engine.reservation_id(), body_bytes: Some(8) };
        pollster::block_on(gate::authorize_and_charge(world, request, &charging)).unwrap().decision
    }

    #[test]
    fn a_permit_that_is_counted_at_once_stays_counted_where_its_store_goes_away_before_the_settle() {
        let bound = "users: [a], on_expiry: release, budget: { input_tokens: 9, every: total }";
        for (on_store_error, code) in
            [("{ permit: 5 }", DecisionCode::Permitted), ("forbid", DecisionCode::StoreUnavailable)]
        {
            let (engine, request) = engine_with(&format!("{{ id: few, {bound}, on_store_error: {on_store_error} }}"));
            let (snapshot, facts) = (engine.snapshot().unwrap(), engine.facts());
            let meters = NeverSettles(Arc::clone(engine.meters()));
            let world = World { meters: &meters, ..engine.world(&snapshot, &facts) };
            assert_eq!(charge(&engine, world, &request).code, code);
            // Once its hold has expired, it is charged as held.
            let later = Facts { now: Timestamp::from_millis(facts.now.as_millis() + 3_600_000), ..facts.clone() };
            let world = World { facts: &later, ..world };
            let checked = pollster::block_on(gate::authorize(world, &request, None)).unwrap().decision;
            let told = &checked.limits[0];
            assert_eq!((told.used.get(), told.held.get()), (2, 0), "{code:?}");
        }
    }

    #[test]
    fn what_is_counted_at_once_is_no_open_reservation() {
        let (engine, request) = engine_with("{ id: few, users: [a], budget: { input_tokens: 9, every: total } }");
        let (snapshot, facts) = (engine.snapshot().unwrap(), engine.facts());
        let world = World { most_open: 1, ..engine.world(&snapshot, &facts) };
        let reserve = Reserve { input_tokens: Some(1), ..Reserve::default() };
        let wish = gate::Wish { reserve, ttl_ms: 60_000, id: engine.reservation_id(), idempotency: None };
        let hold = |wish| pollster::block_on(gate::authorize(world, &request, Some(wish))).unwrap().decision.code;
        assert_eq!(hold(&wish), DecisionCode::Permitted);
        let another = gate::Wish { id: engine.reservation_id(), ..wish.clone() };
        assert_eq!(hold(&another), DecisionCode::ConcurrencyExceeded);
        assert_eq!(charge(&engine, world, &request).code, DecisionCode::Permitted);
    }

    #[test]
    fn what_is_counted_at_once_on_a_router_is_what_was_held() {
        for (cap, code, used) in [(1500, DecisionCode::BudgetExceeded, 0), (2002, DecisionCode::Permitted, 2000)] {
            let text = format!(
                "provider_accounts: [{{ id: p, models: [{{ name: in, estimate_input_tokens: 1000, estimate_output_tokens: 10 \
                 }}, {{ name: out, estimate_input_tokens: 10, estimate_output_tokens: 1000 }}] }}]\nrouters: [{{ id: r, models: \
                 [p/in, p/out] }}]\nauthz_rules: [{{ users: [a], routers: [r] }}]\nlimits: [{{ id: all, users: [a], budget: {{ \
                 tokens: {cap}, every: total }} }}]\n"
            );
            let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
            let engine = Engine::builder().bundle(bundle).build().unwrap();
            let request = Request::new("User::\"a\"".parse().unwrap(), "chat", "Router::\"r\"".parse().unwrap());
            let (snapshot, facts) = (engine.snapshot().unwrap(), engine.facts());
            let world = engine.world(&snapshot, &facts);
            let charging = gate::Charging { id: engine.reservation_id(), body_bytes: None };
            let charged = pollster::block_on(gate::authorize_and_charge(world, &request, &charging)).unwrap();
            assert_eq!(charged.decision.code, code);
            let checked = pollster::block_on(gate::authorize(world, &request, None)).unwrap().decision;
            assert_eq!((checked.limits[0].used.get(), checked.limits[0].held.get()), (used, 0));
        }
    }
}
