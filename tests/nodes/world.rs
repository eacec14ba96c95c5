//! Nodes as they are shipped (allowances before leases before the store), clients that hold and settle, and what befalls
//! them; then what was promised.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tollgate::edge::store::background::Background;
use tollgate::edge::store::{Fallback, Leases, Work};
use tollgate::gate::{CloseError, HoldError, Later, Meters};
use tollgate::meter::{
    Charge, Closed, Durability, Hold, Lease, LedgerError, Limit, Measure, Mode, OnExpiry, OnMissingUsage, OnStoreError,
    ReservationId, Spending, Standing, State, Unpriced, Usage,
};
use tollgate::model::{Amount, Every, Period, Timestamp, Unit};

use crate::kernel::{Kernel, OUTSIDE, Slot};
use crate::network::{Faults, Link, Mutant, Network, Store, TIMEOUT_MS};

/// 2026-03-10T11:59:53Z: an hour ends soon.
pub const BEGIN: i64 = 1_773_143_993_000;
const HOUR_MS: i64 = 3_600_000;
/// For how long things go wrong, and for how long then nothing does.
const TROUBLE_MS: i64 = 16_000;
const QUIET_MS: i64 = 40_000;
const ROLLING_MS: i64 = 9_000;

/// Which limit is which.
const EVER: usize = 0;
const HOUR: usize = 1;
const REQUESTS: usize = 2;
const PLAIN: usize = 3;
const ROLLING: usize = 4;
const PLACES: usize = 5;
/// Which limits a request is bound by.
const BOUND: [&[usize]; 9] = [
    &[EVER],
    &[EVER],
    &[EVER, HOUR],
    &[REQUESTS],
    &[REQUESTS, HOUR],
    &[EVER, PLAIN],
    &[ROLLING],
    &[ROLLING, EVER, REQUESTS],
    &[HOUR, PLACES],
];

pub struct World {
    kernel: Kernel,
    network: Arc<Network>,
    nodes: Vec<Node>,
    limits: Vec<Arc<Limit>>,
    calls: Mutex<Vec<Call>>,
    /// By key, how often a request was permitted.
    keyed: Mutex<BTreeMap<u64, usize>>,
    /// What was asked of nodes that crashed before they answered, so that it may have been held: by limit.
    unheard: Mutex<[u64; 6]>,
    next: AtomicU64,
    most_amount: i64,
    most_skew_ms: i64,
}

struct Node {
    meters: Mutex<Option<(u64, Arc<Fallback>)>>,
    skew_ms: AtomicI64,
    /// How often it began.
    begun: AtomicU64,
}

/// What a client was told that it may.
#[derive(Debug, Clone)]
struct Call {
    id: ReservationId,
    at: i64,
    /// When it was asked for: from then on it lives, however late its answer comes.
    asked: i64,
    limits: &'static [usize],
    held: u64,
    /// What it used, whether it could tell or not.
    used: u64,
    /// What it was told that it was charged.
    charged: Option<u64>,
    /// When it was over.
    ended: Option<i64>,
    /// Whether it may have expired before it told: then its lease may have been told of all that it held.
    late: bool,
    /// Whether it was given back.
    released: bool,
}

impl Call {
    /// What the store will have been told that it used.
    fn told(&self) -> Option<u64> {
        self.charged.filter(|_| !self.late)
    }
}

fn amount(number: u64) -> Amount {
    Amount::new(number).unwrap()
}

