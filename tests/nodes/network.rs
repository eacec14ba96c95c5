//! One store, and the way of each node to it: messages that are late, lost, doubled or out of order, and nodes that are cut
//! off. The store is the real one, in memory; mutants of it show that the bounds can fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use smol_str::SmolStr;
use tollgate::edge::store::Memory;
use tollgate::gate::{CloseError, HoldError, Later, Look, Meters, StoreError};
use tollgate::meter::{
    Alert, Charge, Closed, Held, Hold, Limit, MeterKey, Mode, OnExpiry, Reservation, ReservationId, Standing, State,
    Usage,
};
use tollgate::model::{Amount, Timestamp};

use crate::kernel::{Home, Kernel, Slot};
use crate::world::BEGIN;

/// `NODES_TELL=1` tells each message that comes to the store, and the answer.
static TELLS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("NODES_TELL").is_some());

/// For how long a node waits for an answer.
pub const TIMEOUT_MS: i64 = 500;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// It comes back empty, and nobody notices.
    Forgets,
    /// It looks at a meter now and charges it later.
    ChecksThenCharges,
    /// The lease of a node that crashed is free again.
    FreesLeases,
}

/// What a hold took of each meter, and whether it is told.
type Made = (Vec<(SmolStr, u64)>, bool);

pub struct Store {
    memory: Mutex<Memory>,
    mutant: Mutant,
    seen: Mutex<BTreeMap<MeterKey, (i64, Standing)>>,
    /// What was held, by limit, and whether the node that asked was told so.
    made: Mutex<BTreeMap<ReservationId, Made>>,
    kernel: Kernel,
}

impl Store {
    pub fn new(kernel: &Kernel, mutant: Mutant) -> Self {
        let (memory, seen, made) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { memory, mutant, seen, made, kernel: kernel.clone() }
    }

    pub fn forget(&self) {
        *self.memory.lock().unwrap() = Memory::default();
    }

    pub fn with<T: Unpin>(&self, work: impl FnOnce(&Memory) -> Later<T>) -> T {
        pollster::block_on(work(&self.memory.lock().unwrap()))
    }

    fn hold(&self, mut hold: Hold, now: Timestamp) -> Result<Held, HoldError> {
        let is_lease = hold.spending.principal.kind() == "Lease";
        for charge in &mut hold.charges {
            if self.mutant == Mutant::FreesLeases && is_lease {
                charge.limit = Arc::new(Limit { on_expiry: OnExpiry::Release, ..(*charge.limit).clone() });
            }
            if self.mutant == Mutant::ChecksThenCharges && self.stale(charge, now).remaining() >= charge.amount {
                charge.limit = Arc::new(Limit { mode: Mode::Warn, ..(*charge.limit).clone() });
            }
        }
        let done = self.with(|memory| memory.hold(hold.clone(), now));
        if done.is_ok() {
            let amounts = hold.charges.iter().map(|one| (one.limit.id.clone(), one.amount.get())).collect();
            self.made.lock().unwrap().entry(hold.id).or_insert((amounts, false));
        }
        if self.mutant == Mutant::None
            && let Ok(held) = &done
        {
            for (charge, standing) in hold.charges.iter().zip(&held.standings) {
                let id = &charge.limit.id;
                assert!(standing.taken() <= standing.cap, "`{id}` was held over its cap: {standing:?}");
            }
        }
        done
    }

    /// Notes that a node was told of what it holds.
    fn heard(&self, id: ReservationId) {
        if let Some((_, heard)) = self.made.lock().unwrap().get_mut(&id) {
            *heard = true;
        }
    }

    /// What was held on a limit, though nobody was told, until it expired: a message came twice, or too late to be taken
    /// back, or who was to take it back crashed.
    pub fn unheard(&self, limit: &str, now: Timestamp) -> u64 {
        let made = self.made.lock().unwrap();
        let unheard = made.iter().filter(|(id, (_, heard))| {
            let found = || self.with(|memory| memory.reservation(**id, now)).unwrap();
            !heard && found().is_some_and(|found| found.state == State::Expired)
        });
        let amounts = unheard.flat_map(|(_, (amounts, _))| amounts);
        amounts.filter(|(id, _)| id == limit).map(|(_, amount)| amount).sum()
    }

