//! Work that nobody waits for: on a thread of its own, since a store may keep it waiting. Who has to know the order of
//! things, as a test does, runs it otherwise.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is to be done.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs work that nobody waits for. Work that it cannot run it drops.
pub type Background = Arc<dyn Fn(Work) + Send + Sync>;

/// Each on a thread of this name.
#[must_use]
pub fn on_a_thread(name: &'static str) -> Background {
    Arc::new(move |work| {
        // Where no thread is to be had the work is dropped, and done when it is asked for again.
        let _begun = std::thread::Builder::new().name(name.to_owned()).spawn(move || pollster::block_on(work));
    })
}

/// That work is being done, until it is done or dropped.
pub(super) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// `None` while somebody else has it.
    pub(super) fn take(flag: &Arc<AtomicBool>) -> Option<Self> {
        (!flag.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(flag)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
