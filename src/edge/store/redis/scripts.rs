//! The scripts, each made of the parts that it needs, and what is handed to them.

use std::sync::LazyLock;

use ::redis::{Cmd, Script};

use super::texts;
use crate::meter::{Charge, DEFAULT_MOST_OPEN, Hold, Measure, ReservationId, Usage};
use crate::model::{Amount, Every, Period, Timestamp, Unit};

/// A script: its text and its digest.
pub(super) struct Source {
    pub(super) text: &'static str,
    script: LazyLock<Script>,
}

macro_rules! script {
    ($($name:literal),+) => {{
        const TEXT: &str = concat!($(include_str!(concat!("lua/", $name, ".lua"))),+);
        Source { text: TEXT, script: LazyLock::new(|| Script::new(TEXT)) }
    }};
}

pub(super) static HELLO: Source = script!("hello");
pub(super) static ARRIVE: Source = script!("epochs", "arrive");
pub(super) static LOOK: Source = script!("number", "meters", "epochs", "book", "look");
pub(super) static HOLD: Source = script!("number", "meters", "epochs", "book", "charges", "hold");
pub(super) static CLOSE: Source = script!("number", "meters", "epochs", "book", "close");
pub(super) static WARN: Source = script!("number", "meters", "epochs", "book", "charges", "warn");
pub(super) static EXTEND: Source = script!("number", "meters", "epochs", "book", "extend");
pub(super) static FIND: Source = script!("number", "meters", "epochs", "book", "find");
pub(super) static ANSWERED: Source = script!("number", "meters", "epochs", "book", "answered");

/// Instants beyond are taken for these, so that a script counts them exactly: the years -140,743 and 144,683.
const FARTHEST_MS: i64 = 1 << 52;

pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millis().clamp(-FARTHEST_MS, FARTHEST_MS)
}

/// A script with its keys and arguments, as far as they are known before it is sent.
pub(super) struct Call {
    pub(super) script: &'static Source,
    pub(super) keys: Vec<String>,
    pub(super) now: i64,
    pub(super) expire: usize,
    pub(super) rest: Vec<Vec<u8>>,
}

impl Call {
    /// The command, by the script's digest or with its text.
    pub(super) fn command(&self, whole: bool, seen: (&str, u64), prefix: &str) -> Cmd {
        let mut command = ::redis::cmd(if whole { "EVAL" } else { "EVALSHA" });
        command.arg(if whole { self.script.text } else { self.script.script.get_hash() });
        command.arg(self.keys.len()).arg(&self.keys);
        command.arg(seen.0).arg(seen.1).arg(self.now).arg(self.expire).arg(prefix);
        command.arg(&self.rest);
        command
    }
}

/// Names of keys: all in one slot of a cluster, by the hash tag in the prefix.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) prefix: String,
}

impl Keys {
    pub(super) fn new(tag: &str) -> Self {
        Self { prefix: format!("{{{tag}}}:") }
    }

    pub(super) fn generation(&self) -> String {
        format!("{}generation", self.prefix)
    }

    pub(super) fn epochs(&self) -> String {
        format!("{}epochs", self.prefix)
    }

    fn due(&self) -> String {
        format!("{}due", self.prefix)
    }

    fn reservation(&self, id: ReservationId) -> String {
        format!("{}r:{id}", self.prefix)
    }

    fn answer(&self, id: ReservationId) -> String {
        format!("{}a:{id}", self.prefix)
    }

    fn named(&self, name: &str) -> String {
        format!("{}k:{}", self.prefix, texts::escaped(name))
    }

    /// With the length of the series, since either part may have a colon.
    fn meter(&self, charge: &Charge) -> String {
        let series = texts::escaped(&charge.limit.series);
        let subject = texts::escaped(charge.subject.as_deref().unwrap_or_default());
        format!("{}m:{}:{series}:{subject}", self.prefix, series.len())
    }

    pub(super) fn look(&self, charges: &[Charge], now: i64, expire: usize) -> Call {
        let mut keys = vec![self.generation(), self.due()];
        keys.extend(charges.iter().map(|charge| self.meter(charge)));
        Call { script: &LOOK, keys, now, expire, rest: Vec::new() }
    }

    /// Holds; or, where it is said what was used, charges at once.
    pub(super) fn hold(&self, hold: &Hold, used: Option<&Usage>, at: (Timestamp, Timestamp), expire: usize) -> Call {
        let (now, due) = at;
        let reservation = self.reservation(hold.id);
        let name = hold.idempotency.as_ref().map(|(name, _)| self.named(name));
        let mut keys = vec![self.generation(), self.due(), reservation.clone(), name.unwrap_or(reservation)];
        keys.extend(hold.charges.iter().map(|charge| self.meter(charge)));
        let (digest, name) = match &hold.idempotency {
            Some((name, digest)) => (texts::hex(digest), texts::escaped(name)),
            None => ("-".to_owned(), String::new()),
        };
        let mut rest = vec![
            text(millis(due)),
            text(DEFAULT_MOST_OPEN),
            digest.into_bytes(),
            name.into_bytes(),
            used.map_or_else(|| "O".to_owned(), texts::settled).into_bytes(),
            texts::body(hold, now).into_bytes(),
            // Where charges begin is the same for each script that has them.
            Vec::new(),
        ];
        hold.charges.iter().for_each(|charge| rest.extend(arguments(charge, now)));
        Call { script: &HOLD, keys, now: millis(now), expire, rest }
    }

