//! Meters in a Redis (or Valkey) that many nodes share. Each move is one script, which does all of it or nothing, in one
//! round trip however many limits apply; what it says of meters is read with the same arithmetic as anywhere.
//!
//! What is hard about it: an answer may be lost though the move was made, the Redis may come back with less than it had,
//! and a script counts in floating point. So what nobody was told of is given back, a generation shows what was lost
//! (`generation`), and scripts count exactly in numbers of their own (`lua/number.lua`).

mod eviction;
mod follow;
mod generation;
mod keys;
mod link;
mod options;
mod reply;
mod scripts;
mod together;
mod tokens;
mod values;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use eviction::EvictionCheck;
pub use generation::FILE_NAME;
pub use keys::RedisKeys;
pub use options::{RedisError, RedisOptions, Secret};
pub use tokens::RedisTokens;

use self::eviction::{Eviction, Evicts};
use self::generation::Generation;
use self::link::{Link, Trouble};
use self::reply::Reply;
use self::scripts::{ARRIVE, Call, HELLO, Keys, LOSE};
use self::together::{Asked, Waiting};
use crate::edge::random;
use crate::gate::{CloseError, HoldError, Later, Look, Meters, StoreError};
use crate::meter::{Alert, Charge, Closed, Held, Hold, Reservation, ReservationId, Usage};
use crate::model::hex;
use crate::model::{Amount, Timestamp};

/// How many reservations may expire while somebody waits; a script holds up everybody.
const EXPIRE_ON_THE_WAY: usize = 16;
/// How many reservations may expire, and how many may be forgotten, in one script of a tick, and how many such scripts a
/// tick may send: each lets others in between.
const FORGET_AT_ONCE: usize = 64;
const MOST_TURNS: usize = 256;
/// How many epochs may begin while a script waits to be run.
const MOST_EPOCHS: usize = 16;
/// How often the eviction policy is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How many holds may wait to be given back, since nobody knows whether they were made.
const MOST_UNSURE: usize = 100_000;

/// Meters in a Redis.
pub struct Redis {
    shared: Arc<Shared>,
    // Only gone while it is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    link: Link,
    keys: Keys,
    generation: Generation,
    /// Whether it failed when it was last looked at.
    away: AtomicBool,
    /// The eviction policy of this Redis and the problem with it, if a check found one.
    eviction: Eviction,
    fitness: Mutex<Option<Result<(), StoreError>>>,
    looked_at: Mutex<Option<Instant>>,
    ticking: AtomicBool,
    arriving: tokio::sync::Mutex<()>,
    unsure: Mutex<VecDeque<ReservationId>>,
    waiting: Waiting,
}

impl Redis {
    /// Prepares the connection; a Redis that is away does not keep a node from starting.
    ///
    /// # Errors
    /// Where the address is none, or what was seen before cannot be read.
    pub fn open(options: &RedisOptions) -> Result<Self, RedisError> {
        let (generation, evicted) = Generation::open(&options.data, &options.prefix)?;
        let (link, runtime) = Link::on_thread(options, "redis")?;
        let shared = Shared {
            link,
            keys: Keys::new(&options.prefix),
            generation,
            away: AtomicBool::new(false),
            eviction: Eviction::new(options.eviction, options.cluster, evicted),
            fitness: Mutex::default(),
            looked_at: Mutex::default(),
            ticking: AtomicBool::new(false),
            arriving: tokio::sync::Mutex::default(),
            unsure: Mutex::default(),
            waiting: Waiting::default(),
        };
        Ok(Self { shared: Arc::new(shared), runtime: Some(runtime) })
    }

    /// Checks that the Redis answers, has the expected state, and evicts no keys.
    pub fn check(&self) -> Later<Result<(), StoreError>> {
        self.ask(|shared| async move {
            let checked = shared.check_eviction().await;
            let answered = match checked {
                Ok(()) => shared.call(&shared.keys.look(&[], 0, 0)).await.map(drop),
                Err(error) => Err(error),
            };
            shared.away.store(answered.is_err(), Ordering::Release);
            answered
        })
    }

    fn ask<T, E, F>(&self, work: impl FnOnce(Arc<Shared>) -> F) -> Later<Result<T, E>>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let gone = || E::from(StoreError::Away("the store was closed".into()));
        let Some(runtime) = &self.runtime else { return Later::pending(async move { Err(gone()) }) };
        // On a thread of its own, so that it does not matter what its caller runs on.
        let asked = runtime.spawn(work(Arc::clone(&self.shared)));
        Later::pending(async move { asked.await.unwrap_or_else(|_ended| Err(gone())) })
    }

    fn close(&self, id: ReservationId, usage: Option<Usage>, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.ask(move |shared| async move {
            let call = shared.keys.close(id, usage.as_ref(), scripts::millis(now), EXPIRE_ON_THE_WAY);
            shared.call(&call).await?.closed(&shared.keys.prefix)
        })
    }

    fn find(
        &self,
        id: ReservationId,
        name: Option<String>,
        now: Timestamp,
    ) -> Later<Result<Option<Reservation>, StoreError>> {
        self.ask(move |shared| async move {
            let call = shared.keys.find(id, name.as_deref(), scripts::millis(now), EXPIRE_ON_THE_WAY);
            shared.call(&call).await?.found(&shared.keys.prefix)
        })
    }
}

