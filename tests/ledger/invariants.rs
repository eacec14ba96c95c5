//! What must hold whatever happens, each by its name.

use tollgate::Timestamp;
use tollgate::meter::{Charge, Ledger, Measure, Mode, Standing};
use tollgate::model::Period;

use crate::model::{Log, MOST, Stands, number};

/// What stands on a meter is what its list of all that happened comes to: held and settled are conserved, to the unit,
/// and nothing is ever below zero.
pub fn held_and_settled_are_conserved(found: &Standing, log: &Log, now: i64) {
    let found = Stands { cap: number(found.cap), used: number(found.used), held: number(found.held) };
    let told = log.stands(now);
    assert_eq!(found, told, "held and settled are conserved: {log:?}");
    assert!(told.used >= 0 && told.held >= 0 && told.used + told.held <= MOST, "no negative meter: {told:?}");
}

/// A grant leaves no meter over its cap.
pub fn never_over_cap(log: &Log, now: i64) {
    if log.limit.mode == Mode::Warn {
        return;
    }
    let Stands { cap, used, held } = log.stands(now);
    match log.limit.measure {
        Measure::Rate { .. } => assert!(log.level() + held * log.every() <= cap * log.every(), "never over cap"),
        _ => assert!(used + held <= cap, "never over cap: {used} used, {held} held of {cap}"),
    }
}

/// A budget is over the caps that it was granted under only by what calls used beyond what they had held.
pub fn over_cap_only_by_overrun(log: &Log) {
    if !log.windows.is_empty() {
        let taken = log.used() + log.held();
        assert!(taken <= log.peak + log.excess, "over by more than overrun: {taken}, {} + {}", log.peak, log.excess);
    }
}

/// In any while of T ms, no more than burst + amount · T / every came through a rate, after corrections.
pub fn rate_is_bound(log: &Log, now: i64) {
    if log.limit.mode == Mode::Warn || log.flows.is_empty() {
        return;
    }
    let held = log.held();
    for first in &log.items {
        // What is held under an uncertain rate came yet nowhere.
        let counted = |item: &&crate::model::Item| item.at >= first.at;
        let through = |item: &crate::model::Item| if item.held > 0 { item.held } else { item.charged.min(item.asked) };
        let settled = |item: &crate::model::Item| if log.is_certain() || item.held == 0 { through(item) } else { 0 };
        let came: i128 = log.items.iter().filter(counted).map(settled).sum();
        let most = log.cap(now) * log.every() + log.flown(first.at, log.clock);
        assert!((came + held) * log.every() <= most, "rate is bound: {came} + {held} since {}", first.at);
    }
}

/// In the window's length before a grant, no more than the cap was settled or is held.
pub fn rolling_is_bound(log: &Log, now: i64) {
    let Measure::Budget { period: Period::Rolling(length), .. } = log.limit.measure else { return };
    if log.limit.mode == Mode::Warn {
        return;
    }
    let recent = |at: i64| at > log.clock - length;
    let charged = log.items.iter().map(|item| (item.at, item.charged));
    let late = log.items.iter().filter_map(|item| item.late);
    let settled: i128 = charged.chain(late).filter(|(at, _)| recent(*at)).map(|(_, amount)| amount).sum();
    assert!(settled + log.held() <= log.cap(now), "rolling is bound: {settled}");
}

/// What is used of a period counts until its last millisecond, and not from its end.
pub fn resets_at_the_edge(ledger: &Ledger, charge: &Charge, now: i64) {
    let at = |millis| ledger.standings([charge], Timestamp::from_millis(millis))[0];
    let standing = at(now);
    let Measure::Budget { period: Period::Calendar { .. }, .. } = charge.limit.measure else { return };
    let Some(end) = standing.resets_at.map(Timestamp::as_millis) else { return };
    let before = at(now.max(end - 1));
    assert_eq!((before.used, before.held), (standing.used, standing.held), "resets at the edge, not before");
    let after = at(end);
    assert!(after.used.is_zero() && after.held.is_zero(), "resets at the edge: {after:?}");
}
