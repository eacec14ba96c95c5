//! Drives a ledger and its model through the same, and compares them at every step. A store is kept beside them, by the
//! ledger's changes alone, and now and then the ledger is made anew from it.

use std::collections::BTreeMap;

use tollgate::Timestamp;
use tollgate::meter::{
    Alert, Cause, Charge, Closed, Held, Hold, Ledger, LedgerError, MEMORY_MS, Meter, MeterKey, Refused, Reservation,
    ReservationId, Standing, State,
};
use tollgate::model::Unit;

use crate::invariants::*;
use crate::model::{MOST, Model, charged, number};
use crate::tape::Tape;
use crate::world::{INSTANTS, World, amount, usage};

const MOST_OPEN: usize = 40;

/// What a store has.
#[derive(Default)]
struct Store {
    meters: BTreeMap<MeterKey, Meter>,
    reservations: BTreeMap<ReservationId, Reservation>,
    spent: BTreeMap<String, i128>,
}

pub struct Drive {
    tape: Tape,
    world: World,
    ledger: Ledger,
    model: Model,
    store: Store,
    now: i64,
    /// No clock is put back further than this: meters were swept since.
    floor: i64,
    made: u128,
    parked: Vec<Reservation>,
}

type Meters = BTreeMap<MeterKey, Meter>;

fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

impl Drive {
    pub fn new(seed: u64) -> Self {
        let mut tape = Tape::new(seed, 0);
        let now = Timestamp::parse(*tape.pick(INSTANTS)).unwrap().as_millis();
        let world = World::new(&mut tape);
        let (ledger, model) = (Ledger::with_most_open(MOST_OPEN), Model::default());
        let (store, floor, made, parked) = (Store::default(), i64::MIN, 0, Vec::new());
        Self { tape, world, ledger, model, store, now, floor, made, parked }
    }

    pub fn step(&mut self) {
        match self.tape.below(100) {
            0..26 => self.hold(),
            26..32 => self.record(),
            32..52 => self.settle(),
            52..58 => self.release(),
            58..62 => self.extend(),
            62..69 => self.expire(),
            69..83 => self.tick(),
            83..86 => {
                let now = self.now;
                self.world.reload(&mut self.tape, now);
            }
            86..89 => self.park(),
            89..91 => self.recall(),
            91..94 => self.check(),
            94..95 => self.sweep(),
            95..96 => self.answer(),
            _ => self.sync(),
        }
        if std::env::var_os("LEDGER_CLOSELY").is_some() {
            self.compare_all();
        }
    }

    /// Compares every meter, as its limit was when something happened to it last.
    fn compare_all(&self) {
        for (key, log) in &self.model.logs {
            let limit = log.limit.clone().into();
            let charge = Charge { limit, subject: key.subject.clone(), amount: Default::default() };
            self.compare(std::slice::from_ref(&charge), &self.ledger.standings([&charge], ms(self.now)));
        }
    }

    fn meters(&self) -> Meters {
        self.ledger.meters().map(|(key, meter)| (key.clone(), meter.clone())).collect()
    }

    /// What there is before something that may change nothing; now and then, since it takes long.
    fn before(&mut self) -> Option<Meters> {
        self.tape.chance(10).then(|| self.meters())
    }

    fn nothing_changed(&self, before: Option<Meters>, why: &str) {
        if let Some(before) = before {
            assert_eq!(self.meters(), before, "{why} changes nothing");
        }
    }

    fn compare(&self, charges: &[Charge], standings: &[Standing]) {
        for (charge, standing) in charges.iter().zip(standings) {
            held_and_settled_are_conserved(standing, &self.model.log(charge, self.now), self.now);
        }
    }

    fn next_id(&mut self) -> ReservationId {
        self.made += 1;
        ReservationId::new(ms(self.now.max(0)), self.made)
    }