    /// For who looks into a seed: what became of every reservation of a limit that the store made.
    pub fn tell_reservations(&self, limit: &str, now: Timestamp) {
        let made = self.made.lock().unwrap();
        for (id, (amounts, heard)) in
            made.iter().filter(|(_, (amounts, _))| amounts.iter().any(|(name, _)| name == limit))
        {
            let found = self.with(|memory| memory.reservation(*id, now)).unwrap();
            let charged: Vec<_> = found.iter().flat_map(|found| &found.parts).map(|part| part.charged).collect();
            println!(
                "{limit}: {id} {amounts:?} heard {heard} {:?} {charged:?}",
                found.as_ref().map(|found| &found.state)
            );
        }
    }

    /// Where a meter stood a while ago.
    fn stale(&self, charge: &Charge, now: Timestamp) -> Standing {
        let mut seen = self.seen.lock().unwrap();
        let at = self.kernel.now();
        let fresh = || self.with(|memory| memory.look(std::slice::from_ref(charge), now)).unwrap()[0].standing;
        let entry = seen.entry(charge.key()).or_insert_with(|| (at, fresh()));
        if entry.0 + 200 < at {
            *entry = (at, fresh());
        }
        entry.1
    }
}

/// What a network does.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub most_delay_ms: i64,
    pub lost_percent: usize,
    pub doubled_percent: usize,
}

/// The network of one run.
pub struct Network {
    pub kernel: Kernel,
    pub store: Arc<Store>,
    pub faults: Mutex<Faults>,
    /// Until when each node is cut off.
    pub cut: Vec<AtomicI64>,
}

impl Network {
    /// Whether a message gets through, and when.
    fn passes(&self, node: usize) -> Option<i64> {
        let faults = *self.faults.lock().unwrap();
        let lost = self.kernel.chance(faults.lost_percent) || self.is_cut(node);
        let delay = self.kernel.between(1, faults.most_delay_ms);
        (!lost).then_some(delay)
    }

    pub fn is_cut(&self, node: usize) -> bool {
        self.cut[node].load(Ordering::Relaxed) > self.kernel.now()
    }
}

/// The store as a node sees it. What it does about answers that do not come is what `edge/store/redis` does.
pub struct Link {
    network: Arc<Network>,
    node: usize,
    home: Home,
    unsure: Arc<Mutex<Vec<ReservationId>>>,
}

impl Link {
    pub fn new(network: &Arc<Network>, node: usize, home: Home) -> Self {
        Self { network: Arc::clone(network), node, home, unsure: Arc::default() }
    }

    fn ask<T, F>(&self, what: String, call: F, failed: fn(StoreError) -> T) -> Slot<T>
    where
        T: std::fmt::Debug + Send + 'static,
        F: Fn(&Store) -> T + Send + Sync + 'static,
    {
        ask(&self.network, self.node, what, call, failed)
    }
}

pub fn tells() -> bool {
    *TELLS
}

/// What a message says, where somebody wants to read it.
fn said(what: impl FnOnce() -> String) -> String {
    if *TELLS { what() } else { String::new() }
}

fn ask<T, F>(network: &Arc<Network>, node: usize, what: String, call: F, failed: fn(StoreError) -> T) -> Slot<T>
where
    T: std::fmt::Debug + Send + 'static,
    F: Fn(&Store) -> T + Send + Sync + 'static,
{
    let (slot, call, what) = (Slot::default(), Arc::new(call), Arc::new(what));
    let doubled = network.faults.lock().unwrap().doubled_percent;
    let copies = 1 + usize::from(network.kernel.chance(doubled));
    for _ in 0..copies {
        let Some(delay) = network.passes(node) else { continue };
        let (network, slot, call, what) = (Arc::clone(network), slot.clone(), Arc::clone(&call), Arc::clone(&what));
        network.clone().kernel.after(delay, move || {
            if network.is_cut(node) {
                return;
            }
            network.kernel.note(network.kernel.now() as u64 ^ (node as u64) << 60);
            let answer = call(&network.store);
            if *TELLS {
                println!("{:>6} node {node}: {what} {answer:?}", network.kernel.now() - BEGIN);
            }
            if let Some(delay) = network.passes(node) {
                let also = Arc::clone(&network);
                network.kernel.after(delay, move || {
                    if !also.is_cut(node) {
                        slot.fill(answer);
                    }
                });
            }
        });
    }
    let late = slot.clone();
    network.kernel.after(TIMEOUT_MS, move || late.fill(failed(StoreError::Away("nothing came".into()))));
    slot
}

