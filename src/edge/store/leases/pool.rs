//! What a node has leased of one meter: how much, what of it is spent, and which leases go back. Pure.
//!
//! Leases are a pool: it does not matter from which of them a request was served, so that one may go back as soon as
//! the others cover what is open. What makes it safe is one line: what the store holds or charged for the pool is never
//! less than what was spent and is open here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use smol_str::SmolStr;

use crate::gate::StoreError;
use crate::meter::{
    Budget, Charge, Ledger, Limit, Measure, Meter, MeterKey, OnExpiry, ReservationId, Shortfall, Standing,
};
use crate::model::{Amount, Every, Period, Timestamp, Unit};

/// A share of a meter that the store holds for this node.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    /// The reservation that holds it.
    pub(super) id: ReservationId,
    pub(super) amount: Amount,
    /// Until when requests are served from it.
    pub(super) ends: Timestamp,
    /// When the store is asked to hold it for longer, if it is still needed then.
    pub(super) extend_at: Timestamp,
}

/// A lease that goes back, charged with what was spent.
#[derive(Debug, Clone)]
pub(super) struct Return {
    pub(super) id: ReservationId,
    pub(super) unit: Unit,
    pub(super) charged: Amount,
    /// Of one of which nobody knows whether the store has it: when it was asked for.
    pub(super) unsure_since: Option<Timestamp>,
}

/// How the last draw ended, for those who waited for it.
#[derive(Debug, Clone)]
pub(super) enum Drawn {
    Lease,
    Failed(StoreError),
    /// There was no room for so much.
    Refused(Amount, Shortfall),
}

/// Which leases go back, of those that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that are over.
    Over,
    /// Those, those that are spent, and what is free beyond the size of one.
    Due,
    /// All of them.
    All,
}

/// What the ledger of the node says of a pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    used: Amount,
    open: Amount,
}

/// The leases of one meter, in its current period.
pub(super) struct Pool {
    /// The limit as it was last seen.
    limit: Arc<Limit>,
    subject: Option<SmolStr>,
    /// The limit as the ledger of the node counts by: whatever comes, without a period.
    local: Arc<Limit>,
    /// Of a budget with a calendar period: its period, which begins and ends as that of any meter.
    clock: Option<Meter>,
    /// Whether what is held counts as used, as a rate's requests do: it flows back from when it was drawn.
    certain: bool,
    leases: VecDeque<Lease>,
    /// What was charged for leases that went back.
    told: Amount,
    /// Whether what the store was charged flows out of its meter by itself, as in a rolling window.
    flows: bool,
    /// What was given back here and is nobody's: of a certain rate all of it, of another meter that flows what the store had
    /// been charged for. There it flows out while it would be kept here, and be let through beside what came instead.
    lost: Amount,
    /// Where the meter stood when the store was last asked.
    pub(super) standing: Option<Standing>,
    pub(super) touched: Timestamp,
    pub(super) drawing: bool,
    pub(super) drawn: (u64, Drawn),
    pub(super) waiting: Vec<Waker>,
}

impl Pool {
    pub(super) fn new(charge: &Charge, now: Timestamp) -> Self {
        let limit = Arc::clone(&charge.limit);
        let is_calendar = matches!(limit.measure, Measure::Budget { period: Period::Calendar { .. }, .. });
        let clock = is_calendar.then(|| Meter::new(&limit, now));
        Self {
            local: Arc::new(local(&limit, clock.as_ref())),
            certain: matches!(limit.measure, Measure::Rate { unit: Unit::Requests, .. }),
            flows: matches!(limit.measure, Measure::Rate { .. } | Measure::Budget { period: Period::Rolling(_), .. }),
            subject: charge.subject.clone(),
            limit,
            clock,
            leases: VecDeque::new(),
            told: Amount::ZERO,
            lost: Amount::ZERO,
            standing: None,
            touched: now,
            drawing: false,
            drawn: (0, Drawn::Lease),
            waiting: Vec::new(),
        }
    }

