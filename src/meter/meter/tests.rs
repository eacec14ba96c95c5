use super::*;
use crate::meter::fixtures::*;
use crate::model::Every;

#[test]
fn a_rate_lets_its_burst_through_at_once_and_then_flows() {
    let limit = rate("rpm", Unit::Requests, (60, 60_000), 10);
    let mut meter = Meter::new(&limit, ms(0));
    for _ in 0..10 {
        assert_eq!(meter.room(&limit, Amount::ONE, ms(0)), Ok(()));
        meter.hold(Amount::ONE).unwrap();
    }
    assert_eq!(meter.room(&limit, Amount::ONE, ms(0)), Err(Lack { retry_at: Some(ms(1000)) }));
    meter.advance(&limit, ms(999));
    assert!(meter.room(&limit, Amount::ONE, ms(999)).is_err());
    meter.advance(&limit, ms(1000));
    assert_eq!(meter.room(&limit, Amount::ONE, ms(1000)), Ok(()));
}

#[test]
fn of_what_has_flown_out_nothing_is_given_back() {
    let limit = rate("rpm", Unit::Requests, (1, 1000), 10);
    let mut meter = Meter::new(&limit, ms(0));
    let mark = meter.hold(amount(10)).unwrap();
    meter.advance(&limit, ms(4000));
    let other = meter.hold(amount(4)).unwrap();
    assert_eq!(other, 4000);
    meter.close(mark, amount(10), Amount::ZERO, ms(4000));
    assert_eq!(meter.standing(&limit, ms(4000)).used, amount(4));
}

#[test]
fn across_a_change_of_the_rate_nothing_is_given_back() {
    let fast = rate("rpm", Unit::Requests, (10, 1000), 10);
    let slow = rate("rpm", Unit::Requests, (1, 1000), 10);
    let mut meter = Meter::new(&fast, ms(0));
    let mark = meter.hold(amount(10)).unwrap();
    // All of it has flown out when others come, and only then the rate changes.
    meter.advance(&fast, ms(1000));
    meter.hold(amount(10)).unwrap();
    meter.advance(&slow, ms(1000));
    meter.close(mark, amount(10), Amount::ZERO, ms(1000));
    assert_eq!(meter.standing(&slow, ms(1000)).used, amount(10));
}

#[test]
fn a_rate_that_became_slower_flows_slowly_since_it_was_last_seen() {
    let fast = rate("rpm", Unit::Requests, (10, 1000), 10);
    let slow = rate("rpm", Unit::Requests, (1, 1000), 10);
    let mut meter = Meter::new(&fast, ms(0));
    meter.hold(amount(10)).unwrap();
    meter.advance(&slow, ms(1000));
    assert_eq!(meter.standing(&slow, ms(1000)).used, amount(9));
}

#[test]
fn a_full_rate_that_became_faster_has_room_as_soon_as_that_gives() {
    let slow = rate("rpm", Unit::Requests, (1, 86_400_000), 10);
    let fast = rate("rpm", Unit::Requests, (10, 1000), 10);
    let mut meter = Meter::new(&slow, ms(0));
    meter.hold(amount(10)).unwrap();
    // Refused holds leave it as it is, so it has to flow faster without them.
    for (now, room) in [(99, false), (100, true)] {
        let mut meter = meter.clone();
        meter.advance(&fast, ms(now));
        assert_eq!(meter.room(&fast, Amount::ONE, ms(now)).is_ok(), room);
    }
}

#[test]
fn other_numbers_of_a_rate_keep_what_is_in_it() {
    let before = rate("tpm", Unit::Tokens, (1, u64::MAX), Amount::MAX.get());
    let after = rate("tpm", Unit::Tokens, (1, u64::MAX - 1), Amount::MAX.get());
    let mut meter = Meter::new(&before, ms(0));
    let mark = meter.hold(Amount::MAX).unwrap();
    meter.close(mark, Amount::MAX, Amount::MAX, ms(0));
    meter.advance(&after, ms(0));
    assert_eq!(meter.standing(&after, ms(0)).used, Amount::MAX);
}

#[test]
fn a_rolling_window_forgets_at_most_a_slice_late() {
    let limit = rolling("hour", 64_000, 10);
    let mut meter = Meter::new(&limit, ms(500));
    let mark = meter.hold(amount(10)).unwrap();
    meter.close(mark, amount(10), amount(10), ms(500));
    assert_eq!(meter.room(&limit, Amount::ONE, ms(500)), Err(Lack { retry_at: Some(ms(65_000)) }));
    meter.advance(&limit, ms(64_999));
    assert_eq!(meter.standing(&limit, ms(64_999)).used, amount(10));
    meter.advance(&limit, ms(65_000));
    assert_eq!(meter.standing(&limit, ms(65_000)).used, Amount::ZERO);
}

#[test]
fn what_a_rolling_window_gave_back_does_not_reset() {
    let limit = rolling("hour", 64_000, 10);
    let mut meter = Meter::new(&limit, ms(0));
    let mark = meter.hold(amount(10)).unwrap();
    let mark = meter.close(mark, amount(10), amount(10), ms(0));
    meter.recharge(mark, amount(10), Amount::ZERO, ms(0));
    assert_eq!(meter.standing(&limit, ms(0)).resets_at, None);
}

#[test]
fn no_instant_is_too_far() {
    for length in [i64::MIN, 0, 1, 64, i64::MAX] {
        let limit = rolling("any", length, 10);
        for now in [i64::MIN, -1, 0, i64::MAX] {
            let mut meter = Meter::new(&limit, ms(now));
            let mark = meter.hold(amount(10)).unwrap();
            let mark = meter.close(mark, amount(10), amount(10), ms(now));
            meter.advance(&limit, ms(now));
            assert_eq!(meter.standing(&limit, ms(now)).used, amount(10), "{length} {now}");
            meter.recharge(mark, amount(10), amount(3), ms(now));
            assert_eq!(meter.standing(&limit, ms(now)).used, amount(3), "{length} {now}");
            assert!(meter.room(&limit, amount(8), ms(now)).is_err());
        }
    }
}

#[test]
fn a_carried_share_is_used_first_and_carried_once() {
    let day = carrying("day", Every::Day, 100, 50);
    let mut meter = Meter::new(&day, at("2026-01-01T00:00:00Z"));
    let cap = |meter: &mut Meter, now| {
        meter.advance(&day, at(now));
        meter.standing(&day, at(now)).cap.get()
    };
    meter.hold(amount(20)).unwrap();
    assert_eq!(cap(&mut meter, "2026-01-02T00:00:00Z"), 140);
    meter.hold(amount(40)).unwrap();
    assert_eq!(cap(&mut meter, "2026-01-03T00:00:00Z"), 150);
    meter.hold(amount(150)).unwrap();
    assert_eq!(cap(&mut meter, "2026-01-04T00:00:00Z"), 100);
    assert_eq!(cap(&mut meter, "2026-02-01T00:00:00Z"), 150);
}
