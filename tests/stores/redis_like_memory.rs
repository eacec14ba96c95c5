//! The scripts and the ledger, asked the same: whatever happens, they answer alike.

use std::sync::Arc;

use jiff::tz::TimeZone;
use tollgate::edge::store::{Memory, Redis};
use tollgate::gate::Meters;
use tollgate::meter::{Charge, Hold, Limit, Measure, Mode, OnExpiry, Override, Usage};
use tollgate::model::{Amount, Every, Period, Timestamp, Unit};

use crate::redis_server::Server;
use crate::{NOON, amount, id, limit, wait};

/// A generator of numbers that a seed repeats (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }
}

fn calendar(unit: Unit, every: Every, zone: TimeZone, carry_over_percent: u8) -> Measure {
    Measure::Budget { unit, period: Period::Calendar { every, zone }, carry_over_percent }
}

fn rolling(length: i64) -> Measure {
    Measure::Budget { unit: Unit::Tokens, period: Period::Rolling(length), carry_over_percent: 0 }
}

fn rate(unit: Unit, per: u64, every_ms: u64) -> Measure {
    Measure::Rate { unit, amount: amount(per), every_ms }
}

/// Limits of every kind, with caps of about `scale`.
fn limits(scale: u64) -> Vec<Arc<Limit>> {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let with = |one: Arc<Limit>, change: fn(&mut Limit)| {
        let mut one = (*one).clone();
        change(&mut one);
        Arc::new(one)
    };
    let cap = |percent: u64| u64::try_from(u128::from(scale) * u128::from(percent) / 100).unwrap();
    vec![
        limit("day", calendar(Unit::Tokens, Every::Day, TimeZone::UTC, 0), cap(100)),
        with(limit("month", calendar(Unit::Usd, Every::Month(1), berlin.clone(), 0), cap(150)), |limit| {
            limit.warn_at = Box::new([50, 80, 100]);
        }),
        limit("carrying", calendar(Unit::InputTokens, Every::Hour, berlin, 37), cap(80)),
        with(limit("total", calendar(Unit::OutputTokens, Every::Total, TimeZone::UTC, 50), cap(100)), |limit| {
            limit.on_expiry = OnExpiry::Release;
        }),
        with(limit("rolling", rolling(3_600_000), cap(100)), |limit| limit.warn_at = Box::new([30, 90])),
        limit("narrow", rolling(90_000), cap(60)),
        limit("requests", rate(Unit::Requests, 60, 60_000), 20),
        limit("tokens", rate(Unit::Tokens, cap(30).max(1), 60_000), cap(90)),
        limit("swift", rate(Unit::InputTokens, cap(70).max(1), 86_400_000), cap(90)),
        limit("places", Measure::Concurrency, 4),
        with(limit("told", calendar(Unit::Tokens, Every::Day, TimeZone::UTC, 0), cap(50)), |limit| {
            limit.mode = Mode::Warn;
            limit.warn_at = Box::new([100]);
        }),
        with(
            limit(
                "overridden",
                calendar(Unit::Tokens, Every::Week(jiff::civil::Weekday::Monday), TimeZone::UTC, 10),
                cap(40),
            ),
            |limit| {
                let until = Timestamp::from_millis(NOON + 7_200_000);
                limit.overrides = Box::new([Override {
                    cap: Amount::new(limit.cap.get() * 2).unwrap_or(Amount::MAX),
                    flow: None,
                    from: None,
                    until,
                }]);
            },
        ),
    ]
}

struct World {
    memory: Memory,
    redis: Redis,
    limits: Vec<Arc<Limit>>,
    chance: Chance,
    scale: u64,
    now: i64,
    next: u128,
    step: u64,
}

impl World {
    fn amount(&mut self, limit: &Limit) -> u64 {
        match limit.unit() {
            Unit::Places => 1,
            Unit::Requests => self.chance.below(4),
            _ => match self.chance.below(12) {
                0 => 0,
                1 => self.scale / 2 + self.chance.below(self.scale / 2 + 1),
                _ => self.chance.below(self.scale / 9 + 2),
            },
        }
    }

    fn charges(&mut self) -> Vec<Charge> {
        let count = 1 + self.chance.below(5);
        let limits = self.limits.clone();
        let charge = |world: &mut Self| {
            let limit = Arc::clone(world.chance.of(&limits));
            let subject = world.chance.of(&[None, Some("User::\"a\""), Some("User::\"b %\n\"")]).map(Into::into);
            let amount = amount(world.amount(&limit));
            Charge { limit, subject, amount }
        };
        (0..count).map(|_| charge(self)).collect()
    }

    fn hold(&mut self) -> Hold {
        let number = if self.chance.below(25) == 0 { self.known() } else { self.next };
        self.next += 1;
        let mut hold = crate::hold(number, &self.charges());
        hold.most_open = Some(12);
        hold.ttl_ms = 1 + i64::try_from(self.chance.below(120_000)).unwrap();
        if self.chance.below(3) == 0 {
            hold.idempotency = Some((format!("key {}\n", self.chance.below(300)).into(), [7; 32]));
        }
        hold
    }

    fn known(&mut self) -> u128 {
        self.next.saturating_sub(1 + u128::from(self.chance.below(12)))
    }

