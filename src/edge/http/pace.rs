//! How long a connection may take to send the head of a request, and to send none at all.
//!
//! The two differ, and nobody but the connection knows which of them runs: a byte that comes while it is idle begins a
//! head. The deadline moves with every request, and the timer only where it would come too late, so a busy connection
//! costs a look at the clock.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// No deadline: a request is being answered.
const NEVER: u64 = u64::MAX;

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) head: Duration,
    pub(super) idle: Duration,
}

/// The state that the two ends of a connection share: its bytes and its requests.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    times: Times,
    /// Milliseconds since `began`.
    deadline: AtomicU64,
    idle: AtomicBool,
    /// Whether the connection has at most this long, because it is over the limit.
    hurries: AtomicBool,
    hurry: Duration,
}

impl Pace {
    /// With these times; or, for as long as it `hurries`, with those at most.
    pub(super) fn new(times: Times, hurries: bool, hurry: Duration) -> Self {
        let (began, deadline, idle) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
        let pace = Self { began, times, deadline, idle, hurries: AtomicBool::new(hurries), hurry };
        pace.due_in(times.head);
        pace
    }

    /// There is room for it: it has the usual times from now on.
    pub(super) fn relax(&self) {
        self.hurries.store(false, Ordering::Relaxed);
    }

    /// A head is there.
    pub(super) fn request_began(&self) {
        self.deadline.store(NEVER, Ordering::Relaxed);
    }

    /// Its answer is on the way.
    pub(super) fn answered(&self) {
        self.idle.store(true, Ordering::Relaxed);
        self.due_in(self.times.idle);
    }

    fn bytes_came(&self) {
        if self.idle.swap(false, Ordering::Relaxed) {
            self.due_in(self.times.head);
        }
    }

    fn due_in(&self, duration: Duration) {
        let duration = if self.hurries.load(Ordering::Relaxed) { duration.min(self.hurry) } else { duration };
        let due = Instant::now().saturating_duration_since(self.began) + duration;
        self.deadline.store(u64::try_from(due.as_millis()).unwrap_or(NEVER - 1), Ordering::Relaxed);
    }

    /// Ready once the deadline has passed. To be polled after the connection, which moves it.
    pub(super) fn poll_late(&self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.deadline.load(Ordering::Relaxed);
            if deadline == NEVER {
                return Poll::Pending;
            }
            let due = self.began + Duration::from_millis(deadline);
            if timer.is_elapsed() || timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= due {
                return Poll::Ready(());
            }
        }
    }
}

/// A socket that tells when bytes come.
pub(super) struct Paced<'a, S> {
    pub(super) stream: S,
    pub(super) pace: &'a Pace,
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.pace.bytes_came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
