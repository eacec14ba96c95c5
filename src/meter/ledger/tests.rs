use super::*;
use crate::meter::fixtures::*;
use crate::meter::{DEFAULT_TTL_MS, Limit, Mode, OnExpiry, Override};
use crate::model::Every;

const NOON: i64 = 1_795_348_800_000;

#[test]
fn what_is_held_is_settled_or_given_back() {
    let month = budget("month", Every::Month(1), 100);
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    ledger.hold(hold(1, vec![charge(&month, 60)]), now).unwrap();
    assert_eq!(ledger.hold(hold(2, vec![charge(&month, 41)]), now).unwrap_err().shortfalls.len(), 1);
    ledger.settle(id(1), used(50), now).unwrap();
    assert_eq!(stands(&ledger, &month, now), (50, 0));
    ledger.hold(hold(2, vec![charge(&month, 50)]), now).unwrap();
    ledger.release(id(2), now).unwrap();
    assert_eq!(stands(&ledger, &month, now), (50, 0));
}

#[test]
fn the_same_again_changes_nothing_and_another_amount_is_an_error() {
    let month = budget("month", Every::Month(1), 100);
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    ledger.hold(hold(1, vec![charge(&month, 60)]), now).unwrap();
    let first = ledger.settle(id(1), used(50), now).unwrap();
    assert_eq!(ledger.settle(id(1), used(50), now), Ok(first));
    assert_eq!(ledger.settle(id(1), used(51), now), Err(LedgerError::Closed(State::Settled(used(50)))));
    assert_eq!(ledger.release(id(1), now), Err(LedgerError::Closed(State::Settled(used(50)))));
    assert_eq!(ledger.settle(id(9), used(50), now), Err(LedgerError::Unknown));
}

#[test]
fn every_meter_is_held_or_none() {
    let (month, few) = (budget("month", Every::Month(1), 100), places("few", 1));
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    ledger.hold(hold(1, vec![charge(&month, 10), charge(&few, 1)]), now).unwrap();
    let refused = ledger.hold(hold(2, vec![charge(&month, 10), charge(&few, 1)]), now).unwrap_err();
    assert_eq!(refused.shortfalls[0].charge, 1);
    assert_eq!(stands(&ledger, &month, now), (0, 10));
}

#[test]
fn what_expired_is_charged_as_held_and_corrected_for_a_day() {
    let month = budget("month", Every::Month(1), 100);
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    ledger.hold(hold(1, vec![charge(&month, 60)]), now).unwrap();
    let later = ms(NOON + DEFAULT_TTL_MS);
    assert_eq!(ledger.expire(ms(NOON + DEFAULT_TTL_MS - 1), 10), 0);
    assert_eq!(ledger.expire(later, 10), 1);
    assert_eq!(stands(&ledger, &month, later), (60, 0));
    ledger.settle(id(1), used(10), later).unwrap();
    assert_eq!(stands(&ledger, &month, later), (10, 0));
    let day_after = ms(NOON + DEFAULT_TTL_MS + MEMORY_MS);
    assert_eq!(ledger.expire(day_after, 10), 1);
    assert_eq!(ledger.settle(id(1), used(10), day_after), Err(LedgerError::Unknown));
}

#[test]
fn what_was_held_in_a_period_is_charged_to_it() {
    let hour = budget("hour", Every::Hour, 100);
    let (mut ledger, now) = (Ledger::default(), at("2026-11-22T12:59:59.999Z"));
    ledger.hold(hold(1, vec![charge(&hour, 60)]), now).unwrap();
    let next = at("2026-11-22T13:00:00Z");
    ledger.hold(hold(2, vec![charge(&hour, 100)]), next).unwrap();
    ledger.settle(id(1), used(90), next).unwrap();
    assert_eq!(stands(&ledger, &hour, next), (0, 100));
}

