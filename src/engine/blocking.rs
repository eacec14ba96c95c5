//! The blocking forms of the decision service, for callers without an async runtime. Each waits on the current thread; a
//! decision that needs no store and no provider does not wait at all.

use std::sync::Arc;

use super::Engine;
use crate::gate::{
    Authenticator, CandidatesDecision, DecisionLogStatus, Explanation, Meters, Presented, Reserve, StandingsOf, Stated,
};
use crate::meter::{Closed, ReservationId};
use crate::model::{CandidatesRequest, Decision, EntityUid, Identity, Refusal, Request, Timestamp};
use crate::pdp::{
    Answer, AnswerResult, AuthorizeCall, BatchError, PdpError, Pinned, UsageReport, UsageReports, block_on,
};

impl Engine {
    /// Decides one request by rules and limits. Nothing is reserved: a check counts against no limit.
    ///
    /// # Errors
    /// Before the first bundle, and if the schema does not accept the request. A forbid is no error.
    pub fn is_authorized(&self, request: &Request) -> Result<Decision, PdpError> {
        one(block_on(self.pdp().pin()?.check_one(request))?)
    }

    /// Decides one call: with a principal or a credential, about one resource or candidates, with or without a
    /// reservation, an idempotency key and an explanation.
    ///
    /// ```no_run
    /// use tollgate::gate::{Credential, Presented, ReportedUsage};
    /// use tollgate::model::SecretText;
    /// use tollgate::pdp::{AuthorizeCall, Caller, ReserveOptions, Target};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = tollgate::Engine::load("policies")?;
    /// let caller = Caller::Credential(Presented::new(Credential::Bearer(SecretText::new("sk-…"))));
    /// let candidates = vec![r#"Model::"openai-main/gpt-4o""#.parse()?, r#"Model::"azure-dev/gpt-4o""#.parse()?];
    /// let options = ReserveOptions { ttl_ms: 60_000, ..ReserveOptions::default() };
    /// let call = AuthorizeCall::new(caller, "chat", Target::Candidates { router: None, candidates });
    ///
    /// let answer = engine.decide(call.with_reserve(options).with_explain(true))?;
    /// if let Some(reservation) = answer.reservation() {
    ///     engine.extend(reservation, 120_000)?;
    ///     let usage = ReportedUsage { input_tokens: Some(870), output_tokens: Some(312), ..ReportedUsage::default() };
    ///     engine.settle(reservation, usage)?;
    /// } else {
    ///     println!("{}", String::from_utf8(answer.to_json())?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If no decision could be made. A forbid is an answer, and so is a refused credential.
    pub fn decide(&self, call: AuthorizeCall) -> Result<Answer, PdpError> {
        block_on(self.pdp().authorize(call))
    }

    /// Decides several calls by the same bundle at the same instant; each reserves on its own.
    ///
    /// # Errors
    /// If one of the calls has no answer. Then the batch has none: what its other calls reserved is released.
    pub fn decide_batch(&self, calls: Vec<AuthorizeCall>) -> Result<Vec<Answer>, BatchError> {
        block_on(self.pdp().authorize_batch(calls))
    }

    /// Authenticates a credential and decides the request that `ask` makes of the identity, as [`Request::proved`] does,
    /// both by one bundle at one instant.
    ///
    /// # Errors
    /// As [`Engine::is_authorized`]; and if the credential is refused.
    pub fn authorize(
        &self,
        presented: &Presented,
        ask: impl FnOnce(Arc<Identity>) -> Request,
    ) -> Result<Decision, PdpError> {
        let pinned = self.pdp().pin()?;
        let identity = block_on(pinned.authenticate(presented))?;
        one(block_on(pinned.check_one(&ask(identity)))?)
    }

    /// Authenticates a credential. The identity goes into [`Request::proved`].
    ///
    /// # Errors
    /// Returns the reason of the refusal. Before the first bundle every credential is refused.
    pub fn authenticate(&self, presented: &Presented) -> Result<Arc<Identity>, Refusal> {
        block_on(self.pdp().authenticate(presented))
    }