    /// Counts by `limit` from now on.
    pub(super) fn adopt(&mut self, limit: &Arc<Limit>) {
        if !Arc::ptr_eq(&self.limit, limit) {
            self.local = Arc::new(local(limit, self.clock.as_ref()));
            self.limit = Arc::clone(limit);
        }
    }

    /// What its meter is called in the ledger of the node.
    pub(super) fn key(&self) -> MeterKey {
        MeterKey { series: Arc::clone(&self.local.series), subject: self.subject.clone() }
    }

    /// So much of it, as the ledger of the node holds it.
    pub(super) fn here(&self, amount: Amount) -> Charge {
        Charge { limit: Arc::clone(&self.local), subject: self.subject.clone(), amount }
    }

    /// So much of it, as the store is to hold it for the node: charged if the node never tells, whatever the limit says
    /// of calls, since nobody knows what was spent.
    pub(super) fn of_the_store(&self, amount: Amount) -> Charge {
        let limit = if self.limit.on_expiry == OnExpiry::Charge {
            Arc::clone(&self.limit)
        } else {
            Arc::new(Limit { on_expiry: OnExpiry::Charge, ..(*self.limit).clone() })
        };
        Charge { limit, subject: self.subject.clone(), amount }
    }

    pub(super) fn limit_id(&self) -> &SmolStr {
        &self.limit.id
    }

    /// What of it is spent.
    pub(super) fn spent(&self, ledger: &Ledger) -> Spent {
        let (used, held) = match ledger.peek(&self.key()) {
            Some(Meter::Budget(Budget { used, held, .. })) => (*used, *held),
            _ => (Amount::ZERO, Amount::ZERO),
        };
        if self.certain {
            return Spent { used: sum([used, held, self.lost]), open: Amount::ZERO };
        }
        Spent { used: sum([used, self.lost]), open: held }
    }

    /// Notes what is lost of what a call gave back that was closed, where so much was spent `before`.
    pub(super) fn keep_lost(&mut self, before: Spent, ledger: &Ledger) {
        let used = self.spent(ledger).used;
        if self.certain {
            self.lost = sum([self.lost, before.used.less(used)]);
        } else if self.flows {
            self.lost = sum([self.lost, self.told.less(used)]);
        }
    }

    /// What is leased and was not yet charged.
    fn leased(&self) -> Amount {
        sum(self.leases.iter().map(|lease| lease.amount))
    }

    /// What is leased and neither spent nor open.
    pub(super) fn free(&self, spent: Spent) -> Amount {
        sum([self.told, self.leased()]).less(spent.used).less(spent.open)
    }

    /// What was spent, by calls that used more than they held, and is neither leased nor charged.
    pub(super) fn owed(&self, spent: Spent) -> Amount {
        sum([spent.used, spent.open]).less(self.told).less(self.leased())
    }

    /// What requests can be served from.
    pub(super) fn spendable(&self, spent: Spent, now: Timestamp) -> Amount {
        let lasting = self.leases.iter().filter(|lease| now < lease.ends).map(|lease| lease.amount);
        self.free(spent).min(sum(lasting))
    }

    /// How much to draw where `need` is lacking: less and less of what remains, so that the last of it is not stranded.
    pub(super) fn draw(&self, need: Amount) -> Amount {
        let size = self.limit.lease.map_or(Amount::ZERO, |lease| lease.size);
        let part = |standing: Standing| Amount::new(standing.remaining().get() / 4).unwrap_or_default();
        need.max(self.standing.map_or(size, |standing| size.min(part(standing))))
    }

    pub(super) fn lasts_ms(&self) -> i64 {
        self.limit.lease.map_or(1000, |lease| lease.lasts_ms)
    }

    pub(super) fn add(&mut self, lease: Lease) {
        self.leases.push_back(lease);
    }

    /// What was spent is charged now, by a record or a lease that is closed.
    pub(super) fn charge(&mut self, amount: Amount) {
        self.told = sum([self.told, amount]);
    }