    fn usage(&mut self) -> Usage {
        let most = self.scale / 8 + 2;
        Usage {
            requests: self.chance.below(3),
            input_tokens: self.chance.below(most),
            output_tokens: if self.chance.below(20) == 0 { Amount::MAX.get() } else { self.chance.below(most) },
            usd: (self.chance.below(8) > 0).then(|| amount(self.chance.below(most))),
            ..Usage::default()
        }
    }

    fn pass_time(&mut self) {
        let far = match self.chance.below(40) {
            0 => 90_000_000,
            1 => 40 * 86_400_000,
            2 => -3_600_000,
            3 => 3_600_000,
            4..8 => -500,
            8..20 => 30_000,
            _ => 1000,
        };
        let part = i64::try_from(self.chance.below(1000)).unwrap();
        self.now += far / 1000 * part;
        wait(self.memory.look(&[], Timestamp::from_millis(self.now))).unwrap();
        // A script lets fewer expire at once than memory does.
        for _ in 0..40 {
            wait(self.redis.look(&[], Timestamp::from_millis(self.now))).unwrap();
            if far.abs() < 1_000_000 {
                break;
            }
        }
    }

    fn step(&mut self) {
        self.step += 1;
        self.pass_time();
        let (now, number) = (Timestamp::from_millis(self.now), self.known());
        let (memory, redis, step) = (&self.memory, &self.redis, self.step);
        macro_rules! same {
            ($what:expr, $call:expr) => {{
                let call: &dyn Fn(&dyn Meters) -> _ = &$call;
                let (expected, found) = (call(memory), call(redis));
                assert_eq!(expected, found, "step {step} at {now}: {:?}", $what);
            }};
        }
        match self.chance.0 % 16 {
            0..6 => {
                let hold = self.hold();
                let (memory, redis) = (&self.memory, &self.redis);
                let (expected, found) = (wait(memory.hold(hold.clone(), now)), wait(redis.hold(hold.clone(), now)));
                assert_eq!(expected, found, "step {step} at {now}: hold {:?}", told(&hold.charges));
            }
            6 if self.chance.below(3) == 0 => {
                let found = wait(self.memory.reservation(id(number), now)).unwrap();
                let parts = found.map_or(0, |found| found.parts.len());
                let most = self.scale / 8 + 2;
                let charged: Vec<Amount> = (0..parts).map(|_| amount(self.chance.below(most))).collect();
                let (memory, redis) = (&self.memory, &self.redis);
                let (expected, found) = (
                    wait(memory.settle_unknown(id(number), &charged, now)),
                    wait(redis.settle_unknown(id(number), &charged, now)),
                );
                assert_eq!(expected, found, "step {step} at {now}: settle unknown {charged:?}");
            }
            6..9 => {
                let usage = self.usage();
                let (memory, redis) = (&self.memory, &self.redis);
                let (expected, found) =
                    (wait(memory.settle(id(number), usage, now)), wait(redis.settle(id(number), usage, now)));
                assert_eq!(expected, found, "step {step} at {now}: settle {usage:?}");
            }
            9 => same!("release", |store| wait(store.release(id(number), now))),
            10 => same!("extend", |store| wait(store.extend(id(number), 90_000, now))),
            11 => {
                let (hold, usage) = (self.hold(), self.usage());
                let (memory, redis) = (&self.memory, &self.redis);
                let (expected, found) =
                    (wait(memory.record(hold.clone(), usage, now)), wait(redis.record(hold.clone(), usage, now)));
                assert_eq!(expected, found, "step {step} at {now}: record {:?}", told(&hold.charges));
            }
            12 => same!("find", |store| wait(store.reservation(id(number), now))),
            13 => {
                let name = format!("key {}\n", self.next % 300);
                same!("named", |store| wait(store.named(&name, now)));
            }
            14 => {
                same!("answered", |store| wait(store.answered(id(number), Arc::from(*b"{\"a\":1}"))));
            }
            _ => {
                let charges = self.charges();
                let (memory, redis) = (&self.memory, &self.redis);
                assert_eq!(wait(memory.look(&charges, now)), wait(redis.look(&charges, now)), "step {step} at {now}");
                assert_eq!(wait(memory.warn(&charges, now)), wait(redis.warn(&charges, now)), "step {step} at {now}");
            }
        }
    }
}

fn told(charges: &[Charge]) -> Vec<(&str, u64)> {
    charges.iter().map(|charge| (charge.limit.id.as_str(), charge.amount.get())).collect()
}

#[test]
fn redis_answers_as_memory_does() {
    let Some(server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let steps = std::env::var("TOLLGATE_REDIS_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(1500);
    for (number, scale) in [(0, 1000), (1, 1 << 53), (2, 1 << 62), (3, 1_000_000_000_000), (4, i64::MAX as u64 / 3)] {
        let name = format!("scale{number}");
        let mut world = World {
            memory: Memory::default(),
            redis: server.store(&directory.path().join(&name), &name),
            limits: limits(scale.min(1 << 62)),
            chance: Chance(0x9E37_79B9_7F4A_7C15 + number),
            scale,
            now: NOON,
            next: 100,
            step: 0,
        };
        for _ in 0..steps {
            world.step();
        }
    }
}