impl Shared {
    /// Runs a script: in one round trip, but for the first time that this Redis sees it, and the first one of an epoch.
    async fn call(&self, call: &Call) -> Result<Reply, StoreError> {
        let mut whole = false;
        for _ in 0..MOST_EPOCHS {
            let (epoch, sequence) = self.seen().await?;
            let value = match self.link.send(&scripts::command(&[call], whole, (&epoch, sequence))).await {
                Ok(value) => value,
                Err(Trouble::NoScript) if !whole => {
                    self.arrive(&epoch).await?;
                    whole = true;
                    continue;
                }
                Err(trouble) => return Err(trouble.into_store()),
            };
            let reply = Reply::read(value)?;
            if reply.is_lost() {
                return Err(self.generation.lose(&reply.lost(sequence)));
            }
            match reply.epoch()? {
                Some(next) => self.generation.enter(&epoch, next),
                None => {
                    self.generation.advance(reply.sequence);
                    return Ok(reply);
                }
            }
        }
        Err(StoreError::Away("it is started again and again".into()))
    }

    /// Begins an epoch where no script is known; there is none where something is lost, which every script tells.
    // INVARIANT: one at a time, so that a sequence is never noted beside an epoch before the one that it was seen in.
    async fn arrive(&self, before: &str) -> Result<(), StoreError> {
        let arriving = tokio::time::timeout(self.link.timeout, self.arriving.lock()).await;
        let _arriving = arriving.map_err(|_elapsed| StoreError::Away("it knows no scripts yet".into()))?;
        let (epoch, sequence) = self.seen().await?;
        if *epoch != *before {
            // Another call was here first.
            return Ok(());
        }
        let mut command = ::redis::cmd("EVAL");
        command.arg(ARRIVE.text).arg(2).arg(self.keys.generation()).arg(self.keys.epochs());
        command.arg(&*epoch).arg(sequence).arg(new_epoch());
        let told = self.link.send(&command).await.map_err(Trouble::into_store)?;
        if let Some(next) = reply::text(told).filter(|next| !next.is_empty()) {
            self.generation.enter(&epoch, &next);
        }
        Ok(())
    }

    /// The epoch and the highest sequence that were seen; where there are none, those that are there.
    async fn seen(&self) -> Result<(Arc<str>, u64), StoreError> {
        let fitness = self.fitness.lock().clone();
        match fitness {
            Some(fitness) => fitness?,
            None => self.check_eviction().await?,
        }
        if let Some(seen) = self.generation.seen()? {
            return Ok(seen);
        }
        let mut command = ::redis::cmd("EVAL");
        command.arg(HELLO.text).arg(2).arg(self.keys.generation()).arg(self.keys.epochs()).arg(new_epoch());
        let hello = self.link.send(&command).await.map_err(Trouble::into_store)?;
        let (epoch, sequence, lost) = reply::hello(hello)?;
        if !lost.is_empty() {
            let how = match lost.as_str() {
                reply::EVICTED => reply::DROPPED_KEYS.to_owned(),
                _ => format!("another node saw it at {lost}, and it came back with less"),
            };
            return Err(self.generation.lose(&how));
        }
        let shared_epoch: Arc<str> = epoch.into();
        self.generation.join(&shared_epoch, sequence)?;
        self.generation.seen()?.ok_or_else(|| StoreError::Away("it was not joined".into()))
    }

    /// A Redis that evicts keys would lose spending. One with such a policy is not used until the policy changes. One
    /// that has evicted keys has lost state, for every node.
    async fn check_eviction(&self) -> Result<(), StoreError> {
        *self.looked_at.lock() = Some(Instant::now());
        let fitness = match self.eviction.look(&self.link).await {
            Ok(()) => Ok(()),
            // The earlier result remains valid.
            Err(Evicts::Away(error)) => return Err(error),
            Err(Evicts::Unfit(error)) => Err(error),
            Err(Evicts::Dropped(how)) => {
                let mut command = ::redis::cmd("EVAL");
                command.arg(LOSE.text).arg(1).arg(self.keys.generation());
                // This node has noted the loss, even if the other nodes cannot be notified.
                let lost = self.generation.lose(&how);
                self.link.send(&command).await.map_err(Trouble::into_store)?;
                Err(lost)
            }
        };
        self.generation.note_evicted(self.eviction.seen());
        // The generation records the loss for as long as it exists.
        let kept =
            fitness.clone().or_else(|error| if matches!(error, StoreError::Lost(_)) { Ok(()) } else { Err(error) });
        *self.fitness.lock() = Some(kept);
        fitness
    }