impl World {
    pub fn new(seed: u64, mutant: Mutant) -> Arc<Self> {
        let kernel = Kernel::new(seed, BEGIN);
        let nodes = 1 + kernel.below(4);
        let calm = kernel.chance(15);
        let faults = Faults {
            most_delay_ms: [3, 20, 150, 400][kernel.below(4)],
            lost_percent: if calm { 0 } else { [0, 3, 15][kernel.below(3)] },
            doubled_percent: if calm { 0 } else { [0, 5, 25][kernel.below(3)] },
        };
        let most_skew_ms = if calm { 0 } else { [0, 0, 200, 1000][kernel.below(4)] };
        let most_amount = [1, 3, 20][kernel.below(3)];
        let skew = |_| AtomicI64::new(kernel.between(-most_skew_ms, most_skew_ms));
        let node = |number| Node { meters: Mutex::default(), skew_ms: skew(number), begun: AtomicU64::new(0) };
        let nodes: Vec<Node> = (0..nodes).map(node).collect();
        let cut = nodes.iter().map(|_| AtomicI64::new(0)).collect();
        let store = Arc::new(Store::new(&kernel, mutant));
        let network = Arc::new(Network { kernel: kernel.clone(), store, faults: Mutex::new(faults), cut });
        let limits = limits(&kernel, most_amount);
        let world = Arc::new(Self {
            kernel,
            network,
            nodes,
            limits,
            calls: Mutex::default(),
            keyed: Mutex::default(),
            unheard: Mutex::default(),
            next: AtomicU64::new(1),
            most_amount,
            most_skew_ms,
        });
        (0..world.nodes.len()).for_each(|node| world.begin(node));
        if !calm {
            world.befall(mutant);
        } else if faults.most_delay_ms <= 20 && mutant == Mutant::None {
            world.kernel.spawn(OUTSIDE, Box::pin(Arc::clone(&world).watch()));
        }
        let clients = 1 + world.kernel.below(6);
        for _ in 0..clients {
            world.kernel.spawn(OUTSIDE, Box::pin(Arc::clone(&world).client()));
        }
        world
    }

    fn clock(&self, node: usize) -> Timestamp {
        Timestamp::from_millis(self.kernel.now() + self.nodes[node].skew_ms.load(Ordering::Relaxed))
    }

    /// Never the neighbour of another: the store charges what was let through without it under a name one bit away, which
    /// names by chance leave free.
    fn number(&self) -> u64 {
        2 * self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn begin(self: &Arc<Self>, node: usize) {
        let home = self.number();
        let kernel = self.kernel.clone();
        let background: Background = Arc::new(move |work: Work| kernel.spawn(home, work));
        let link = Arc::new(Link::new(&self.network, node, home));
        let names = AtomicU64::new(1);
        let name = move |now| {
            ReservationId::new(now, u128::from(home) << 40 | u128::from(names.fetch_add(1, Ordering::Relaxed)))
        };
        let leases = Arc::new(Leases::with(link, Box::new(name), Arc::clone(&background)));
        let meters = Arc::new(Fallback::with(leases, background));
        *self.nodes[node].meters.lock().unwrap() = Some((home, meters));
        self.nodes[node].begun.fetch_add(1, Ordering::Relaxed);
        self.kernel.spawn(home, Box::pin(Arc::clone(self).follow_time(node)));
    }

    async fn follow_time(self: Arc<Self>, node: usize) {
        loop {
            let quiet = self.kernel.now() > BEGIN + TROUBLE_MS + 10_000;
            self.kernel.sleep(if quiet { 1000 } else { 200 }).await;
            let meters = self.nodes[node].meters.lock().unwrap().clone();
            if let Some((_, meters)) = meters {
                meters.tick(self.clock(node));
            }
        }
    }

    /// Nodes that crash, are cut off, and whose clocks jump.
    fn befall(self: &Arc<Self>, mutant: Mutant) {
        let (kernel, often) = (&self.kernel, self.kernel.below(6));
        if mutant == Mutant::Forgets {
            let store = Arc::clone(&self.network.store);
            kernel.after(kernel.between(5_000, TROUBLE_MS / 2), move || store.forget());
        }
        for _ in 0..often {
            let (node, at) = (kernel.below(self.nodes.len()), kernel.between(0, TROUBLE_MS));
            let (world, what, long) = (Arc::clone(self), kernel.below(3), kernel.between(200, 5_000));
            kernel.after(at, move || match what {
                0 => world.crash(node, long),
                1 => world.network.cut[node].store(world.kernel.now() + long, Ordering::Relaxed),
                _ => {
                    let skew = world.kernel.between(-world.most_skew_ms, world.most_skew_ms);
                    world.nodes[node].skew_ms.store(skew, Ordering::Relaxed);
                }
            });
        }
    }

    fn crash(self: &Arc<Self>, node: usize, long: i64) {
        let Some((home, meters)) = self.nodes[node].meters.lock().unwrap().take() else { return };
        self.kernel.kill(home);
        drop(meters);
        let world = Arc::clone(self);
        self.kernel.after(long, move || world.begin(node));
    }

    /// Asks a node; `None` where it ends before it answers.
    async fn ask<T: Send + Unpin + 'static>(
        &self,
        node: usize,
        ask: impl FnOnce(&Fallback, Timestamp) -> Later<T>,
    ) -> Option<T> {
        let (home, meters) = self.nodes[node].meters.lock().unwrap().clone()?;
        let (slot, asking) = (Slot::default(), ask(&meters, self.clock(node)));
        let answer = Told(slot.clone(), None);
        self.kernel.spawn(
            home,
            Box::pin(async move {
                let mut answer = answer;
                answer.1 = Some(asking.await);
            }),
        );
        slot.await
    }

