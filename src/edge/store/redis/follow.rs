//! What a node keeps in memory of a Redis that many nodes write to: it asks a few times a second how many changes there
//! were, and takes over what is new.
//!
//! What is hard about it: a node that hears nothing does not know what was revoked, and a Redis that came back with less
//! does not either. After a while of silence, and at once where changes are missing, nothing in memory is trusted any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use ::redis::{Cmd, Value};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};
use tokio::time::{Instant, MissedTickBehavior};

use super::eviction::{Eviction, Evicts};
use super::link::{Link, Trouble};
use super::{RedisError, RedisOptions, reply};
use crate::gate::StoreError;

/// How often it is asked what changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The eviction policy is checked every so many looks.
const LOOKS_PER_CHECK: u32 = 4;
/// For which the first reading is waited for.
const FIRST_WAIT: Duration = Duration::from_secs(60);

/// How far a node has followed.
pub(super) struct Following {
    link: Link,
    prefix: String,
    /// Where the number of the last change is.
    sequence: &'static str,
    /// The last change that is in memory; `None` before the first reading. Held while memory follows the Redis, so that
    /// what was read earlier is never put over what was written later.
    seen: AsyncMutex<Option<u64>>,
    /// How many looks have begun.
    begun: AtomicU64,
    /// Whether memory is as the Redis was a moment ago.
    fresh: AtomicBool,
    /// Why it is not.
    trouble: Mutex<StoreError>,
    /// The eviction policy of the Redis.
    eviction: Eviction,
    /// It came back with less, or is another's: this process trusts nothing of it any more.
    lost: AtomicBool,
}

/// What follows a Redis.
pub(super) trait Follows: Send + Sync + 'static {
    /// How far it is.
    fn following(&self) -> &Following;

    /// Takes over what changed after `seen`; everything, where nothing was seen.
    fn catch_up(&self, seen: Option<u64>, now: u64) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Is called after each look, with its number.
    fn looked(&self, _number: u32) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

impl Following {
    /// Connects to nothing yet. `name` is the thread's.
    ///
    /// # Errors
    /// Where the address is none.
    pub(super) fn new(
        options: &RedisOptions,
        name: &str,
        sequence: &'static str,
    ) -> Result<(Self, Runtime), RedisError> {
        let (link, runtime) = Link::on_thread(options, name)?;
        let following = Self {
            link,
            prefix: format!("{{{}}}:", options.prefix),
            sequence,
            seen: AsyncMutex::new(None),
            begun: AtomicU64::new(0),
            fresh: AtomicBool::new(false),
            trouble: Mutex::new(away("it has not been read yet")),
            eviction: Eviction::new(options.eviction, options.cluster, None),
            lost: AtomicBool::new(false),
        };
        Ok((following, runtime))
    }

    /// Why memory cannot be trusted, where that is so.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.fresh.load(Ordering::Acquire) && !self.lost.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.trouble())
    }

    pub(super) fn trouble(&self) -> StoreError {
        self.trouble.lock().clone()
    }

    /// The name of a key in the Redis.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.link.send(command).await.map_err(Trouble::into_store)
    }

    /// What this process can no longer trust, it takes nothing from, whoever found it out.
    pub(super) fn lose(&self, reason: &str) -> StoreError {
        let lost = StoreError::Lost(reason.into());
        self.fail(lost.clone());
        self.lost.store(true, Ordering::Release);
        lost
    }

    fn fail(&self, error: StoreError) {
        *self.trouble.lock() = error;
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Nobody follows while that is held.
    pub(super) async fn pause(&self) -> AsyncMutexGuard<'_, Option<u64>> {
        self.seen.lock().await
    }

    async fn number(&self) -> Result<u64, StoreError> {
        match self.send(::redis::cmd("GET").arg(self.key(self.sequence))).await? {
            Value::Nil => Ok(0),
            value => reply::text(value).and_then(|text| text.parse().ok()).ok_or_else(odd),
        }
    }
}

/// Follows the Redis for as long as the runtime lives; returns after the first look.
pub(super) fn follow<F: Follows>(shared: &Arc<F>, runtime: &Runtime, max_stale: Duration) {
    let (told, first) = sync_channel(1);
    runtime.spawn(run(Arc::clone(shared), max_stale, told));
    // Whether it worked is told by whoever asks.
    let _first = first.recv_timeout(FIRST_WAIT);
}

async fn run<F: Follows>(shared: Arc<F>, max_stale: Duration, first: SyncSender<()>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    for number in 0_u32.. {
        looks.tick().await;
        let asked = Instant::now();
        let following = shared.following();
        match look_after(&*shared, number).await {
            Ok(()) => {
                heard = asked;
                following.fresh.store(true, Ordering::Release);
            }
            Err(error) => {
                following.fail(error);
                if heard.elapsed() >= max_stale {
                    following.fresh.store(false, Ordering::Release);
                }
            }
        }
        // Only the first is waited for.
        let _ = first.try_send(());
        shared.looked(number).await;
    }
}

/// Takes over what changed, of a Redis that drops nothing when it is full.
async fn look_after<F: Follows>(shared: &F, number: u32) -> Result<(), StoreError> {
    let following = shared.following();
    if number.is_multiple_of(LOOKS_PER_CHECK) {
        match following.eviction.look(&following.link).await {
            Ok(()) => {}
            Err(Evicts::Away(error) | Evicts::Unfit(error)) => return Err(error),
            Err(Evicts::Dropped(how)) => {
                return Err(following.lose(&format!("{how}; restart to accept the present state")));
            }
        }
    }
    look(shared).await
}

/// Takes over what changed.
pub(super) async fn look<F: Follows>(shared: &F) -> Result<(), StoreError> {
    let mut seen = shared.following().pause().await;
    look_on(shared, &mut seen).await
}

/// Takes over what had changed when this was called: of all who wait for it, one looks.
pub(super) async fn look_anew<F: Follows>(shared: &F) -> Result<(), StoreError> {
    let following = shared.following();
    let begun = following.begun.load(Ordering::Acquire);
    let mut seen = following.pause().await;
    if following.begun.load(Ordering::Acquire) > begun {
        return Ok(());
    }
    look_on(shared, &mut seen).await
}

async fn look_on<F: Follows>(shared: &F, seen: &mut Option<u64>) -> Result<(), StoreError> {
    let following = shared.following();
    if following.is_lost() {
        return Err(following.trouble());
    }
    following.begun.fetch_add(1, Ordering::AcqRel);
    let now = following.number().await?;
    match *seen {
        Some(before) if before == now => return Ok(()),
        Some(before) if now < before => {
            return Err(following.lose("it has fewer changes than it had; restart to accept the present state"));
        }
        before => shared.catch_up(before, now).await?,
    }
    *seen = Some(now);
    Ok(())
}

pub(super) fn away(reason: &str) -> StoreError {
    StoreError::Away(reason.into())
}

pub(super) fn odd() -> StoreError {
    away("it answers what nobody asked")
}
