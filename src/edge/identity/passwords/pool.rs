//! A few threads that check and hash passwords, and a bounded queue before them. Who floods it from one source, an address or an
//! IPv6 network that somebody has, fills a quarter of it at most, so that others still get in. All that come without an
//! address are one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::gate::Later;
use crate::model::source_of;

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

type Job = Box<dyn FnOnce() + Send>;
/// Of each source, how many wait; `None` is where nothing is known of it.
type Waiting = Arc<Mutex<HashMap<Option<u128>, usize>>>;

pub(super) struct Pool {
    jobs: SyncSender<Job>,
    waiting: Waiting,
    most_of_one: usize,
}

impl Pool {
    /// Of `threads`, before which `queue` may wait. The threads end with the pool.
    pub(super) fn new(threads: usize, queue: usize) -> std::io::Result<Self> {
        let (jobs, work) = sync_channel::<Job>(queue.max(1));
        let work = Arc::new(Mutex::new(work));
        for _ in 0..threads.max(1) {
            let work = Arc::clone(&work);
            std::thread::Builder::new().name("tollgate-passwords".to_owned()).spawn(move || work_off(&work))?;
        }
        Ok(Self { jobs, waiting: Waiting::default(), most_of_one: (queue / 4).max(1) })
    }

    /// How many wait or are being worked on.
    pub(super) fn in_work(&self) -> usize {
        self.waiting.lock().values().sum()
    }

    /// Has `work` done for somebody at `source`; the answer is `None` where it could not be done.
    pub(super) fn run<T: Send + 'static>(
        &self,
        source: Option<IpAddr>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Later<Option<T>>, Busy> {
        let place = Place::take(&self.waiting, source.map(source_of), self.most_of_one).ok_or(Busy)?;
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let _place = place;
            // Nobody waits for it any more: it need not be done.
            if !answer.is_closed() {
                // What panics proves nothing, and the thread goes on.
                let done = catch_unwind(AssertUnwindSafe(work)).ok();
                let _unread = answer.send(done);
            }
        };
        match self.jobs.try_send(Box::new(job)) {
            Ok(()) => Ok(Later::pending(async move { answered.await.ok().flatten() })),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
        }
    }
}

fn work_off(work: &Mutex<Receiver<Job>>) {
    loop {
        let job = work.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_ended) => return,
        }
    }
}

/// A place in the queue, given back however it ends.
struct Place {
    waiting: Waiting,
    source: Option<u128>,
}

impl Place {
    fn take(waiting: &Waiting, source: Option<u128>, most: usize) -> Option<Self> {
        let mut counts = waiting.lock();
        let count = counts.entry(source).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Self { waiting: Arc::clone(waiting), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.waiting.lock();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A pool of one thread that is busy until something is sent.
    fn busy(queue: usize) -> (Pool, mpsc::Sender<()>, Later<Option<bool>>) {
        let pool = Pool::new(1, queue).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let first = pool.run(Some("198.51.100.1".parse().unwrap()), move || {
            began.send(()).unwrap();
            wait.recv().is_ok()
        });
        begun.recv().unwrap();
        (pool, go, first.ok().unwrap())
    }

    #[test]
    fn the_queue_is_bounded_and_one_source_fills_a_quarter_of_it() {
        let (pool, go, first) = busy(8);
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        let mine: Vec<_> = (0..2).map(|_| pool.run(Some(here), || true).ok().unwrap()).collect();
        assert!(pool.run(Some(here), || true).is_err());
        let others: Vec<_> = (2..8)
            .map(|number| pool.run(Some(format!("192.0.2.{number}").parse().unwrap()), || false).ok().unwrap())
            .collect();
        assert!(pool.run(None, || true).is_err(), "eight wait");
        go.send(()).unwrap();
        assert_eq!(pollster::block_on(first), Some(true));
        assert!(mine.into_iter().all(|answer| pollster::block_on(answer) == Some(true)));
        assert!(others.into_iter().all(|answer| pollster::block_on(answer) == Some(false)));
        assert_eq!(pollster::block_on(pool.run(Some(here), || true).ok().unwrap()), Some(true));
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_so_is_all_that_has_no_address() {
        let (pool, go, _first) = busy(8);
        let of = |number: u16| Some(format!("2001:db8::{number:x}").parse().unwrap());
        let _mine = [1, 2].map(|number| pool.run(of(number), || true).ok().unwrap());
        assert!(pool.run(of(3), || true).is_err(), "another address of the same network");
        let _other = pool.run(Some("2001:db8:0:1::1".parse().unwrap()), || true).ok().unwrap();
        let _unknown = [(), ()].map(|()| pool.run(None, || true).ok().unwrap());
        assert!(pool.run(None, || true).is_err(), "another without an address");
        drop(go);
    }

    #[test]
    fn what_panics_is_no_answer_and_the_thread_goes_on() {
        let pool = Pool::new(1, 8).unwrap();
        let panicking = pool.run(None, || panic!("on purpose")).ok().unwrap();
        assert_eq!(pollster::block_on(panicking), None);
        assert_eq!(pollster::block_on(pool.run(None, || true).ok().unwrap()), Some(true));
    }
}