    fn hold(&mut self) {
        let id = self.next_id();
        let hold = self.world.hold(&mut self.tape, id);
        let most_open = hold.most_open;
        let (charges, ttl_ms) = (hold.charges.clone(), hold.ttl_ms);
        let key = hold.idempotency.clone();
        let before = self.before();
        let expected = self.model.shortfalls(&charges, self.now);
        match self.ledger.hold(hold, ms(self.now)) {
            Ok(Held { expires_at, alerts, .. }) => {
                assert_eq!(expected, [0; 0], "all or none");
                assert_eq!(expires_at.as_millis(), self.now + ttl_ms);
                self.model.hold(id, &charges, expires_at.as_millis(), self.now);
                self.granted(&charges, &alerts);
                if let Some((key, digest)) = key {
                    let named = self.ledger.named(&key).expect("it was named");
                    assert_eq!((named.id, named.idempotency.as_ref().unwrap().digest), (id, digest));
                }
            }
            Err(Refused { cause: Some(Cause::TooManyOfPrincipal), .. }) => {
                assert!(most_open.is_some_and(|most| self.ledger.open_count() >= most));
                self.nothing_changed(before, "a refused hold");
            }
            Err(Refused { cause: Some(cause), .. }) => {
                assert_eq!(cause, Cause::TooManyOpen);
                assert_eq!(self.ledger.open_count(), MOST_OPEN);
                self.nothing_changed(before, "a refused hold");
            }
            Err(Refused { shortfalls, alerts, .. }) => {
                let short: Vec<usize> = shortfalls.iter().map(|short| short.charge).collect();
                assert_eq!(short, expected, "every meter without room is named");
                if alerts.is_empty() {
                    self.nothing_changed(before, "a refused hold");
                }
                let told = |charge: &&Charge| alerts.iter().any(|alert| of(alert, charge));
                let told: Vec<Charge> = charges.iter().filter(told).cloned().collect();
                self.told(&told, &alerts);
                self.retries(&charges, &shortfalls);
            }
        }
        self.compare(&charges, &self.ledger.standings(&charges, ms(self.now)));
    }

    /// After a refusal, there is room when it said, as far as time gives it.
    fn retries(&self, charges: &[Charge], shortfalls: &[tollgate::meter::Shortfall]) {
        for short in shortfalls {
            let Some(at) = short.lack.retry_at else { continue };
            let charge = &charges[short.charge];
            assert!(at.as_millis() > self.now, "waiting takes time");
            let single = charges.iter().filter(|other| other.key() == charge.key()).count() == 1;
            let steady = charge.limit.overrides.is_empty() && charge.limit.unit() != Unit::Places;
            if single && steady && at.as_millis() < i64::MAX / 2 {
                let again = self.ledger.shortfalls(std::slice::from_ref(charge), at);
                assert_eq!(again.len(), 0, "there is room when it was said: {again:?}");
            }
        }
    }

    fn granted(&mut self, charges: &[Charge], alerts: &[Alert]) {
        for charge in charges {
            let log = &self.model.logs[&charge.key()];
            never_over_cap(log, self.now);
            over_cap_only_by_overrun(log);
            rolling_is_bound(log, self.now);
            rate_is_bound(log, self.now);
        }
        self.told(charges, alerts);
    }

    /// A percent is told once a period, when it is reached.
    fn told(&mut self, charges: &[Charge], alerts: &[Alert]) {
        for alert in alerts {
            let charge = charges.iter().find(|charge| of(alert, charge)).expect("an alert is of a charge");
            let log = self.model.touch(charge, self.now);
            if !log.windows.is_empty() {
                assert!(alert.percent > log.told, "told once: {} after {}", alert.percent, log.told);
                log.told = alert.percent;
            }
        }
        for charge in charges {
            let log = &self.model.logs[&charge.key()];
            let taken = log.used() + log.held();
            let reached = |mark: &&u8| taken * 100 >= i128::from(**mark) * log.cap(self.now);
            let reached = charge.limit.warn_at.iter().rev().find(reached).copied().unwrap_or(0);
            assert!(log.windows.is_empty() || log.told >= reached, "what is reached is told: {reached}");
        }
    }

