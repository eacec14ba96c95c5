//! The thread that writes: it numbers lines, links them, lets files take turns, and makes checkpoints.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::chain;
use super::files::{Output, Position, Repaired};
use super::json::Json;
use super::queue::Taken;
use super::{Shared, Tell, Urgency};
use crate::gate::{Checkpoint, Clock};
use crate::model::Timestamp;
use crate::model::hex;

/// After lines were written, others may gather for this long: one write then takes all of them.
const LINGER: Duration = Duration::from_millis(10);
/// How often the writer checks for due work while the queue is empty.
const TICK: Duration = Duration::from_secs(1);
/// For how long, and for how many lines, there may be no checkpoint.
const CHECKPOINT_MS: i64 = 1_000;
const CHECKPOINT_LINES: u64 = 1_000;
/// How often a checkpoint is logged, in addition to those at the end of a file.
const TOLD_MS: i64 = 3_600_000;
/// The share of the disk that stays free.
const LEAST_FREE_PERCENT: u64 = 10;
/// How often it looks whether the disk is free, and whether it can be written again.
const LOOK_MS: i64 = 1_000;
/// A buffer that has grown beyond this is freed.
const USUAL_BUFFER_BYTES: usize = 1024 * 1024;

type Keep = dyn FnMut(Checkpoint) -> io::Result<()> + Send;
type Free = dyn Fn(&Output) -> Option<u64> + Send;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) output: Output,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tell: Tell,
    /// Takes every checkpoint that is on the disk, to store a copy elsewhere.
    pub(super) keep: Box<Keep>,
    /// How much of the disk is free, in percent.
    pub(super) free: Box<Free>,
    /// The name of this machine.
    pub(super) node: String,
    pub(super) state: State,
}

/// The state that a writer keeps between turns.
#[derive(Default)]
pub(super) struct State {
    /// Where the next line goes.
    position: Position,
    /// The position that includes lines that are made and not yet written.
    kept: Position,
    /// Lines that are made and not yet written, and how many of them are records.
    made: Vec<u8>,
    records: u64,
    /// How many lost records those lines tell of.
    gaps: u64,
    /// Records that could not be written, and of which the log does not tell yet.
    lost: u64,
    /// Lines since the last checkpoint.
    unchecked: u64,
    checked_at: Option<Timestamp>,
    told_at: Option<Timestamp>,
    looked_at: Option<Timestamp>,
    /// The reason why writing has stopped.
    stopped: Option<String>,
    /// Whether the stop has been reported.
    told_stopped: bool,
    keep_failed: bool,
}

impl State {
    pub(super) fn at(position: Position) -> Self {
        Self { kept: position.clone(), position, ..Self::default() }
    }
}

impl Writer {
    /// Writes until the queue is closed.
    pub(super) fn run(mut self, repaired: Option<&Repaired>) {
        self.start(repaired);
        let mut before = Vec::new();
        loop {
            let taken = self.shared.queue.take(before, TICK);
            self.turn(&taken);
            if taken.closed {
                return self.end();
            }
            if !taken.lines.is_empty() {
                std::thread::sleep(LINGER);
            }
            before = if taken.lines.capacity() > USUAL_BUFFER_BYTES { Vec::new() } else { taken.lines };
        }
    }