    /// Decides about a list of candidates by rules and limits.
    ///
    /// # Errors
    /// As [`Engine::is_authorized`].
    pub fn candidates(&self, request: &CandidatesRequest) -> Result<CandidatesDecision, PdpError> {
        match block_on(self.pdp().pin()?.check_candidates(request))?.result {
            AnswerResult::Candidates { decision, .. } => Ok(decision),
            // INVARIANT: a list is decided as a list.
            _ => Err(PdpError::Panicked),
        }
    }

    /// Decides one request and explains the result of each rule.
    ///
    /// # Errors
    /// As [`Engine::is_authorized`].
    pub fn explain(&self, request: &Request) -> Result<(Decision, Explanation), PdpError> {
        block_on(self.pdp().pin()?.explain(request))
    }

    /// Decides one request and, if it is permitted, reserves what it will use on every limit that applies; the decision's
    /// `reservation` names it. Waits until that is as durable as the limits say.
    ///
    /// # Errors
    /// As [`Engine::is_authorized`]; and if a limit needs an amount that is not known.
    pub fn reserve(&self, request: &Request, reserve: Reserve) -> Result<Decision, PdpError> {
        one(block_on(self.pdp().pin()?.reserve_one(request, reserve))?)
    }

    /// Charges what a reservation used and releases the rest. The same again changes nothing.
    ///
    /// # Errors
    /// Returns an error if the reservation is unknown or closed otherwise, or if its usage or cost is unknown.
    pub fn settle(&self, reservation: ReservationId, usage: impl Into<Stated>) -> Result<Closed, PdpError> {
        block_on(self.pdp().settle(reservation, usage, None))
    }

    /// As [`Engine::settle`], for the permitted resource that was used.
    ///
    /// # Errors
    /// As [`Engine::settle`]; and if `resource` was not permitted.
    pub fn settle_for(
        &self,
        reservation: ReservationId,
        usage: impl Into<Stated>,
        resource: &EntityUid,
    ) -> Result<Closed, PdpError> {
        block_on(self.pdp().settle(reservation, usage, Some(resource)))
    }

    /// Releases what a reservation holds. The same again changes nothing.
    ///
    /// # Errors
    /// If it is unknown, or was settled.
    pub fn release(&self, reservation: ReservationId) -> Result<Closed, PdpError> {
        block_on(self.pdp().release(reservation))
    }

    /// Extends a reservation so that it expires `ttl_ms` milliseconds from now, and returns that instant.
    ///
    /// # Errors
    /// If it is unknown or closed.
    pub fn extend(&self, reservation: ReservationId, ttl_ms: i64) -> Result<Timestamp, PdpError> {
        block_on(self.pdp().extend(reservation, ttl_ms))
    }

    /// Charges usage that nothing was reserved for, in full.
    ///
    /// ```
    /// use tollgate::gate::{ReportedUsage, StandingsOf};
    /// use tollgate::pdp::UsageReport;
    /// use tollgate::{Bundle, Engine, EntityUid, Request, SourceFile};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let text = r#"
    /// authz_rules: [{ users: [alice], models: ["*"] }]
    /// limits: [{ id: monthly, users: [alice], budget: { tokens: 1000, every: month } }]
    /// "#;
    /// let bundle = Bundle::new(SourceFile::new("rules.yaml", text.as_bytes()).into_iter().collect());
    /// let engine = Engine::builder().bundle(bundle).build()?;
    ///
    /// let alice: EntityUid = r#"User::"alice""#.parse()?;
    /// let request = Request::new(alice.clone(), "chat", r#"Model::"openai-main/gpt-4o""#.parse()?);
    /// let usage = ReportedUsage { input_tokens: Some(30), output_tokens: Some(12), ..ReportedUsage::default() };
    /// engine.record_usage(&UsageReport { request, usage, idempotency_key: "call-1".into() })?;
    ///
    /// let of = StandingsOf { principal: &alice, identity: None, after: None, most: 100, whole: true };
    /// let used = engine.standing(of, |found| found.meters.first().map(|meter| meter.standing.used.get()))?;
    /// assert_eq!(used, Some(42));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the usage lacks an amount that a limit counts, or if the key names another report.
    pub fn record_usage(&self, report: &UsageReport) -> Result<Closed, PdpError> {
        block_on(self.pdp().record_usage(report))
    }