    fn record(&mut self) {
        let id = self.next_id();
        let hold = Hold { idempotency: None, ..self.world.hold(&mut self.tape, id) };
        let (charges, usage) = (hold.charges.clone(), usage(&mut self.tape));
        let before = self.before();
        match self.ledger.record(hold, usage, ms(self.now)) {
            Ok(closed) => {
                assert!(self.model.counts(&charges, self.now));
                self.model.record(id, &charges, usage, self.now);
                self.told(&charges, &closed.alerts);
            }
            Err(error) => {
                assert_eq!(error, LedgerError::Overflow);
                assert!(!self.model.counts(&charges, self.now));
                self.nothing_changed(before, "a refused record");
            }
        }
        self.compare(&charges, &self.ledger.standings(&charges, ms(self.now)));
    }

    /// One that was made; mostly one that is open.
    fn some_id(&mut self) -> Option<ReservationId> {
        let open_only = self.tape.chance(75);
        let wanted = |made: &crate::model::Made| !open_only || made.state == State::Open;
        let ids: Vec<_> = self.model.made.iter().filter(|(_, made)| wanted(made)).map(|(id, _)| *id).collect();
        if ids.is_empty() || self.tape.chance(1) {
            return Some(self.next_id());
        }
        Some(*self.tape.pick(&ids))
    }

    /// Settles what nobody knows the usage of.
    fn settle_unknown(&mut self, id: ReservationId) {
        let parts = self.model.known(id).map_or(0, |made| made.parts.len());
        let amounts: Vec<_> = (0..parts).map(|_| amount(&mut self.tape)).collect();
        let before = self.before();
        let result = self.ledger.settle_unknown(id, &amounts, ms(self.now));
        let Some(made) = self.model.known(id) else {
            assert_eq!(result, Err(LedgerError::Unknown));
            return;
        };
        let keys: Vec<MeterKey> = made.parts.iter().map(|part| part.0.clone()).collect();
        let charge = |((_, unit, ..), amount): (&(MeterKey, Unit, i128, _), &tollgate::model::Amount)| match unit {
            Unit::Places => 0,
            _ => number(*amount),
        };
        let charges: Vec<i128> = made.parts.iter().zip(&amounts).map(charge).collect();
        match (made.state, result) {
            (State::UsageUnknown, result) => assert_eq!(result.unwrap().reservation.state, State::UsageUnknown),
            (state @ (State::Settled(_) | State::Released), result) => {
                assert_eq!(result, Err(LedgerError::Closed(state)));
            }
            (State::Open | State::Expired, Err(error)) => {
                assert_eq!(error, LedgerError::Overflow);
                self.is_absurd(&keys, &charges);
            }
            (State::Open | State::Expired, Ok(closed)) => {
                return self.closed(id, State::UsageUnknown, charges, closed);
            }
        }
        self.nothing_changed(before, "a settle of an unknown usage that changes nothing");
    }

    fn settle(&mut self) {
        let Some(id) = self.some_id() else { return };
        if self.tape.chance(10) {
            return self.settle_unknown(id);
        }
        let usage = match self.model.known(id).map(|made| made.state) {
            Some(State::Settled(usage)) if self.tape.chance(50) => usage,
            _ => usage(&mut self.tape),
        };
        let before = self.before();
        let result = self.ledger.settle(id, usage, ms(self.now));
        let Some(made) = self.model.known(id) else {
            assert_eq!(result, Err(LedgerError::Unknown));
            return;
        };
        match made.state {
            State::Settled(had) if had == usage => {
                assert_eq!(result.unwrap().reservation.state, made.state);
                return self.nothing_changed(before, "settled the same again: idempotence");
            }
            State::Settled(_) | State::UsageUnknown | State::Released => {
                assert_eq!(result, Err(LedgerError::Closed(made.state)));
                return self.nothing_changed(before, "settled otherwise");
            }
            State::Open | State::Expired => {}
        }
        let charges: Option<Vec<i128>> = made.parts.iter().map(|(_, unit, ..)| charged(*unit, &usage)).collect();
        let (keys, charges) = (made.parts.iter().map(|part| part.0.clone()).collect::<Vec<_>>(), charges);
        match result {
            Err(LedgerError::CostUnknown) => assert_eq!(charges, None),
            Err(LedgerError::Overflow) => self.is_absurd(&keys, &charges.expect("the cost is known")),
            Err(error) => panic!("{error}"),
            Ok(closed) => return self.closed(id, State::Settled(usage), charges.unwrap(), closed),
        }
        self.nothing_changed(before, "a refused settle");
    }