impl Meters for Link {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        let charges = charges.to_vec();
        let what = said(|| format!("look {}", charges.len()));
        Later::pending(self.ask(what, move |store| store.with(|memory| memory.look(&charges, now)), Err))
    }

    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        let (id, unsure) = (hold.id, Arc::clone(&self.unsure));
        let what = said(|| {
            let of: Vec<_> = hold.charges.iter().map(|one| (one.limit.id.as_str(), one.amount.get())).collect();
            format!("hold {} {of:?} for {} ms", hold.id, hold.ttl_ms)
        });
        let asked = self.ask(what, move |store| store.hold(hold.clone(), now), |error| Err(HoldError::Store(error)));
        let network = Arc::clone(&self.network);
        let (answer, home, store) = (Slot::default(), self.home, Arc::clone(&network.store));
        let told = answer.clone();
        // Its node waits for the answer also where nobody else does any longer.
        network.kernel.spawn(
            home,
            Box::pin(async move {
                let done = asked.await;
                match done {
                    Err(HoldError::Store(StoreError::Away(_))) => unsure.lock().unwrap().push(id),
                    Ok(_) => store.heard(id),
                    Err(_) => {}
                }
                told.fill(done);
            }),
        );
        Later::pending(answer)
    }

    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        let what = said(|| format!("record {} {usage:?}", hold.id));
        let call = move |store: &Store| store.with(|memory| memory.record(hold.clone(), usage, now));
        Later::pending(self.ask(what, call, |error| Err(error.into())))
    }

    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        let what = said(|| format!("settle {id} {usage:?}"));
        let call = move |store: &Store| store.with(|memory| memory.settle(id, usage, now));
        Later::pending(self.ask(what, call, |error| Err(error.into())))
    }

    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        let (what, charged) = (said(|| format!("settle {id} unknown {charged:?}")), charged.to_vec());
        let call = move |store: &Store| store.with(|memory| memory.settle_unknown(id, &charged, now));
        Later::pending(self.ask(what, call, |error| Err(error.into())))
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        let what = said(|| format!("release {id}"));
        let call = move |store: &Store| store.with(|memory| memory.release(id, now));
        Later::pending(self.ask(what, call, |error| Err(error.into())))
    }

    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        let charges = charges.to_vec();
        let what = said(|| format!("warn {}", charges.len()));
        Later::pending(self.ask(what, move |store| store.with(|memory| memory.warn(&charges, now)), Err))
    }

    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        let what = said(|| format!("extend {id} {ttl_ms}"));
        let call = move |store: &Store| store.with(|memory| memory.extend(id, ttl_ms, now));
        Later::pending(self.ask(what, call, |error| Err(error.into())))
    }

    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        Later::pending(self.ask(
            said(|| format!("find {id}")),
            move |store| store.with(|memory| memory.reservation(id, now)),
            Err,
        ))
    }

    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        let key = key.to_owned();
        Later::pending(self.ask(
            said(|| format!("find {key}")),
            move |store| store.with(|memory| memory.named(&key, now)),
            Err,
        ))
    }

    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        Later::pending(self.ask(
            said(|| format!("answered {id}")),
            move |store| store.with(|memory| memory.answered(id, Arc::clone(&answer))),
            Err,
        ))
    }

    fn tick(&self, now: Timestamp) {
        let (network, node, unsure) = (Arc::clone(&self.network), self.node, Arc::clone(&self.unsure));
        if unsure.lock().unwrap().is_empty() {
            return;
        }
        self.network.kernel.spawn(
            self.home,
            Box::pin(async move {
                let ids = std::mem::take(&mut *unsure.lock().unwrap());
                for id in ids {
                    let call = move |store: &Store| store.with(|memory| memory.release(id, now));
                    let done =
                        ask(&network, node, said(|| format!("release {id}, unsure")), call, |error| Err(error.into()))
                            .await;
                    if let Err(CloseError::Store(_)) = done {
                        unsure.lock().unwrap().push(id);
                    }
                }
            }),
        );
    }
}