    /// Reads the limits that bind a principal, a page at a time, and hands them to `read`.
    ///
    /// # Errors
    /// If the principal has a type that the bundle lacks, or if the store fails.
    pub fn standing<T>(
        &self,
        of: StandingsOf<'_, '_>,
        read: impl FnOnce(&crate::gate::Standings<'_>) -> T,
    ) -> Result<T, PdpError> {
        let pinned: Pinned<'_> = self.pdp().pin()?;
        let StandingsOf { principal, identity, after, most, whole } = of;
        let of = StandingsOf { principal, identity, after, most, whole };
        Ok(read(&block_on(pinned.standing(of))?))
    }

    /// The recorded usage, by day, month, principal, resource or limit.
    ///
    /// # Errors
    /// If the store of meters records none.
    pub fn usage(&self) -> Result<UsageReports, PdpError> {
        self.pdp().usage()
    }

    /// The store of meters and reservations.
    #[must_use]
    pub fn meters(&self) -> &Arc<dyn Meters> {
        self.pdp().meters()
    }

    /// The providers of identities, in the order in which they are asked.
    #[must_use]
    pub fn authenticators(&self) -> &[Arc<dyn Authenticator>] {
        self.pdp().authenticators()
    }

    /// The state of the decision log; `None` without one.
    #[must_use]
    pub fn decision_log_status(&self) -> Option<DecisionLogStatus> {
        self.pdp().decision_log_status()
    }
}

/// The decision about one resource.
fn one(answer: Answer) -> Result<Decision, PdpError> {
    match answer.result {
        AnswerResult::One(decision) => Ok(decision),
        // INVARIANT: a request about one resource is decided as one, and an asserted or authenticated caller is not refused.
        _ => Err(PdpError::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::gate::{self, CloseError, HoldError, Later, Look, Notice, ReportedUsage, StoreError, World};
    use crate::meter::{Alert, Charge, DEFAULT_MOST_OPEN_OF_PRINCIPAL, Held, Hold, Reservation, Usage};
    use crate::model::{Amount, DecisionCode, Facts};
    use crate::policy::{Bundle, Snapshot, SourceFile};

    fn world<'a>(engine: &'a Engine, snapshot: &'a Snapshot, facts: &'a Facts) -> World<'a> {
        World { snapshot, meters: &**engine.meters(), facts, most_open: DEFAULT_MOST_OPEN_OF_PRINCIPAL }
    }

    /// The future of a decision is moved several times for each request, so it must not grow without notice.
    #[test]
    fn the_future_of_a_decision_is_small() {
        let (engine, request) = engine_with("{ id: few, users: [a], budget: { tokens: 9, every: total } }");
        let caller = crate::pdp::Caller::Asserted(request.principal.clone());
        let call = AuthorizeCall::new(caller, request.action.clone(), request.resource.clone());
        let bytes = size_of_val(&engine.pdp().authorize(call));
        assert!(bytes <= 6 * 1024, "{bytes} bytes");
    }

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
            let charging = gate::Charging { id: engine.pdp().reservation_id(), body_bytes: Some(8) };
            pollster::block_on(gate::authorize_and_charge(world(&engine, &snapshot, &facts), &request, &charging))
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
        let charging = gate::Charging { id: engine.pdp().reservation_id(), body_bytes: Some(8) };
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
            let world = World { meters: &meters, ..world(&engine, &snapshot, &facts) };
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
        let world = World { most_open: 1, ..world(&engine, &snapshot, &facts) };
        let reserve = Reserve { input_tokens: Some(1), ..Reserve::default() };
        let wish = gate::Wish { reserve, ttl_ms: 60_000, id: engine.pdp().reservation_id(), idempotency: None };
        let hold = |wish| pollster::block_on(gate::authorize(world, &request, Some(wish))).unwrap().decision.code;
        assert_eq!(hold(&wish), DecisionCode::Permitted);
        let another = gate::Wish { id: engine.pdp().reservation_id(), ..wish.clone() };
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
            let world = world(&engine, &snapshot, &facts);
            let charging = gate::Charging { id: engine.pdp().reservation_id(), body_bytes: None };
            let charged = pollster::block_on(gate::authorize_and_charge(world, &request, &charging)).unwrap();
            assert_eq!(charged.decision.code, code);
            let checked = pollster::block_on(gate::authorize(world, &request, None)).unwrap().decision;
            assert_eq!((checked.limits[0].used.get(), checked.limits[0].held.get()), (used, 0));
        }
    }
}