    /// Where nothing goes wrong: what the store has taken is what calls used and hold, two leases a node (a whole one, and one
    /// that is on its way), and what calls gave back so lately that the store need not know yet.
    async fn watch(self: Arc<Self>) {
        while self.kernel.now() < BEGIN + TROUBLE_MS {
            self.kernel.sleep(self.kernel.between(200, 900)).await;
            let size = self.limits[EVER].lease.map_or(0, |lease| lease.size.get()).max(self.most_amount as u64);
            let calls = self.calls();
            let of = calls.iter().filter(|call| call.limits.contains(&EVER));
            let known: u64 = of.map(|call| call.told().unwrap_or(call.held.max(call.used))).sum();
            let lately = |call: &&Call| call.ended.is_some_and(|end| self.kernel.now() < end + 2 * TIMEOUT_MS);
            let back: u64 =
                calls.iter().filter(lately).map(|call| call.held.saturating_sub(call.told().unwrap_or(0))).sum();
            let (taken, bound) = (self.standing(EVER).taken().get(), known + back + self.nodes.len() as u64 * 2 * size);
            assert!(taken <= bound, "stranded: {taken} are taken, and {known} are known to be");
        }
    }

    async fn client(self: Arc<Self>) {
        let until = BEGIN + TROUBLE_MS;
        while self.kernel.now() < until {
            self.kernel.sleep(self.kernel.between(1, 700)).await;
            let world = Arc::clone(&self);
            self.kernel.spawn(OUTSIDE, Box::pin(async move { world.call().await }));
        }
    }