#[test]
fn a_clock_put_back_opens_no_period_again() {
    let hour = budget("hour", Every::Hour, 100);
    let mut ledger = Ledger::default();
    ledger.hold(hold(1, vec![charge(&hour, 100)]), at("2026-11-22T13:00:00Z")).unwrap();
    let back = at("2026-11-22T12:00:00Z");
    let refused = ledger.hold(hold(2, vec![charge(&hour, 1)]), back).unwrap_err();
    assert_eq!(refused.shortfalls[0].lack.retry_at, Some(at("2026-11-22T14:00:00Z")));
}

#[test]
fn one_meter_twice_in_a_hold_counts_twice() {
    let month = budget("month", Every::Month(1), 100);
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    let refused = ledger.hold(hold(1, vec![charge(&month, 60), charge(&month, 60)]), now).unwrap_err();
    assert_eq!(refused.shortfalls.len(), 1);
    ledger.hold(hold(1, vec![charge(&month, 60), charge(&month, 40)]), now).unwrap();
    assert_eq!(stands(&ledger, &month, now), (0, 100));
}

#[test]
fn a_warning_is_told_once_a_period() {
    let hour = Limit { warn_at: Box::new([50, 80]), ..budget("hour", Every::Hour, 100) };
    let (mut ledger, now) = (Ledger::default(), at("2026-11-22T12:00:00Z"));
    let mut told = |number, tokens, now| {
        let held = ledger.hold(hold(number, vec![charge(&hour, tokens)]), now).unwrap();
        held.alerts.iter().map(|alert| alert.percent).collect::<Vec<_>>()
    };
    assert_eq!(told(1, 49, now), [0_u8; 0]);
    assert_eq!(told(2, 1, now), [50]);
    assert_eq!(told(3, 1, now), [0_u8; 0]);
    assert_eq!(told(4, 29, now), [80]);
    assert_eq!(told(5, 90, at("2026-11-22T13:00:00Z")), [80]);
}

#[test]
fn an_unknown_cost_is_told_before_what_is_beyond_counting() {
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    let tokens = budget("tokens", Every::Month(1), 100);
    let mut cost = budget("cost", Every::Month(1), 100);
    if let crate::meter::Measure::Budget { unit, .. } = &mut cost.measure {
        *unit = Unit::Usd;
    }
    let absurd = Usage { input_tokens: Amount::MAX.get(), output_tokens: 1, ..Usage::default() };
    for (number, limits) in [(1, [&tokens, &cost]), (2, [&cost, &tokens])] {
        ledger.hold(hold(number, limits.map(|limit| charge(limit, 1)).into()), now).unwrap();
        assert_eq!(ledger.settle(id(number), absurd, now), Err(LedgerError::CostUnknown));
    }
}

#[test]
fn what_is_beyond_counting_is_refused_and_leaves_no_trace() {
    let warned = |limit: Limit| Limit { mode: Mode::Warn, warn_at: Box::new([50]), ..limit };
    let day = warned(rolling("day", 86_400_000, 100));
    let month = warned(budget("month", Every::Month(1), 100));
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    ledger.record(hold(1, vec![charge(&month, Amount::MAX.get() - 5)]), used(1), now).unwrap();
    ledger.record(hold(2, vec![charge(&day, 1)]), used(1), now).unwrap();
    drop(ledger.take_changes());
    let before: Vec<_> = ledger.meters().map(|(key, meter)| (key.clone(), meter.clone())).collect();
    let both = || vec![charge(&day, 60), charge(&month, 6)];
    assert_eq!(ledger.record(hold(3, both()), used(1), now), Err(LedgerError::Overflow));
    assert!(ledger.hold(hold(3, both()), now).is_err());
    ledger.hold(hold(4, vec![charge(&month, 5)]), now).unwrap();
    assert_eq!(ledger.settle(id(4), used(6), now), Err(LedgerError::Overflow));
    ledger.release(id(4), now).unwrap();
    let after: Vec<_> = ledger.meters().map(|(key, meter)| (key.clone(), meter.clone())).collect();
    assert_eq!(after, before);
}

