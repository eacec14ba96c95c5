//! Holds that come while others are on their way wait for each other and are asked together: a script for thirty holds
//! takes far less than thirty scripts, and so do the messages. One that comes alone goes at once.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Shared;
use super::link::Trouble;
use super::reply::Reply;
use super::scripts::{self, Call};
use crate::gate::StoreError;
use crate::meter::ReservationId;

/// So many scripts with holds are on their way at a time: while one runs, the next comes.
const MOST_ON_THE_WAY: usize = 2;
/// So many holds are asked together, with so many keys: a script holds up everybody.
const MOST_TOGETHER: usize = 32;
const MOST_KEYS: usize = 512;

/// A hold that is to be asked for, and who waits for it.
pub(super) struct Asked {
    pub(super) id: ReservationId,
    pub(super) call: Call,
    pub(super) answer: oneshot::Sender<Result<Reply, StoreError>>,
}

/// Holds that wait.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Line>);

#[derive(Default)]
struct Line {
    asked: VecDeque<Asked>,
    on_the_way: usize,
}

impl Waiting {
    /// Takes one in; whether somebody has to send it, as nobody is about to.
    #[must_use]
    pub(super) fn push(&self, asked: Asked) -> bool {
        let mut line = self.0.lock();
        line.asked.push_back(asked);
        let is_free = line.on_the_way < MOST_ON_THE_WAY;
        line.on_the_way += usize::from(is_free);
        is_free
    }

    /// Those that are to be asked together next: of one instant, as a script has one. Where there are none, whoever asks
    /// has done its work.
    fn take(&self) -> Vec<Asked> {
        let mut line = self.0.lock();
        let (mut together, mut keys): (Vec<Asked>, usize) = (Vec::new(), 0);
        while let Some(next) = line.asked.front() {
            keys += next.call.keys.len();
            let is_same = together.first().is_none_or(|first| first.call.now == next.call.now && keys <= MOST_KEYS);
            if together.len() >= MOST_TOGETHER || !is_same {
                break;
            }
            together.extend(line.asked.pop_front());
        }
        if together.is_empty() {
            line.on_the_way -= 1;
        }
        together
    }

    /// Answers those that wait while the Redis does not answer: they waited as long as the others, and nothing of them was
    /// sent.
    fn fail(&self, error: &StoreError) {
        let waiting = std::mem::take(&mut self.0.lock().asked);
        for one in waiting {
            let _told = one.answer.send(Err(error.clone()));
        }
    }
}

impl Shared {
    /// Sends what waits, until nothing does.
    pub(super) async fn send_holds(self: Arc<Self>) {
        loop {
            let together = self.waiting.take();
            match together.len() {
                0 => return,
                1 => self.hold_alone(together).await,
                _ => self.hold_together(together).await,
            }
        }
    }

    async fn hold_alone(&self, asked: impl IntoIterator<Item = Asked>) {
        for one in asked {
            let reply = self.call(&one.call).await;
            if let Err(error @ StoreError::Away(_)) = &reply {
                self.note_unsure(one.id);
                self.waiting.fail(error);
            }
            // Who does not wait any longer settles it, or lets it expire.
            let _told = one.answer.send(reply);
        }
    }

    /// What is answered to holds that are asked together; `None` to those that have to be asked alone.
    async fn run_together(&self, calls: &[&Call]) -> Result<Vec<Option<Reply>>, StoreError> {
        let (epoch, sequence) = self.seen().await?;
        match self.link.send(&scripts::command(calls, false, (&epoch, sequence))).await {
            Ok(value) => Reply::read_each(value, calls.len()),
            Err(Trouble::NoScript) => Ok(calls.iter().map(|_| None).collect()),
            Err(trouble) => Err(trouble.into_store()),
        }
    }

    async fn hold_together(self: &Arc<Self>, asked: Vec<Asked>) {
        let calls: Vec<&Call> = asked.iter().map(|one| &one.call).collect();
        let each = match self.run_together(&calls).await {
            Ok(each) => each,
            Err(error) => {
                let is_away = matches!(error, StoreError::Away(_));
                for one in asked {
                    if is_away {
                        self.note_unsure(one.id);
                    }
                    let _told = one.answer.send(Err(error.clone()));
                }
                if is_away {
                    self.waiting.fail(&error);
                }
                return;
            }
        };
        for (one, reply) in asked.into_iter().zip(each) {
            match reply {
                Some(reply) => {
                    self.generation.advance(reply.sequence);
                    let _told = one.answer.send(Ok(reply));
                }
                None => {
                    let shared = Arc::clone(self);
                    drop(tokio::spawn(async move { shared.hold_alone([one]).await }));
                }
            }
        }
    }
}