    async fn call(self: Arc<Self>) {
        let kernel = &self.kernel;
        let (mut node, limits) = (kernel.below(self.nodes.len()), BOUND[kernel.below(BOUND.len())]);
        let held = kernel.between(1, self.most_amount) as u64;
        let key = kernel.chance(6).then(|| self.number());
        let ttl_ms = kernel.between(2_000, 7_000);
        let charge = |limit: &usize| Charge {
            limit: Arc::clone(&self.limits[*limit]),
            subject: None,
            amount: amount(held_of(*limit, held)),
        };
        let charges: Vec<Charge> = limits.iter().map(charge).collect();
        let spending = Spending {
            principal: "User::\"alice\"".parse().unwrap(),
            resource: "Model::\"a/m\"".parse().unwrap(),
            permitted: Box::default(),
            price: None,
            if_unknown: Box::default(),
        };
        let spending = Arc::new(spending);
        let mut tries = 1 + usize::from(key.is_some()) * 2;
        let (id, asked) = loop {
            let asked = kernel.now();
            let id = ReservationId::new(self.clock(node), u128::from(self.number()));
            let hold = Hold {
                id,
                spending: Arc::clone(&spending),
                charges: charges.clone(),
                ttl_ms,
                idempotency: key.map(|key| (format!("k{key}").into(), [7; 32])),
                most_open: None,
            };
            let done = self.ask(node, |meters, now| meters.hold(hold, now)).await;
            kernel.note(u64::from(matches!(done, Some(Ok(_)))));
            match done {
                Some(Ok(_)) => break (id, asked),
                Some(Err(HoldError::Refused(refused))) => {
                    assert!(!refused.shortfalls.is_empty(), "a refusal has its reason");
                    return;
                }
                Some(Err(HoldError::KeyTaken | HoldError::TooManyOpen)) => return,
                Some(Err(HoldError::Store(_))) => {}
                None => {
                    let mut unheard = self.unheard.lock().unwrap();
                    limits.iter().for_each(|limit| unheard[*limit] += held_of(*limit, held));
                }
            }
            tries -= 1;
            if tries == 0 {
                return;
            }
            node = kernel.below(self.nodes.len());
        };
        if let Some(key) = key {
            *self.keyed.lock().unwrap().entry(key).or_default() += 1;
        }
        let place = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Call {
                id,
                at: kernel.now(),
                asked,
                limits,
                held,
                used: 0,
                charged: None,
                ended: None,
                late: false,
                released: false,
            });
            calls.len() - 1
        };
        self.after_the_call(node, id, place, ttl_ms).await;
    }

    async fn after_the_call(&self, node: usize, id: ReservationId, place: usize, ttl_ms: i64) {
        let kernel = &self.kernel;
        let held = self.calls.lock().unwrap()[place].held;
        let long = kernel.between(0, if kernel.chance(10) { ttl_ms * 2 } else { ttl_ms / 3 });
        kernel.sleep(long).await;
        if kernel.chance(5) {
            self.ask(node, |meters, now| meters.extend(id, ttl_ms, now)).await;
        }
        let what = kernel.below(100);
        let used = match what {
            0..15 => held,
            15..80 => kernel.between(0, held as i64) as u64,
            80..90 => held + kernel.between(0, self.most_amount) as u64,
            _ => 0,
        };
        {
            let mut calls = self.calls.lock().unwrap();
            calls[place].used = used;
            calls[place].ended = Some(kernel.now());
            calls[place].released = (90..95).contains(&what);
        }
        let usage = Usage { requests: 1, input_tokens: used, ..Usage::default() };
        // It forgets, and has used nothing, or releases, or settles until somebody answers.
        if what >= 95 {
            return;
        }
        for _ in 0..6 {
            let done: Option<Result<Closed, CloseError>> = if what >= 90 {
                self.ask(node, |meters, now| meters.release(id, now)).await
            } else {
                self.ask(node, |meters, now| meters.settle(id, usage, now)).await
            };
            kernel.note(u64::from(matches!(done, Some(Ok(_)))) + 2);
            match done {
                Some(Ok(closed)) => {
                    {
                        let mut calls = self.calls.lock().unwrap();
                        let call = &mut calls[place];
                        call.late = call.asked + ttl_ms - 2 * self.most_skew_ms - 1_000 < kernel.now();
                        call.charged = Some(used);
                    }
                    self.again(node, id, usage, closed).await;
                    return;
                }
                Some(Err(CloseError::Store(_))) | None => kernel.sleep(kernel.between(100, 3_000)).await,
                // Its node ended, or it expired while the store was away and is charged.
                Some(Err(_)) => return,
            }
        }
    }

    /// The same again is answered as before and changes nothing; anything else is refused.
    async fn again(&self, node: usize, id: ReservationId, usage: Usage, closed: Closed) {
        if !self.kernel.chance(20) || closed.reservation.state == State::Released {
            return;
        }
        match self.ask(node, |meters, now| meters.settle(id, usage, now)).await {
            Some(Ok(again)) => assert_eq!(again.reservation.parts, closed.reservation.parts, "the same again"),
            Some(Err(CloseError::Ledger(LedgerError::Closed(state)))) => panic!("the same again, but {state:?}"),
            _ => {}
        }
        let other = Usage { input_tokens: usage.input_tokens + 1, ..usage };
        let done = self.ask(node, |meters, now| meters.settle(id, other, now)).await;
        assert!(!matches!(done, Some(Ok(_))), "it was settled twice, otherwise");
    }

    /// Runs to the end, and looks whether what is promised was kept.
    pub fn run(&self) {
        self.kernel.run(BEGIN + TROUBLE_MS);
        let calm = Faults { most_delay_ms: 5, lost_percent: 0, doubled_percent: 0 };
        *self.network.faults.lock().unwrap() = calm;
        self.network.cut.iter().for_each(|cut| cut.store(0, Ordering::Relaxed));
        self.kernel.run(BEGIN + TROUBLE_MS + QUIET_MS);
        self.never_over_a_budget();
        self.never_over_a_rate();
        self.never_too_many_at_a_time();
        self.a_key_names_one_call();
        self.all_is_told_and_free();
    }

    pub fn trace(&self) -> (u64, usize) {
        (self.kernel.trace(), self.calls.lock().unwrap().len())
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn begun(&self) -> u64 {
        self.nodes.iter().map(|node| node.begun.load(Ordering::Relaxed)).sum()
    }

    /// What each node may let through while the store is away, whenever it begins.
    fn allowances(&self, limit: usize) -> u64 {
        match self.limits[limit].on_store_error {
            OnStoreError::Forbid => 0,
            OnStoreError::Permit(allowance) => allowance.get() * self.begun(),
        }
    }

    /// What was permitted is never beyond the cap, but for what calls used beyond what they held, and for allowances.
    fn never_over_a_budget(&self) {
        let calls = self.calls();
        for limit in [EVER, HOUR, PLAIN] {
            let of: Vec<&Call> = calls.iter().filter(|call| call.limits.contains(&limit)).collect();
            let permitted: u64 = of.iter().map(|call| call.used.min(call.held)).sum();
            let (first, last) = (BEGIN - self.most_skew_ms, BEGIN + TROUBLE_MS + self.most_skew_ms + 1000);
            let periods = if limit == HOUR { last.div_euclid(HOUR_MS) - first.div_euclid(HOUR_MS) + 1 } else { 1 };
            let bound = (self.limits[limit].cap.get() + self.allowances(limit)) * periods as u64;
            assert!(permitted <= bound, "`{}`: {permitted} were permitted of {bound}", self.limits[limit].id);
        }
        // In any time that is shorter than the window by what clocks differ and answers take.
        let length = ROLLING_MS - 2 * self.most_skew_ms - 2_000;
        let of: Vec<&Call> = calls.iter().filter(|call| call.limits.contains(&ROLLING)).collect();
        for from in &of {
            let within = of.iter().filter(|call| from.at <= call.at && call.at < from.at + length);
            let permitted: u64 = within.map(|call| call.used.min(call.held)).sum();
            let bound = self.limits[ROLLING].cap.get() + self.allowances(ROLLING);
            if crate::network::tells() && permitted > bound {
                of.iter().for_each(|call| println!("rolling: {} {call:?}", call.id));
            }
            assert!(permitted <= bound, "rolling: {permitted} were permitted of {bound} from {}", from.at - BEGIN);
        }
    }

    /// Requests come as fast as the rate lets them, and what was leased comes later by as long as a lease lasts.
    fn never_over_a_rate(&self) {
        let limit = &self.limits[REQUESTS];
        let Measure::Rate { amount: flow, every_ms, .. } = limit.measure else { unreachable!() };
        let lasts_ms = limit.lease.map_or(0, |lease| lease.lasts_ms);
        // Clocks differ in how long a lease lasts, and in how much has flown back at the store; and a request is as of when it
        // was asked, however often it waited for an answer of the store since.
        let slack_ms = lasts_ms + 4 * self.most_skew_ms + 8 * TIMEOUT_MS;
        let scale = every_ms as i64;
        let burst = limit.cap.get() as i64 * scale + flow.get() as i64 * slack_ms;
        let (mut level, mut before) = (0, BEGIN);
        // What is released was no request.
        for call in self.calls().iter().filter(|call| call.limits.contains(&REQUESTS) && !call.released) {
            level = 0.max(level - flow.get() as i64 * (call.at - before)) + scale;
            before = call.at;
            assert!(level <= burst, "rate: {level} of {burst} at {}", call.at - BEGIN);
        }
    }

    fn never_too_many_at_a_time(&self) {
        let calls: Vec<Call> = self.calls().into_iter().filter(|call| call.limits.contains(&PLACES)).collect();
        // A reservation may expire early by what clocks differ.
        let lives = |call: &Call, at: i64| {
            let end = call.ended.unwrap_or(call.at).min(call.at + 2_000 - 2 * self.most_skew_ms - 500);
            call.at <= at && at < end
        };
        for at in calls.iter().map(|call| call.at) {
            let there = calls.iter().filter(|call| lives(call, at)).count() as u64;
            let most = self.limits[PLACES].cap.get();
            assert!(there <= most, "{there} of {most} at a time");
        }
    }

    fn a_key_names_one_call(&self) {
        let permits = self.limits.iter().any(|limit| limit.on_store_error != OnStoreError::Forbid);
        for (key, permitted) in self.keyed.lock().unwrap().iter() {
            assert!(permits || *permitted <= 1, "key {key} was permitted {permitted} times");
        }
    }

    fn standing(&self, limit: usize) -> Standing {
        let charge = Charge { limit: Arc::clone(&self.limits[limit]), subject: None, amount: Amount::ONE };
        let now = Timestamp::from_millis(self.kernel.now());
        self.network.store.with(|memory| memory.look(&[charge], now)).unwrap()[0].standing
    }

    /// In the end nothing is held, the store was charged what calls were, and what remains is there for anybody.
    fn all_is_told_and_free(&self) {
        let calls = self.calls();
        let crashes = self.begun() - self.nodes.len() as u64;
        for limit in [EVER, PLAIN] {
            let standing = self.standing(limit);
            let name = &self.limits[limit].id;
            let of = || calls.iter().filter(|call| call.limits.contains(&limit));
            let certain: u64 = of().filter_map(|call| call.charged).sum();
            let most: u64 = of().map(|call| call.told().unwrap_or(call.held.max(call.used))).sum();
            let used = standing.used.get();
            if crate::network::tells() {
                of().for_each(|call| println!("{name}: {} {call:?}", call.id));
                self.network.store.tell_reservations(name, Timestamp::from_millis(self.kernel.now()));
            }
            assert_eq!(standing.held.get(), 0, "`{name}`: something is held for ever: {standing:?}");
            if crashes == 0 {
                assert!(certain <= used, "`{name}`: {used} were charged of {certain}");
            }
            let lease = self.limits[limit].lease.map_or(0, |lease| lease.size.get().max(self.most_amount as u64));
            let untold = self.network.store.unheard(name, Timestamp::from_millis(self.kernel.now()));
            let stranded = crashes * 3 * lease + self.unheard.lock().unwrap()[limit] + untold;
            assert!(used <= most + stranded, "`{name}`: {used} were charged of {most} and {stranded} stranded");
        }
        self.what_remains_is_anybodys();
    }

    fn what_remains_is_anybodys(&self) {
        let remaining = self.standing(EVER).remaining();
        let hold = |amount| Hold {
            id: ReservationId::new(self.clock(0), u128::from(self.number())),
            spending: Arc::new(Spending {
                principal: "User::\"alice\"".parse().unwrap(),
                resource: "Model::\"a/m\"".parse().unwrap(),
                permitted: Box::default(),
                price: None,
                if_unknown: Box::default(),
            }),
            charges: vec![Charge { limit: Arc::clone(&self.limits[EVER]), subject: None, amount }],
            ttl_ms: 4_000,
            idempotency: None,
            most_open: None,
        };
        let node = self.kernel.below(self.nodes.len());
        // Where nothing remains, a hold of nothing is refused as well, like a check.
        for (amount, fits) in [(remaining.plus(Amount::ONE).unwrap(), false), (remaining, !remaining.is_zero())] {
            let (meters, now) = (self.nodes[node].meters.lock().unwrap().clone().unwrap().1, self.clock(node));
            let (told, asking) = (Slot::default(), meters.hold(hold(amount), now));
            let answer = told.clone();
            self.kernel.spawn(OUTSIDE, Box::pin(async move { answer.fill(asking.await.is_ok()) }));
            self.kernel.run(self.kernel.now() + 5_000);
            assert_eq!(pollster::block_on(told), fits, "{amount:?} of {remaining:?} for whoever asks");
        }
    }
}