    /// Only where sums pass what can be counted may a settle be refused for it.
    fn is_absurd(&self, keys: &[MeterKey], charges: &[i128]) {
        // Of what came into a rate, a correction takes back no more than has not flown out.
        let all = |key: &MeterKey| match self.model.logs.get(key) {
            Some(log) => {
                let parts = log.items.iter().map(|item| item.held.max(item.charged).max(item.asked)).sum::<i128>();
                parts.max(log.used() + log.held())
            }
            None => 0,
        };
        let taken: i128 = keys.iter().map(all).sum();
        assert!(taken + charges.iter().sum::<i128>() > MOST, "an amount that can be counted is charged");
    }

    fn closed(&mut self, id: ReservationId, state: State, charges: Vec<i128>, closed: Closed) {
        let told: Vec<i128> = closed.reservation.parts.iter().map(|part| number(part.charged)).collect();
        assert_eq!((told, closed.reservation.state), (charges.clone(), state));
        self.model.end(id, state, charges, self.now);
        self.look_at(id);
        if self.tape.chance(20) {
            let before = self.before();
            let again = match state {
                State::Settled(usage) => self.ledger.settle(id, usage, ms(self.now)),
                State::UsageUnknown => self.ledger.settle_unknown(id, &[], ms(self.now)),
                _ => self.ledger.release(id, ms(self.now)),
            };
            assert_eq!(again.unwrap(), closed, "idempotence");
            self.nothing_changed(before, "the same again: idempotence");
        }
    }

    /// Compares every meter of a reservation, as its limit is now or was last.
    fn look_at(&self, id: ReservationId) {
        let Some(made) = self.model.made.get(&id) else { return };
        for (key, ..) in &made.parts {
            let Some(log) = self.model.logs.get(key) else { continue };
            let charge =
                Charge { limit: log.limit.clone().into(), subject: key.subject.clone(), amount: Default::default() };
            self.compare(std::slice::from_ref(&charge), &self.ledger.standings([&charge], ms(self.now)));
            over_cap_only_by_overrun(log);
        }
    }

    fn release(&mut self) {
        let Some(id) = self.some_id() else { return };
        let before = self.before();
        let result = self.ledger.release(id, ms(self.now));
        match self.model.known(id).map(|made| (made.state, made.parts.len())) {
            None => assert_eq!(result, Err(LedgerError::Unknown)),
            Some((state @ (State::Settled(_) | State::UsageUnknown), _)) => {
                assert_eq!(result, Err(LedgerError::Closed(state)))
            }
            Some((State::Released, _)) => assert_eq!(result.unwrap().reservation.state, State::Released),
            Some((_, parts)) => return self.closed(id, State::Released, vec![0; parts], result.unwrap()),
        }
        self.nothing_changed(before, "released again: idempotence");
    }

    fn extend(&mut self) {
        let Some(id) = self.some_id() else { return };
        let ttl = *self.tape.pick(&[-5, 0, 1000, 600_000, 3_600_000, 200_000_000]);
        let before = self.before();
        let result = self.ledger.extend(id, ttl, ms(self.now));
        match self.model.made.get_mut(&id).filter(|made| made.known) {
            None => assert_eq!(result, Err(LedgerError::Unknown)),
            Some(made) if made.state == State::Open => {
                made.due = made.due.max(self.now + ttl);
                assert_eq!(result, Ok(ms(made.due)));
            }
            Some(made) => assert_eq!(result, Err(LedgerError::Closed(made.state))),
        }
        self.nothing_changed(before, "to live longer");
    }

