//! The scripts, each made of the parts that it needs, and what is handed to them.

use std::sync::LazyLock;

use ::redis::{Cmd, Script};

use super::values::{self, MostOpen, Writer};
use crate::meter::{Charge, DEFAULT_MOST_OPEN, Hold, ReservationId, Usage};
use crate::model::{Amount, EntityUid, Timestamp};

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
pub(super) static LOSE: Source = script!("lose");
pub(super) static LOOK: Source = script!("quick/look", "number", "meters", "epochs", "book", "look");
pub(super) static HOLD: Source = script!("quick/hold", "number", "meters", "epochs", "book", "charges", "hold");
pub(super) static CLOSE: Source = script!("quick/close", "number", "meters", "epochs", "book", "close");
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

/// How many keys come first in every script.
const FIRST_KEYS: usize = 3;

/// The command for a call, or for holds that are asked together (at the same instant); by the script's digest or with its
/// text.
pub(super) fn command(calls: &[&Call], whole: bool, seen: (&str, u64)) -> Cmd {
    let Some(first) = calls.first() else { return Cmd::new() };
    let others = calls.get(1..).unwrap_or_default();
    let keys = || first.keys.iter().chain(others.iter().flat_map(|call| call.keys.iter().skip(FIRST_KEYS)));
    let texts = || calls.iter().flat_map(|call| &call.rest);
    let size: usize = keys().map(String::len).chain(texts().map(Vec::len)).sum();
    let count = keys().count();
    let mut command = Cmd::with_capacity(8 + count + texts().count(), 256 + size);
    command.arg(if whole { "EVAL" } else { "EVALSHA" });
    command.arg(if whole { first.script.text } else { first.script.script.get_hash() }).arg(count);
    for key in keys() {
        command.arg(key);
    }
    let (epoch, sequence) = seen;
    let mut head = Writer::default();
    head.text(epoch).number(sequence).signed(first.now).count(first.expire);
    command.arg(head.take());
    for text in texts() {
        command.arg(text);
    }
    command
}

/// Names of keys: all in one slot of a cluster, by the hash tag in the prefix.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) prefix: String,
    due: String,
    later: String,
    generation: String,
}

impl Keys {
    pub(super) fn new(tag: &str) -> Self {
        let named = |name: &str| format!("{{{tag}}}:{name}");
        Self { prefix: named(""), due: named("due"), later: named("later"), generation: named("generation") }
    }

    pub(super) fn generation(&self) -> &str {
        &self.generation
    }

    pub(super) fn epochs(&self) -> String {
        format!("{}epochs", self.prefix)
    }

    /// The keys of every script, and room for `more` of them.
    fn with(&self, more: usize) -> Vec<String> {
        let mut keys = Vec::with_capacity(3 + more);
        keys.extend([self.due.clone(), self.later.clone(), self.generation.clone()]);
        keys
    }

    fn reservation(&self, id: ReservationId) -> String {
        format!("{}r:{id}", self.prefix)
    }

    fn answer(&self, id: ReservationId) -> String {
        format!("{}a:{id}", self.prefix)
    }

    fn named(&self, name: &str) -> String {
        format!("{}k:{}", self.prefix, values::escaped(name))
    }

    /// How many reservations of a principal are open.
    fn open_of(&self, principal: &EntityUid) -> String {
        format!("{}o:{principal}", self.prefix)
    }

    fn meter(&self, charge: &Charge) -> String {
        let mut key = String::with_capacity(self.prefix.len() + 64);
        key.push_str(&self.prefix);
        values::push_meter(&mut key, charge);
        key
    }

    pub(super) fn look(&self, charges: &[Charge], now: i64, expire: usize) -> Call {
        let mut keys = self.with(charges.len());
        keys.extend(charges.iter().map(|charge| self.meter(charge)));
        Call { script: &LOOK, keys, now, expire, rest: Vec::new() }
    }

    /// Holds; or, where it is said what was used, charges at once.
    pub(super) fn hold(&self, hold: &Hold, used: Option<&Usage>, at: (Timestamp, Timestamp), expire: usize) -> Call {
        let (now, due) = (millis(at.0), millis(at.1));
        let mut keys = self.with(2 + hold.charges.len());
        keys.push(self.reservation(hold.id));
        keys.extend(hold.charges.iter().map(|charge| self.meter(charge)));
        let (head, tail) = values::reserving(hold, used, keys.get(4..).unwrap_or_default(), (now, due));
        keys.extend(hold.idempotency.as_ref().map(|(name, _)| self.named(name)));
        let most_open = hold.most_open.filter(|_| used.is_none());
        keys.extend(most_open.map(|_| self.open_of(&hold.spending.principal)));
        let flags = if used.is_some() { 0 } else { values::flags(hold) };
        let most = MostOpen { in_all: DEFAULT_MOST_OPEN, of_principal: most_open };
        let charges = values::charges(&hold.charges, flags, most, at.0);
        let rest = vec![charges, head, tail];
        Call { script: &HOLD, keys, now, expire, rest }
    }

    /// Settles, or gives back where nothing was used.
    pub(super) fn close(&self, id: ReservationId, used: Option<&Usage>, now: i64, expire: usize) -> Call {
        let mut keys = self.with(1);
        keys.push(self.reservation(id));
        Call { script: &CLOSE, keys, now, expire, rest: vec![values::closing("R", used)] }
    }

    /// Settles a reservation whose usage is unknown: each part is charged the given amount.
    pub(super) fn close_unknown(&self, id: ReservationId, charged: &[Amount], now: i64, expire: usize) -> Call {
        let mut keys = self.with(1);
        keys.push(self.reservation(id));
        Call { script: &CLOSE, keys, now, expire, rest: vec![values::closing_unknown(charged)] }
    }

    /// Tells which percents were reached. A key that only a hold has is the generation's again.
    pub(super) fn warn(&self, charges: &[Charge], now: Timestamp, expire: usize) -> Call {
        let mut keys = self.with(1 + charges.len());
        keys.push(self.generation.clone());
        keys.extend(charges.iter().map(|charge| self.meter(charge)));
        let most = MostOpen { in_all: DEFAULT_MOST_OPEN, of_principal: None };
        let rest = vec![values::charges(charges, 0, most, now)];
        Call { script: &WARN, keys, now: millis(now), expire, rest }
    }

    /// Gives back what nobody was told of.
    pub(super) fn give_back(&self, id: ReservationId, now: i64) -> Call {
        let mut keys = self.with(1);
        keys.push(self.reservation(id));
        Call { script: &CLOSE, keys, now, expire: 0, rest: vec![values::closing("U", None)] }
    }

    pub(super) fn extend(&self, id: ReservationId, until: Timestamp, now: i64, expire: usize) -> Call {
        let mut keys = self.with(1);
        keys.push(self.reservation(id));
        Call { script: &EXTEND, keys, now, expire, rest: vec![millis(until).to_string().into_bytes()] }
    }

    pub(super) fn find(&self, id: ReservationId, name: Option<&str>, now: i64, expire: usize) -> Call {
        let mut keys = self.with(2);
        keys.push(self.reservation(id));
        keys.extend(name.map(|name| self.named(name)));
        Call { script: &FIND, keys, now, expire, rest: Vec::new() }
    }

    pub(super) fn answered(&self, id: ReservationId, answer: &[u8]) -> Call {
        let mut keys = self.with(2);
        keys.extend([self.reservation(id), self.answer(id)]);
        Call { script: &ANSWERED, keys, now: 0, expire: 0, rest: vec![answer.to_vec()] }
    }
}