/// Tells what there is when it ends: nothing where its node ended.
struct Told<T: Send + 'static>(Slot<Option<T>>, Option<T>);

impl<T: Send + 'static> Drop for Told<T> {
    fn drop(&mut self) {
        self.0.fill(self.1.take());
    }
}

/// What a call holds on a limit.
fn held_of(limit: usize, held: u64) -> u64 {
    if matches!(limit, REQUESTS | PLACES) { 1 } else { held }
}

fn limits(kernel: &Kernel, most_amount: i64) -> Vec<Arc<Limit>> {
    let calendar = |every| Measure::Budget {
        unit: Unit::Tokens,
        period: Period::Calendar { every, zone: jiff::tz::TimeZone::UTC },
        carry_over_percent: 0,
    };
    let rolling = Measure::Budget { unit: Unit::Tokens, period: Period::Rolling(ROLLING_MS), carry_over_percent: 0 };
    let rate = Measure::Rate {
        unit: Unit::Requests,
        amount: amount(kernel.between(1, 40) as u64),
        every_ms: kernel.between(1, 10) as u64 * 1000,
    };
    let measures =
        [calendar(Every::Total), calendar(Every::Hour), rate, calendar(Every::Total), rolling, Measure::Concurrency];
    let names = ["ever", "hour", "requests", "plain", "rolling", "places"];
    let scale = most_amount as u64;
    let permits = kernel.chance(30);
    let limits = measures.into_iter().zip(names).enumerate().map(|(number, (measure, name))| {
        let counts_tokens = measure.unit() == Unit::Tokens;
        let cap = if counts_tokens { scale * kernel.between(2, 25) as u64 } else { kernel.between(1, 20) as u64 };
        let size = kernel.between(1, (cap / 2).max(1) as i64) as u64;
        let lease = Lease { size: amount(size), lasts_ms: kernel.between(1, 4) * 1000 };
        let permit = OnStoreError::Permit(amount(1 + kernel.below(cap as usize) as u64 / 2));
        Arc::new(Limit {
            id: name.into(),
            series: format!("{name}:of a test").into(),
            measure,
            cap: amount(cap),
            overrides: Box::default(),
            warn_at: Box::new([50]),
            mode: Mode::Enforce,
            on_expiry: OnExpiry::Charge,
            on_store_error: if permits && counts_tokens { permit } else { OnStoreError::Forbid },
            durability: Durability::Sync,
            unpriced: Unpriced::Forbid,
            on_missing_usage: OnMissingUsage::ChargeHold,
            lease: (!matches!(number, PLAIN | PLACES)).then_some(lease),
        })
    });
    limits.collect()
}