    fn is_time_to_check(&self) -> bool {
        let looked_at = *self.looked_at.lock();
        looked_at.is_none_or(|at| at.elapsed() >= CHECK_EVERY)
    }

    /// Remembers a hold of which nobody knows whether it was made or its answer kept: where it was not, nobody was told, and
    /// nobody will settle it.
    fn note_unsure(&self, id: ReservationId) {
        let mut unsure = self.unsure.lock();
        if unsure.len() < MOST_UNSURE {
            unsure.push_back(id);
        }
    }

    async fn tick(&self, now: i64) -> Result<(), StoreError> {
        if self.generation.keep()? {
            self.eviction.forget();
        }
        if self.is_time_to_check() {
            self.check_eviction().await?;
        }
        for _ in 0..MOST_TURNS {
            let looked_at = self.call(&self.keys.look(&[], now, FORGET_AT_ONCE)).await?.forgotten()?;
            if looked_at < FORGET_AT_ONCE {
                break;
            }
        }
        loop {
            let next = self.unsure.lock().front().copied();
            let Some(id) = next else { return Ok(()) };
            self.call(&self.keys.give_back(id, now)).await?;
            self.unsure.lock().pop_front();
        }
    }
}

/// 128 random bits.
fn new_epoch() -> String {
    hex::encode(&random::bytes::<16>())
}

fn after(now: Timestamp, ttl_ms: i64) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_add(ttl_ms))
}

impl Meters for Redis {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        let charges = charges.to_vec();
        self.ask(move |shared| async move {
            let call = shared.keys.look(&charges, scripts::millis(now), EXPIRE_ON_THE_WAY);
            shared.call(&call).await?.looks(&charges, now)
        })
    }

    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        let gone = || HoldError::Store(StoreError::Away("the store was closed".into()));
        let Some(runtime) = &self.runtime else { return Later::ready(Err(gone())) };
        let due = after(now, hold.ttl_ms);
        let call = self.shared.keys.hold(&hold, None, (now, due), EXPIRE_ON_THE_WAY);
        let (answer, told) = oneshot::channel();
        if self.shared.waiting.push(Asked { id: hold.id, call, answer }) {
            drop(runtime.spawn(Arc::clone(&self.shared).send_holds()));
        }
        Later::pending(async move { told.await.map_err(|_ended| gone())??.held(&hold, due, now) })
    }

    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.ask(move |shared| async move {
            let due = after(now, crate::meter::MEMORY_MS);
            let call = shared.keys.hold(&hold, Some(&usage), (now, due), EXPIRE_ON_THE_WAY);
            shared.call(&call).await?.recorded(&hold, &shared.keys.prefix, now)
        })
    }

    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.close(id, Some(usage), now)
    }

    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        let charged: Box<[Amount]> = charged.into();
        self.ask(move |shared| async move {
            let call = shared.keys.close_unknown(id, &charged, scripts::millis(now), EXPIRE_ON_THE_WAY);
            shared.call(&call).await?.closed(&shared.keys.prefix)
        })
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.close(id, None, now)
    }

    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        let charges = charges.to_vec();
        self.ask(move |shared| async move {
            let call = shared.keys.warn(&charges, now, EXPIRE_ON_THE_WAY);
            shared.call(&call).await?.warned(&charges, now)
        })
    }

    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        self.ask(move |shared| async move {
            let call = shared.keys.extend(id, after(now, ttl_ms), scripts::millis(now), EXPIRE_ON_THE_WAY);
            shared.call(&call).await?.extended()
        })
    }

    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.find(id, None, now)
    }

    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.find(ReservationId::from_bytes([0; 16]), Some(key.to_owned()), now)
    }

    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        self.ask(move |shared| async move {
            let reply = shared.call(&shared.keys.answered(id, &answer)).await;
            if let Err(StoreError::Away(_)) = reply {
                shared.note_unsure(id);
            }
            reply?.answered()
        })
    }

    fn is_away(&self) -> bool {
        self.shared.away.load(Ordering::Acquire)
    }

    fn tick(&self, now: Timestamp) {
        let Some(runtime) = &self.runtime else { return };
        if self.shared.ticking.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        drop(runtime.spawn(async move {
            // What fails is tried again at the next tick.
            let _done = shared.tick(scripts::millis(now)).await;
            shared.ticking.store(false, Ordering::Release);
        }));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _kept = self.shared.generation.keep();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}