#[test]
fn of_two_reservations_with_one_key_the_last_keeps_it() {
    let mut ledger = Ledger::default();
    let keyed = |number| Hold { idempotency: Some(("key".into(), [number; 32])), ..hold(number, vec![]) };
    ledger.hold(keyed(1), ms(NOON)).unwrap();
    ledger.hold(keyed(2), ms(NOON)).unwrap();
    ledger.forget(id(1)).unwrap();
    assert_eq!(ledger.named("key").map(|found| found.id), Some(id(2)));
}

#[test]
fn a_reservation_that_is_taken_in_twice_is_due_once() {
    let month = budget("month", Every::Month(1), 100);
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    ledger.hold(hold(1, vec![charge(&month, 60)]), now).unwrap();
    let mut longer = ledger.reservation(id(1)).unwrap().clone();
    longer.due_at = ms(NOON + 2 * DEFAULT_TTL_MS);
    ledger.recall(longer);
    assert_eq!(ledger.expire(ms(NOON + DEFAULT_TTL_MS), 10), 0);
    assert_eq!(ledger.next_due(), Some(ms(NOON + 2 * DEFAULT_TTL_MS)));
}

#[test]
fn a_name_that_is_taken_holds_nothing() {
    let month = budget("month", Every::Month(1), 100);
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    ledger.hold(hold(1, vec![charge(&month, 60)]), now).unwrap();
    assert!(ledger.hold(hold(1, vec![charge(&month, 20)]), now).is_err());
    assert!(ledger.record(hold(1, vec![charge(&month, 20)]), used(1), now).is_err());
    ledger.release(id(1), now).unwrap();
    assert_eq!(stands(&ledger, &month, now), (0, 0));
}

#[test]
fn a_refused_hold_leaves_meters_as_a_store_has_them() {
    let hour = Limit { warn_at: Box::new([50]), ..carrying("hour", Every::Hour, 100, 50) };
    let (mut ledger, now) = (Ledger::default(), at("2026-11-22T12:00:00Z"));
    ledger.hold(hold(1, vec![charge(&hour, 10)]), now).unwrap();
    let stored = ledger.take_changes().meters;
    ledger.hold(hold(2, vec![charge(&hour, 900)]), at("2026-11-22T13:00:00Z")).unwrap_err();
    assert!(ledger.take_changes().is_empty());
    assert_eq!(ledger.meters().map(|(_, meter)| meter.clone()).collect::<Vec<_>>(), [stored[0].1.clone()]);
}

#[test]
fn what_is_settled_late_counts_though_nothing_was_charged() {
    let day = Limit { on_expiry: OnExpiry::Release, ..rolling("day", 86_400_000, 100) };
    let (mut ledger, now) = (Ledger::default(), ms(NOON));
    ledger.hold(hold(1, vec![charge(&day, 60)]), now).unwrap();
    let later = ms(NOON + DEFAULT_TTL_MS);
    ledger.expire(later, 10);
    assert_eq!(stands(&ledger, &day, later), (0, 0));
    let (_, meter) = ledger.meters().next().unwrap();
    assert!(!meter.is_blank(later), "a settle may still come");
    ledger.settle(id(1), used(70), ms(NOON + 2 * DEFAULT_TTL_MS)).unwrap();
    assert_eq!(stands(&ledger, &day, later), (70, 0));
}

#[test]
fn another_cap_is_carried_from_no_window_it_did_not_hold_in() {
    let until = Override { cap: amount(1000), flow: None, from: None, until: at("2026-01-10T00:00:00Z") };
    let month = Limit { overrides: Box::new([until]), ..carrying("month", Every::Day, 100, 50) };
    let mut ledger = Ledger::default();
    ledger.hold(hold(1, vec![charge(&month, 10)]), at("2026-01-05T00:00:00Z")).unwrap();
    let standing = |now| ledger.standings([&charge(&month, 0)], at(now))[0].cap.get();
    assert_eq!(standing("2026-01-06T00:00:00Z"), 1000 + 495);
    assert_eq!(standing("2026-01-12T00:00:00Z"), 100 + 50);
}
