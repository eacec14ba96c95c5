//! Periods: which window holds an instant, and when it ends, in any time zone.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

use super::facts::Timestamp;

const HOUR_MS: i64 = 3_600_000;

/// How often a calendar period begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Every {
    /// On the hour of the zone's clocks.
    Hour,
    /// At the first instant of a day.
    Day,
    /// On this weekday.
    Week(Weekday),
    /// On this day of the month, 1 to 31; the last one where a month is shorter.
    Month(i8),
    /// On the first of January, April, July and October.
    Quarter,
    /// On the first of January.
    Year,
    /// Never.
    Total,
}

/// Over what time a budget counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Period {
    /// From one edge of the calendar to the next.
    Calendar {
        /// The edges.
        every: Every,
        /// Whose clocks.
        zone: TimeZone,
    },
    /// The last so many milliseconds.
    Rolling(i64),
}

/// A span of time: from `start`, until just before `end`; without one, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Option<Timestamp>,
}

impl Window {
    /// All of time.
    pub const ALWAYS: Self = Self { start: Timestamp::from_millis(0), end: None };

    /// Whether `now` is before its end. A clock that was put back does not open an earlier window again.
    #[must_use]
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.end.is_none_or(|end| now < end)
    }
}

impl Every {
    /// The window that holds `now` by the clocks of `zone`. Instants that no calendar has (before the year -9999 or after
    /// 9999) are in one window before 1970, and in one without end.
    #[must_use]
    pub fn window(self, zone: &TimeZone, now: Timestamp) -> Window {
        let beyond = || match self {
            Self::Total => Window::ALWAYS,
            _ if now.as_millis() < 0 => {
                Window { start: Timestamp::from_millis(i64::MIN), end: Some(Timestamp::from_millis(0)) }
            }
            _ => Window { start: now, end: None },
        };
        self.find(zone, now).unwrap_or_else(beyond)
    }

    fn find(self, zone: &TimeZone, now: Timestamp) -> Option<Window> {
        let instant = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?;
        let local = instant.to_zoned(zone.clone());
        match self {
            Self::Total => return Some(Window::ALWAYS),
            Self::Hour => return hour(&local, now),
            _ => {}
        }
        let (first, next) = self.dates(local.date())?;
        let (start, end) = (begins(first, zone)?, begins(next, zone)?);
        if now < end {
            return Some(Window { start, end: Some(end) });
        }
        // Clocks went back over midnight and show a date again whose day is over.
        let (_, after) = self.dates(next)?;
        Some(Window { start: end, end: Some(begins(after, zone)?) })
    }

    /// The first date of the period that holds `date`, and of the next.
    fn dates(self, date: Date) -> Option<(Date, Date)> {
        Some(match self {
            Self::Total | Self::Hour | Self::Day => (date, date.tomorrow().ok()?),
            Self::Week(begins) => {
                let first = date.checked_sub(Span::new().days(date.weekday().since(begins))).ok()?;
                (first, first.checked_add(Span::new().days(7)).ok()?)
            }
            Self::Month(day) => {
                let this = in_month(date, day)?;
                let month = |by: i64| in_month(date.first_of_month().checked_add(Span::new().months(by)).ok()?, day);
                if date < this { (month(-1)?, this) } else { (this, month(1)?) }
            }
            Self::Quarter => {
                let first = Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1).ok()?;
                (first, first.checked_add(Span::new().months(3)).ok()?)
            }
            Self::Year => (date.first_of_year(), date.first_of_year().checked_add(Span::new().years(1)).ok()?),
        })
    }
}

/// The first instant of a day: not always midnight, where clocks jump over it.
fn begins(date: Date, zone: &TimeZone) -> Option<Timestamp> {
    Some(Timestamp::from_millis(date.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond()))
}

fn in_month(date: Date, day: i8) -> Option<Date> {
    Date::new(date.year(), date.month(), day.min(date.days_in_month())).ok()
}

/// Hours last an hour also where clocks show one twice; where they jump by less, the hour that is cut ends then.
fn hour(local: &Zoned, now: Timestamp) -> Option<Window> {
    let shifted = now.as_millis().checked_add(i64::from(local.offset().seconds()) * 1000)?;
    let start = now.as_millis() - shifted.rem_euclid(HOUR_MS);
    Some(Window {
        start: Timestamp::from_millis(start),
        end: Some(Timestamp::from_millis(start.checked_add(HOUR_MS)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(every: Every, zone: &str, now: &str, start: &str, end: &str) {
        let window = every.window(&TimeZone::get(zone).unwrap(), Timestamp::parse(now).unwrap());
        assert_eq!((window.start.to_string().as_str(), window.end.unwrap().to_string().as_str()), (start, end));
    }

    #[test]
    fn windows_begin_by_the_clocks_of_their_zone() {
        use Every::*;
        check(Month(1), "Europe/Berlin", "2026-11-15T12:00:00Z", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z");
        check(Month(31), "UTC", "2026-03-01T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z");
        check(Month(31), "UTC", "2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z", "2028-03-31T00:00:00Z");
        check(Month(15), "UTC", "2026-01-14T23:59:59Z", "2025-12-15T00:00:00Z", "2026-01-15T00:00:00Z");
        check(Week(Weekday::Monday), "UTC", "2026-11-22T12:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        check(Week(Weekday::Sunday), "UTC", "2026-11-22T12:00:00Z", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z");
        check(Quarter, "UTC", "2026-12-31T23:59:59Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check(Year, "UTC", "2028-02-29T00:00:00Z", "2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z");
    }

    #[test]
    fn days_are_as_long_as_the_clocks_make_them() {
        use Every::*;
        // Clocks jump over midnight: the day begins at one.
        check(Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
        check(Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        check(Hour, "Asia/Kolkata", "2026-01-01T00:45:00Z", "2026-01-01T00:30:00Z", "2026-01-01T01:30:00Z");
    }

    #[test]
    fn an_instant_is_in_its_window() {
        // Clocks went back over midnight, so that the evening of the sixth came twice.
        check(Every::Day, "America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
        for every in [Every::Hour, Every::Day, Every::Month(31), Every::Year] {
            for now in [i64::MIN, -377_705_116_800_001, 253_402_300_799_000, i64::MAX].map(Timestamp::from_millis) {
                let window = every.window(&TimeZone::UTC, now);
                assert!(window.start <= now && window.lasts(now), "{every:?} {now} {window:?}");
                let today = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
                assert!(now > today || !window.lasts(today), "{every:?} {now} {window:?}");
            }
        }
    }
}