    /// Settles, or gives back where nothing was used.
    pub(super) fn close(&self, id: ReservationId, used: Option<&Usage>, now: i64, expire: usize) -> Call {
        let keys = vec![self.generation(), self.due(), self.reservation(id)];
        let rest = match used {
            None => vec![b"R".to_vec()],
            Some(usage) => {
                let of = |unit| usage.of(unit).map_or_else(|| b"!".to_vec(), |amount| text(amount.get()));
                vec![
                    texts::settled(usage).into_bytes(),
                    usage.usd.map_or_else(|| b"-".to_vec(), |usd| text(usd.get())),
                    of(Unit::Tokens),
                    of(Unit::InputTokens),
                    of(Unit::OutputTokens),
                    of(Unit::Requests),
                ]
            }
        };
        Call { script: &CLOSE, keys, now, expire, rest }
    }

    /// Tells which percents were reached. Keys and arguments that only a hold has are left empty.
    pub(super) fn warn(&self, charges: &[Charge], now: Timestamp, expire: usize) -> Call {
        let mut keys = vec![self.generation(), self.due(), self.generation(), self.generation()];
        keys.extend(charges.iter().map(|charge| self.meter(charge)));
        let mut rest = vec![Vec::new(); 7];
        charges.iter().for_each(|charge| rest.extend(arguments(charge, now)));
        Call { script: &WARN, keys, now: millis(now), expire, rest }
    }

    /// Gives back what nobody was told of.
    pub(super) fn give_back(&self, id: ReservationId, now: i64) -> Call {
        let keys = vec![self.generation(), self.due(), self.reservation(id)];
        Call { script: &CLOSE, keys, now, expire: 0, rest: vec![b"U".to_vec()] }
    }

    pub(super) fn extend(&self, id: ReservationId, until: Timestamp, now: i64, expire: usize) -> Call {
        let keys = vec![self.generation(), self.due(), self.reservation(id)];
        Call { script: &EXTEND, keys, now, expire, rest: vec![text(millis(until))] }
    }

    pub(super) fn find(&self, id: ReservationId, name: Option<&str>, now: i64, expire: usize) -> Call {
        let reservation = self.reservation(id);
        let name = name.map_or_else(|| reservation.clone(), |name| self.named(name));
        let keys = vec![self.generation(), self.due(), reservation, name];
        Call { script: &FIND, keys, now, expire, rest: Vec::new() }
    }

    pub(super) fn answered(&self, id: ReservationId, answer: &[u8]) -> Call {
        let keys = vec![self.generation(), self.due(), self.reservation(id), self.answer(id)];
        Call { script: &ANSWERED, keys, now: 0, expire: 0, rest: vec![answer.to_vec()] }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "they are numbers")]
fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// A charge as `lua/charges.lua` reads it: twelve arguments.
fn arguments(charge: &Charge, now: Timestamp) -> [Vec<u8>; 12] {
    let limit = &charge.limit;
    let release = limit.on_expiry == crate::meter::OnExpiry::Release;
    let warn_at: Vec<String> = limit.warn_at.iter().rev().map(u8::to_string).collect();
    let (kind, [first, second, third, fourth, fifth]) = measure(charge, now);
    [
        kind.as_bytes().to_vec(),
        texts::unit(limit.unit()).as_bytes().to_vec(),
        text(u8::from(release)),
        text(u8::from(limit.is_enforced())),
        text(charge.amount.get()),
        text(limit.cap_at(now).get()),
        warn_at.join(",").into_bytes(),
        first,
        second,
        third,
        fourth,
        fifth,
    ]
}

/// What a script needs to know of a measure. The window is the node's to compute: no script knows calendars.
fn measure(charge: &Charge, now: Timestamp) -> (&'static str, [Vec<u8>; 5]) {
    let none = Vec::new;
    match &charge.limit.measure {
        Measure::Budget { period: Period::Calendar { every, zone }, carry_over_percent, .. } => {
            let window = every.window(zone, now);
            let just_before = Timestamp::from_millis(window.start.as_millis().saturating_sub(1));
            let before: Amount = charge.limit.cap_at(just_before);
            let end = window.end.map_or_else(|| b"-".to_vec(), |end| text(end.as_millis()));
            let total = u8::from(*every == Every::Total);
            let carries = text(carry_over_percent.min(&100));
            ("B", [text(window.start.as_millis()), end, text(before.get()), carries, text(total)])
        }
        Measure::Budget { period: Period::Rolling(length), .. } => {
            ("W", [text(crate::meter::rolling::slice_ms(*length)), none(), none(), none(), none()])
        }
        Measure::Rate { unit, amount, every_ms } => {
            let certain = u8::from(*unit == Unit::Requests);
            ("R", [text(amount.get()), text(every_ms), text(certain), none(), none()])
        }
        Measure::Concurrency => ("P", [none(), none(), none(), none(), none()]),
    }
}
