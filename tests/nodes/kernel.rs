//! Time and tasks, one after the other: the same seed does the same. Nothing waits for a clock on a wall.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::tape::Tape;

pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Where a task lives: it ends with that. Nothing ends `OUTSIDE`.
pub type Home = u64;
pub const OUTSIDE: Home = 0;

#[derive(Clone)]
pub struct Kernel(Arc<Shared>);

struct Shared {
    now: AtomicI64,
    tape: Mutex<Tape>,
    queue: Mutex<Queue>,
    spawned: Mutex<Vec<(Home, Task)>>,
    killed: Mutex<Vec<Home>>,
    ready: Arc<Mutex<VecDeque<u64>>>,
    running: Mutex<Running>,
    /// A digest of what happened.
    trace: Mutex<u64>,
}

#[derive(Default)]
struct Queue {
    heap: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Box<dyn FnOnce() + Send>>,
    next: u64,
}

#[derive(Default)]
struct Running {
    tasks: BTreeMap<u64, (Home, Task, Waker)>,
    next: u64,
}

struct Ready {
    id: u64,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap().push_back(self.id);
    }
}

impl Kernel {
    pub fn new(seed: u64, now: i64) -> Self {
        Self(Arc::new(Shared {
            now: AtomicI64::new(now),
            tape: Mutex::new(Tape::new(seed, 0)),
            queue: Mutex::default(),
            spawned: Mutex::default(),
            killed: Mutex::default(),
            ready: Arc::default(),
            running: Mutex::default(),
            trace: Mutex::new(0xCBF2_9CE4_8422_2325),
        }))
    }

    pub fn now(&self) -> i64 {
        self.0.now.load(Ordering::Relaxed)
    }

    pub fn below(&self, bound: usize) -> usize {
        self.0.tape.lock().unwrap().below(bound)
    }

    pub fn chance(&self, percent: usize) -> bool {
        self.0.tape.lock().unwrap().chance(percent)
    }

    /// Between the two, both of them included.
    pub fn between(&self, least: i64, most: i64) -> i64 {
        least + self.below((most - least + 1) as usize) as i64
    }

    /// Adds to the digest of what happened.
    pub fn note(&self, number: u64) {
        let mut trace = self.0.trace.lock().unwrap();
        for byte in number.to_le_bytes() {
            *trace = (*trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    pub fn trace(&self) -> u64 {
        *self.0.trace.lock().unwrap()
    }

    pub fn spawn(&self, home: Home, task: Task) {
        self.0.spawned.lock().unwrap().push((home, task));
    }

    /// Ends all that lives there.
    pub fn kill(&self, home: Home) {
        self.0.killed.lock().unwrap().push(home);
    }

    pub fn after(&self, millis: i64, what: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.queue.lock().unwrap();
        let number = queue.next;
        queue.next += 1;
        queue.heap.push(Reverse((self.now() + millis, number)));
        queue.events.insert(number, Box::new(what));
    }

    pub async fn sleep(&self, millis: i64) {
        let slot = Slot::<()>::default();
        let done = slot.clone();
        self.after(millis, move || done.fill(()));
        slot.await;
    }

    /// Runs until that instant.
    pub fn run(&self, until: i64) {
        let Running { mut tasks, mut next } = std::mem::take(&mut *self.0.running.lock().unwrap());
        loop {
            for home in std::mem::take(&mut *self.0.killed.lock().unwrap()) {
                tasks.retain(|_, (of, ..)| *of != home);
                self.0.spawned.lock().unwrap().retain(|(of, _)| *of != home);
            }
            for (home, task) in std::mem::take(&mut *self.0.spawned.lock().unwrap()) {
                let ready = Arc::new(Ready { id: next, ready: Arc::clone(&self.0.ready) });
                tasks.insert(next, (home, task, ready.into()));
                self.0.ready.lock().unwrap().push_back(next);
                next += 1;
            }
            let woken = self.0.ready.lock().unwrap().pop_front();
            if let Some(id) = woken {
                if let Some((_, task, waker)) = tasks.get_mut(&id)
                    && task.as_mut().poll(&mut Context::from_waker(waker)).is_ready()
                {
                    tasks.remove(&id);
                }
                continue;
            }
            let event = {
                let mut queue = self.0.queue.lock().unwrap();
                let Some(Reverse((at, number))) = queue.heap.peek().copied().filter(|Reverse((at, _))| *at <= until)
                else {
                    break;
                };
                queue.heap.pop();
                self.0.now.store(at, Ordering::Relaxed);
                queue.events.remove(&number).unwrap()
            };
            event();
        }
        self.0.now.store(until, Ordering::Relaxed);
        *self.0.running.lock().unwrap() = Running { tasks, next };
    }
}

/// What comes later, or never: whoever was to fill it ended.
pub struct Slot<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((None, None))))
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Slot<T> {
    /// The first counts.
    pub fn fill(&self, value: T) {
        let waker = {
            let mut inner = self.0.lock().unwrap();
            if inner.0.is_none() {
                inner.0 = Some(value);
            }
            inner.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Slot<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut inner = self.0.lock().unwrap();
        match inner.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                inner.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