    /// Leases that go back. One can as long as the others cover what is open.
    pub(super) fn turn(&mut self, spent: Spent, which: Which, now: Timestamp) -> Vec<Return> {
        let size = self.limit.lease.map_or(Amount::ZERO, |lease| lease.size);
        let mut returns = Vec::new();
        let mut place = 0;
        while let Some(lease) = self.leases.get(place) {
            let (amount, id) = (lease.amount, lease.id);
            let charged = spent.used.less(self.told).min(amount);
            let free = self.free(spent);
            let due = match which {
                Which::Over => lease.ends <= now,
                Which::Due => lease.ends <= now || free > size || charged == amount,
                Which::All => true,
            };
            if due && amount.less(charged) <= free {
                self.leases.remove(place);
                self.charge(charged);
                returns.push(self.returned(id, charged));
            } else {
                place += 1;
            }
        }
        returns
    }

    /// All leases, when their period is over or the node stops: what is open is charged as held.
    pub(super) fn finish(&mut self, spent: Spent) -> Vec<Return> {
        let mut left = sum([spent.used, spent.open]).less(self.told);
        let leases = std::mem::take(&mut self.leases);
        let returns = leases.into_iter().map(|lease| {
            let charged = left.min(lease.amount);
            left = left.less(charged);
            self.charge(charged);
            self.returned(lease.id, charged)
        });
        returns.collect()
    }

    fn returned(&self, id: ReservationId, charged: Amount) -> Return {
        Return { id, unit: self.limit.unit(), charged, unsure_since: None }
    }

    /// Begins the period that holds `now`, if another one does: the leases of the old one, and the name of its meter.
    pub(super) fn roll(&mut self, ledger: &Ledger, now: Timestamp) -> Option<(MeterKey, Vec<Return>)> {
        let clock = self.clock.as_mut()?;
        let before = began(clock);
        clock.advance(&self.limit, now);
        if began(clock) == before {
            return None;
        }
        let (key, spent) = (self.key(), self.spent(ledger));
        let returns = self.finish(spent);
        self.local = Arc::new(local(&self.limit, self.clock.as_ref()));
        (self.told, self.standing) = (Amount::ZERO, None);
        Some((key, returns))
    }

    /// Leases that are over and still needed, for what is open: the store is to hold them for longer.
    pub(super) fn extend(&mut self, now: Timestamp) -> Vec<ReservationId> {
        let lasts_ms = self.lasts_ms();
        let mut extended = Vec::new();
        for lease in self.leases.iter_mut().filter(|lease| lease.extend_at <= now) {
            lease.extend_at = later(now, lasts_ms);
            extended.push(lease.id);
        }
        extended
    }

    /// Whether the time of a lease is over.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.leases.front().is_some_and(|lease| lease.ends <= now)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.leases.is_empty() && !self.drawing
    }
}

fn began(clock: &Meter) -> Option<Timestamp> {
    if let Meter::Budget(budget) = clock { Some(budget.window.start) } else { None }
}

/// The limit as the ledger of the node counts by. Of each period it has another meter.
fn local(limit: &Limit, clock: Option<&Meter>) -> Limit {
    let start = clock.and_then(began).map_or_else(String::new, |start| start.as_millis().to_string());
    let series = format!("{}@{start}", limit.series).into();
    let period = Period::Calendar { every: Every::Total, zone: jiff::tz::TimeZone::UTC };
    Limit {
        series,
        measure: Measure::Budget { unit: limit.unit(), period, carry_over_percent: 0 },
        // INVARIANT: whoever holds looks first at what is leased.
        cap: Amount::MAX,
        overrides: Box::default(),
        warn_at: Box::default(),
        ..limit.clone()
    }
}

/// The name of a meter by what its pool is called in the ledger of the node.
pub(super) fn meter(key: &MeterKey) -> MeterKey {
    let series = key.series.rsplit_once('@').map_or(&*key.series, |(series, _)| series);
    MeterKey { series: series.into(), subject: key.subject.clone() }
}

pub(super) fn later(now: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_add(millis))
}

fn sum(amounts: impl IntoIterator<Item = Amount>) -> Amount {
    amounts.into_iter().try_fold(Amount::ZERO, Amount::plus).unwrap_or(Amount::MAX)
}
