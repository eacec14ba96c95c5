//! Windows by what they are: all instants of one have the same label, and the instants beside it have others.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use tollgate::Timestamp;
use tollgate::model::Every;

use crate::tape::Tape;
use crate::world::INSTANTS;

/// What the clocks of `zone` show of a period: which hour, day, week, month and so on it is.
fn label(every: Every, zone: &TimeZone, millis: i64) -> (i64, i64) {
    let local = jiff::Timestamp::from_millisecond(millis).unwrap().to_zoned(zone.clone());
    let date = local.date();
    let (year, month) = (i64::from(date.year()), i64::from(date.month()));
    let days = date.duration_since(jiff::civil::date(1, 1, 1)).as_hours() / 24;
    match every {
        // An hour that comes twice is two; where clocks change in the midst of one, it lasts an hour all the same.
        Every::Hour => {
            let minutes = i64::from(local.offset().seconds().rem_euclid(3600));
            ((millis + minutes * 1000).div_euclid(3_600_000), 0)
        }
        Every::Day => (days, 0),
        // The first of January of the year one was a Monday.
        Every::Week(begins) => ((days - i64::from(begins.to_monday_zero_offset())).div_euclid(7), 0),
        Every::Month(day) => {
            let begun = date.day() >= day.min(date.days_in_month());
            (year * 12 + month - i64::from(!begun), 0)
        }
        Every::Quarter => (year * 4 + (month - 1) / 3, 0),
        Every::Year => (year, 0),
        Every::Total => (0, 0),
    }
}

const PERIODS: &[Every] = &[
    Every::Hour,
    Every::Day,
    Every::Week(Weekday::Monday),
    Every::Week(Weekday::Thursday),
    Every::Month(1),
    Every::Month(15),
    Every::Month(29),
    Every::Month(30),
    Every::Month(31),
    Every::Quarter,
    Every::Year,
];

/// Whole hours are cut where clocks change by less than one: that is another test's.
const WHOLE: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Beirut",
    "America/Nuuk",
    "Pacific/Chatham",
];

pub fn check(tape: &mut Tape) {
    let near = Timestamp::parse(tape.pick::<&str>(INSTANTS)).unwrap().as_millis();
    let reach = *tape.pick(&[3_600_000, 86_400_000, 40_000_000_000_usize]);
    let now = near + tape.below(reach) as i64 - (reach / 2) as i64;
    let (every, zone_name) = (*tape.pick(PERIODS), *tape.pick(WHOLE));
    let zone = TimeZone::get(zone_name).unwrap();
    let window = every.window(&zone, Timestamp::from_millis(now));
    let (start, end) = (window.start.as_millis(), window.end.unwrap().as_millis());
    let told = format!("{every:?} in {zone_name} at {}: {} to {end}", Timestamp::from_millis(now), window.start);
    assert!(start <= now && now < end, "{told}");
    let here = label(every, &zone, now);
    for inside in [start, end - 1, start + (end - start) / 2, start + tape.below((end - start) as usize) as i64] {
        assert_eq!(label(every, &zone, inside), here, "{told}, {}", Timestamp::from_millis(inside));
        let same = every.window(&zone, Timestamp::from_millis(inside));
        assert_eq!(same, window, "{told}, {}", Timestamp::from_millis(inside));
    }
    assert_ne!(label(every, &zone, start - 1), here, "{told}");
    assert_ne!(label(every, &zone, end), here, "{told}");
}