    /// Writes the line that marks the start of a process.
    pub(super) fn start(&mut self, repaired: Option<&Repaired>) {
        let now = self.clock.now();
        (self.state.checked_at, self.state.told_at) = (Some(now), Some(now));
        if !self.may_write(now) {
            return;
        }
        let node = self.node.clone();
        let started = self.event(now, "start", |json| {
            json.raw(r#","version":"#).text(env!("CARGO_PKG_VERSION")).raw(r#","node":"#).text(&node);
        });
        let told = started.and_then(|()| match repaired {
            None => Ok(()),
            Some(Repaired { file, bytes }) => self.event(now, "repaired", |json| {
                json.raw(r#","file":"#).text(file).raw(r#","bytes":"#).plain(bytes);
            }),
        });
        if let Err(error) = told.and_then(|()| self.flush()) {
            self.failed(&error);
        }
    }

    /// Writes the records that were taken from the queue, and other due lines.
    pub(super) fn turn(&mut self, taken: &Taken) {
        let now = self.clock.now();
        self.shared.lost.fetch_add(taken.dropped, Ordering::Relaxed);
        if !self.may_write(now) {
            self.state.lost += taken.dropped;
            return self.lose(&taken.lines);
        }
        let mut lines = taken.lines.split_inclusive(|byte| *byte == b'\n');
        if let Err(error) = self.take(&mut lines, taken, now).and_then(|()| self.flush()) {
            lines.for_each(|line| self.lose(line));
            return self.failed(&error);
        }
        if let Err(error) = self.checkpoint_if_due(now) {
            self.failed(&error);
        }
    }

    /// Makes lines of the records. After an error, the rest of `lines` has not been made.
    fn take<'t>(
        &mut self,
        lines: &mut impl Iterator<Item = &'t [u8]>,
        taken: &Taken,
        now: Timestamp,
    ) -> io::Result<()> {
        let mut dropped = taken.dropped;
        let made = self.lost_before(now).and_then(|()| {
            for line in lines.by_ref() {
                self.append(line, now).inspect_err(|_| self.lose(line))?;
                self.state.records += 1;
            }
            match std::mem::take(&mut dropped) {
                0 => Ok(()),
                count => self.gap(now, count, "queue_full"),
            }
        });
        self.state.lost += dropped;
        made?;
        let due = self.shared.refusals().due(now, taken.closed);
        match due {
            Some(sum) => self.line(now, &sum),
            None => Ok(()),
        }
    }

    /// Writes the number of records that were lost before.
    fn lost_before(&mut self, now: Timestamp) -> io::Result<()> {
        match std::mem::take(&mut self.state.lost) {
            0 => Ok(()),
            lost => self.gap(now, lost, "not_written"),
        }
    }

    /// Ends the log of this process.
    pub(super) fn end(&mut self) {
        let now = self.clock.now();
        if self.state.stopped.is_some() {
            return;
        }
        self.state.told_at = None;
        let ended = self.event(now, "stop", |_| {}).and_then(|()| self.checkpoint(now));
        if let Err(error) = ended {
            self.failed(&error);
        }
    }

    /// Counts lines that are not written.
    fn lose(&mut self, lines: &[u8]) {
        let lines = lines.split_inclusive(|byte| *byte == b'\n').count();
        let lost = u64::try_from(lines).unwrap_or(u64::MAX);
        self.state.lost = self.state.lost.saturating_add(lost);
        self.shared.lost.fetch_add(lost, Ordering::Relaxed);
    }

    /// Stops after an error. Lines that are made and not written are lost, including any counts of lost records in
    /// them.
    fn failed(&mut self, error: &io::Error) {
        let state = &mut self.state;
        state.position = state.kept.clone();
        state.made.clear();
        let lost = std::mem::take(&mut state.records);
        state.lost = state.lost.saturating_add(lost).saturating_add(std::mem::take(&mut state.gaps));
        self.shared.lost.fetch_add(lost, Ordering::Relaxed);
        self.stop(format!("it cannot be written: {error}"));
    }

    fn stop(&mut self, why: String) {
        if !self.state.told_stopped {
            let message = format!(
                "the decision log has stopped: {why}; decisions continue, and the log will count the missing records"
            );
            (self.tell)(Urgency::Warning, &message);
        }
        self.state.told_stopped = true;
        self.state.stopped = Some(why);
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.queue.stopped(true);
    }

    /// Reports that writing continues.
    fn goes_on(&mut self) {
        if std::mem::take(&mut self.state.told_stopped) {
            (self.tell)(Urgency::Info, "the decision log goes on");
            self.shared.stopped.store(false, Ordering::Relaxed);
            self.shared.queue.stopped(false);
        }
    }

    /// Whether writing may be tried; looked at once a second.
    fn may_write(&mut self, now: Timestamp) -> bool {
        if passed(self.state.looked_at, now, LOOK_MS) {
            self.state.looked_at = Some(now);
            self.state.stopped = None;
            let free = (self.free)(&self.output);
            if free.is_some_and(|free| free < LEAST_FREE_PERCENT) {
                self.stop(format!("less than {LEAST_FREE_PERCENT} % of its disk is free"));
            }
        }
        self.state.stopped.is_none()
    }

    fn gap(&mut self, now: Timestamp, count: u64, reason: &str) -> io::Result<()> {
        let told = self.event(now, "gap", |json| {
            json.raw(r#","count":"#).plain(count).raw(r#","reason":"#).text(reason);
        });
        match told {
            Ok(()) => self.state.gaps += count,
            Err(_) => self.state.lost += count,
        }
        told
    }

    /// Adds a line of the log's own.
    fn event(&mut self, now: Timestamp, event: &str, members: impl FnOnce(&mut Json<'_>)) -> io::Result<()> {
        self.append(&event_body(now, event, members), now)
    }

    /// Adds a line of these members, behind the instant.
    fn line(&mut self, now: Timestamp, members: &str) -> io::Result<()> {
        self.append(format!("\"at\":\"{now}\",{members}}}\n").as_bytes(), now)
    }

    /// Adds a line to those that are to be written; before it a new file is begun where it belongs into one.
    fn append(&mut self, body: &[u8], now: Timestamp) -> io::Result<()> {
        let bytes = self.state.made.len() + HEAD_BYTES + body.len();
        if self.output.is_over(u64::try_from(bytes).unwrap_or(u64::MAX), now) {
            self.begin(now)?;
        }
        self.link(body);
        Ok(())
    }

    /// Numbers a line and links it to the one before.
    fn link(&mut self, body: &[u8]) {
        let State { position, made, unchecked, .. } = &mut self.state;
        let start = made.len();
        let mut json = Json(made);
        json.raw(r#"{"v":1,"seq":"#).plain(position.next);
        json.raw(r#","prev":"#).text(&hex::encode(&position.before)).raw(",");
        made.extend_from_slice(body);
        let line = made.get(start..made.len() - 1).unwrap_or_default();
        position.before = chain::leaf(line);
        position.tree.push(position.before);
        position.next += 1;
        *unchecked += 1;
    }

    /// Ends the file that is open with a checkpoint, and begins another.
    fn begin(&mut self, now: Timestamp) -> io::Result<()> {
        if self.state.position.tree.size() > 0 && self.state.unchecked > 0 {
            self.state.told_at = None;
            self.checkpoint(now)?;
        }
        self.flush()?;
        let tree = &self.state.position.tree;
        let previous =
            (tree.size() > 0).then(|| (self.output.file().to_owned(), tree.size(), hex::encode(&tree.root())));
        self.output.begin(self.state.position.next, now)?;
        self.state.position.tree = chain::Tree::default();
        self.state.kept = self.state.position.clone();
        let body = event_body(now, "file", |json| match &previous {
            Some((file, size, root)) => {
                json.raw(r#","previous":{"file":"#).text(file).raw(r#","size":"#).plain(size);
                json.raw(r#","root":"#).text(root).raw("}");
            }
            None => {
                json.raw(r#","previous":null"#);
            }
        });
        self.link(&body);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let state = &mut self.state;
        if !state.made.is_empty() {
            self.output.write(&state.made)?;
            state.made.clear();
            state.gaps = 0;
            self.shared.written.fetch_add(std::mem::take(&mut state.records), Ordering::Relaxed);
            state.kept = state.position.clone();
            self.goes_on();
        }
        Ok(())
    }

    fn checkpoint_if_due(&mut self, now: Timestamp) -> io::Result<()> {
        let State { unchecked, checked_at, .. } = self.state;
        if unchecked >= CHECKPOINT_LINES || (unchecked > 0 && passed(checked_at, now, CHECKPOINT_MS)) {
            self.checkpoint(now)?;
        }
        Ok(())
    }

    /// Writes the root over all lines of the file so far, syncs the file, and passes the checkpoint on.
    fn checkpoint(&mut self, now: Timestamp) -> io::Result<()> {
        self.flush()?;
        let State { position, .. } = &self.state;
        let (seq, size, root) = (position.next, position.tree.size(), hex::encode(&position.tree.root()));
        // Not `append`: a checkpoint always belongs into the file that it covers.
        let body = event_body(now, "checkpoint", |json| {
            json.raw(r#","node":"#).text(&self.node).raw(r#","file":"#).text(self.output.file());
            json.raw(r#","size":"#).plain(size).raw(r#","root":"#).text(&root);
        });
        self.link(&body);
        let line: Box<[u8]> = self.state.made.as_slice().into();
        self.flush()?;
        // A copy elsewhere must not cover lines that a loss of power removes: that would look like a cut.
        self.output.sync()?;
        (self.state.unchecked, self.state.checked_at) = (0, Some(now));
        let kept = (self.keep)(Checkpoint { seq, line: line.clone() });
        if let Err(error) = &kept
            && !self.state.keep_failed
        {
            let message = format!("a checkpoint of the decision log cannot be kept elsewhere: {error}");
            (self.tell)(Urgency::Warning, &message);
        }
        self.state.keep_failed = kept.is_err();
        if passed(self.state.told_at, now, TOLD_MS) {
            self.state.told_at = Some(now);
            let message = format!("decision log: {}", String::from_utf8_lossy(&line).trim_end());
            (self.tell)(Urgency::Info, &message);
        }
        Ok(())
    }
}

/// The body of a line of the log's own: what follows `prev`.
fn event_body(now: Timestamp, event: &str, members: impl FnOnce(&mut Json<'_>)) -> Vec<u8> {
    let mut body = Vec::new();
    let mut json = Json(&mut body);
    json.raw(r#""at":"#).shown(now).raw(r#","event":"#).text(event);
    members(&mut json);
    json.raw("}\n");
    body
}

/// The maximum number of bytes of a line before its body.
const HEAD_BYTES: usize = 110;

/// Whether that long has passed, or the clock was set back.
fn passed(since: Option<Timestamp>, now: Timestamp, millis: i64) -> bool {
    since.is_none_or(|since| now < since || now.as_millis().saturating_sub(since.as_millis()) >= millis)
}