    fn expire(&mut self) {
        let most = *self.tape.pick(&[1, 2, 1000]);
        let due: Vec<ReservationId> = self.model.due(self.now).into_iter().take(most).collect();
        assert_eq!(self.ledger.expire(ms(self.now), most), due.len(), "what is due expires, once");
        due.iter().for_each(|id| self.model.expire(*id, self.now));
        for id in due {
            let (ours, theirs) = (self.model.made.get(&id), self.ledger.reservation(id));
            assert_eq!(ours.map(|made| made.state), theirs.map(|reservation| reservation.state));
            self.look_at(id);
        }
        if most == 1000 {
            let before = self.before();
            assert_eq!(self.ledger.expire(ms(self.now), most), 0, "expiry frees once");
            self.nothing_changed(before, "to expire again");
        }
        let next = self.model.made.values().filter(|made| made.known).map(|made| made.due).min();
        assert_eq!(self.ledger.next_due().map(Timestamp::as_millis), next, "nothing else is due");
    }

    fn tick(&mut self) {
        let step = match self.tape.below(100) {
            0..35 => self.tape.below(20),
            35..60 => self.tape.below(5_000),
            60..70 => self.tape.below(1_200_000),
            70..78 => self.tape.below(20_000_000),
            78..82 => self.tape.below(300_000_000),
            82..83 => self.tape.below(40_000_000_000),
            83..93 => return self.go_to_an_edge(),
            93..97 => return self.back(5_000),
            97..99 => return self.back(8_000_000),
            _ => return self.back(400_000_000),
        };
        self.now += step as i64;
    }

    fn back(&mut self, reach: usize) {
        self.now = self.floor.max(self.now - self.tape.below(reach) as i64);
    }

    /// To when something resets or expires, or a millisecond beside that.
    fn go_to_an_edge(&mut self) {
        let charges = self.world.charges(&mut self.tape);
        let standings = self.ledger.standings(&charges, ms(self.now));
        let mut edges: Vec<i64> = standings.iter().filter_map(|at| at.resets_at).map(Timestamp::as_millis).collect();
        edges.extend(self.ledger.next_due().map(Timestamp::as_millis));
        edges.retain(|edge| *edge > self.now && *edge < self.now + 100_000_000_000);
        if !edges.is_empty() {
            self.now = self.now.max(*self.tape.pick(&edges) + self.tape.below(3) as i64 - 1);
        }
    }

    /// Takes what changed to the store, which then has what the ledger has.
    fn write(&mut self) {
        let changes = self.ledger.take_changes();
        let Store { meters, reservations, spent } = &mut self.store;
        meters.extend(changes.meters);
        changes.blank.iter().for_each(|key| drop(meters.remove(key)));
        reservations.extend(changes.reservations.iter().map(|reservation| (reservation.id, (**reservation).clone())));
        changes.forgotten.iter().for_each(|id| drop(reservations.remove(id)));
        for (limit, _, after, before) in changes.entries.iter().flat_map(|entry| &entry.limits) {
            *spent.entry(limit.to_string()).or_default() += number(*after) - number(*before);
        }
        assert!(self.ledger.take_changes().is_empty(), "changes are told once");
    }

    fn sync(&mut self) {
        self.write();
        assert_eq!(self.store.meters, self.meters(), "a store has every meter as it is");
        let known: BTreeMap<_, _> = self.ledger.reservations().map(|found| (found.id, found.clone())).collect();
        let mut stored = self.store.reservations.clone();
        self.parked.iter().for_each(|parked| drop(stored.remove(&parked.id)));
        assert_eq!(stored, known, "a store has every reservation as it is");
        if self.tape.chance(40) {
            let mut anew = Ledger::with_most_open(MOST_OPEN);
            self.store.meters.iter().for_each(|(key, meter)| anew.restore(key.clone(), meter.clone()));
            // In the order in which they were made, so that of two with one key the later has it.
            let mut known: Vec<_> = known.into_values().collect();
            known.sort_by_key(|found| found.id.to_bytes()[6..].to_vec());
            known.into_iter().for_each(|reservation| anew.recall(reservation));
            assert_eq!((anew.next_due(), anew.open_count()), (self.ledger.next_due(), self.ledger.open_count()));
            self.ledger = anew;
        }
    }

