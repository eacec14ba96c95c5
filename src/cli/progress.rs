//! A line on a terminal's stderr that says what takes so long, gone when it is done.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Shorter work says nothing.
const LONG: Duration = Duration::from_millis(700);
const STEP: Duration = Duration::from_millis(250);

/// Shown until dropped.
pub(super) struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// `what` is being done; on anything but a terminal nothing is shown.
    pub(super) fn of(what: impl Into<String>) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (stop, stopped) = mpsc::channel::<()>();
        let what = what.into();
        let began = Instant::now();
        let show = move || {
            let mut wait = LONG;
            let mut shown = false;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                (wait, shown) = (STEP, true);
                let _untold = write!(io::stderr().lock(), "\r\x1b[K{what} … {} s", began.elapsed().as_secs());
            }
            if shown {
                let _untold = write!(io::stderr().lock(), "\r\x1b[K");
            }
        };
        Self(std::thread::Builder::new().name("progress".to_owned()).spawn(show).ok().map(|thread| (stop, thread)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            // The line must be gone before anything else is written.
            let _ended = thread.join();
        }
    }
}