    /// The store keeps what is closed, and the ledger lets it go.
    fn park(&mut self) {
        let Some(id) = self.some_id() else { return };
        let Some(made) = self.model.made.get_mut(&id).filter(|made| made.known && made.state != State::Open) else {
            return;
        };
        made.known = false;
        self.write();
        self.parked.push(self.ledger.forget(id).expect("it is known"));
        assert_eq!(self.ledger.forget(id), None);
    }

    fn recall(&mut self) {
        if !self.parked.is_empty() {
            let parked = self.parked.swap_remove(self.tape.below(self.parked.len()));
            self.model.made.get_mut(&parked.id).expect("it was made").known = true;
            self.ledger.recall(parked);
        }
    }

    /// A check changes nothing, ever.
    fn check(&mut self) {
        let charges = self.world.charges(&mut self.tape);
        self.write();
        let before = self.before();
        let short = self.ledger.shortfalls(&charges, ms(self.now));
        let short: Vec<usize> = short.iter().map(|short| short.charge).collect();
        assert_eq!(short, self.model.shortfalls(&charges, self.now));
        self.compare(&charges, &self.ledger.standings(&charges, ms(self.now)));
        charges.iter().for_each(|charge| resets_at_the_edge(&self.ledger, charge, self.now));
        assert!(self.ledger.take_changes().is_empty());
        self.nothing_changed(before, "a check");
    }

    fn sweep(&mut self) {
        // The ledger knows a meter for a day after it was touched; calls that are open for longer are the caller's risk.
        let long_open =
            |found: &Reservation| found.state == State::Open && self.now - found.created_at.as_millis() >= MEMORY_MS;
        if self.ledger.reservations().any(long_open) {
            return;
        }
        for id in self.model.due(self.now) {
            self.ledger.expire(ms(self.now), 1);
            self.model.expire(id, self.now);
        }
        // What is closed for a day is over for its store too.
        for id in self.model.due_in_store(self.now) {
            self.parked.retain(|parked| parked.id != id);
            self.store.reservations.remove(&id);
        }
        self.write();
        let before = self.meters();
        let standings = |ledger: &Ledger, model: &Model| {
            let charge = |key: &MeterKey| {
                let limit = model.logs[key].limit.clone().into();
                Charge { limit, subject: key.subject.clone(), amount: Default::default() }
            };
            let charges: Vec<Charge> = before.keys().map(charge).collect();
            ledger.standings(&charges, ms(self.now))
        };
        let stood = standings(&self.ledger, &self.model);
        let forgotten = self.ledger.sweep(ms(self.now), usize::MAX);
        assert_eq!(standings(&self.ledger, &self.model), stood, "to forget a blank meter changes nothing");
        let left = self.meters();
        assert_eq!(left.len() + forgotten, before.len());
        self.model.logs.retain(|key, _| left.contains_key(key));
        self.floor = self.floor.max(self.now - MEMORY_MS + 3_600_000);
    }

    fn answer(&mut self) {
        let Some(id) = self.some_id() else { return };
        let was_left = self.ledger.reservation(id).is_some_and(Reservation::leaves_its_key);
        assert_eq!(self.ledger.answered(id, b"answer".as_slice().into()), !was_left);
        let idempotency = self.ledger.reservation(id).and_then(|found| found.idempotency.as_ref());
        assert!(was_left || idempotency.is_none_or(|idempotency| idempotency.answer.as_deref() == Some(b"answer")));
    }

    /// At the end a store has all of it.
    pub fn finish(mut self) {
        self.sync();
    }
}

fn of(alert: &Alert, charge: &Charge) -> bool {
    alert.limit == charge.limit.id && alert.subject == charge.subject
}
