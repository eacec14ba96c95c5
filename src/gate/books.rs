//! The books: what was spent, by day, month, subject, model and limit. Pure; a store hands in its rows.
//!
//! Sums are of 128 bits, so that no number of rows overflows them. Of all groups only as many as a page has are kept at
//! a time, the first behind the one that the page before ended with; a group that fell out lies behind those that are
//! kept, so it never comes back with a part of its rows missing.

use std::collections::BTreeMap;

use jiff::Span;
use jiff::civil::Date;
use smol_str::SmolStr;

use super::ports::StoreError;
use crate::model::Unit;

/// Most groups of a page.
pub const MAX_LINES: usize = 1_000;

/// What was spent, kept day by day (in UTC). Reading it may take a while: for a thread that may wait.
pub trait Books: Send + Sync {
    /// Sums up.
    ///
    /// # Errors
    /// Where the books cannot be read.
    fn report(&self, wish: &BooksWish) -> Result<BooksPage, StoreError>;
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BooksWish {
    /// The first day, in days since 1970-01-01.
    pub from: i64,
    /// The last day.
    pub to: i64,
    /// Grouped by what.
    pub by: By,
    /// Only of this principal, as a uid.
    pub principal: Option<SmolStr>,
    /// Only of this resource, as a uid.
    pub resource: Option<SmolStr>,
    /// Only what this limit counted.
    pub limit: Option<SmolStr>,
    /// Only groups behind this one.
    pub after: Option<Group>,
    /// How many groups at most.
    pub most: usize,
}

impl BooksWish {
    /// Whether it asks what limits counted, not what was used.
    #[must_use]
    pub fn is_of_limits(&self) -> bool {
        self.by.limit || self.limit.is_some()
    }
}

/// What groups are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct By {
    /// A time.
    pub time: Option<TimeSpan>,
    /// Who.
    pub principal: bool,
    /// What was used.
    pub resource: bool,
    /// Which limit.
    pub limit: bool,
}

/// A span of time that groups are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSpan {
    /// A day.
    Day,
    /// A month.
    Month,
}

/// What the rows of a group have in common, in the order in which groups are told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Group {
    /// The day since 1970-01-01, or the month since the year 0.
    pub time: Option<i64>,
    /// Who, as a uid.
    pub principal: Option<SmolStr>,
    /// What was used, as a uid.
    pub resource: Option<SmolStr>,
    /// The limit's id.
    pub limit: Option<SmolStr>,
    /// What is counted: a limit may have counted something else once, which is not to be added.
    pub unit: Option<Unit>,
}

/// What a group comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// What calls used.
    Used {
        /// Requests.
        requests: i128,
        /// Input tokens.
        input_tokens: i128,
        /// Output tokens.
        output_tokens: i128,
        /// Nano-dollars.
        nano_usd: i128,
    },
    /// What a limit counted. Below zero where more was given back than charged: of what expired on an earlier day.
    Counted(i128),
}

impl Sum {
    fn add(&mut self, other: Self) {
        match (self, other) {
            (
                Self::Used { requests, input_tokens, output_tokens, nano_usd },
                Self::Used { requests: more, input_tokens: input, output_tokens: output, nano_usd: nanos },
            ) => {
                *requests = requests.saturating_add(more);
                *input_tokens = input_tokens.saturating_add(input);
                *output_tokens = output_tokens.saturating_add(output);
                *nano_usd = nano_usd.saturating_add(nanos);
            }
            (Self::Counted(sum), Self::Counted(more)) => *sum = sum.saturating_add(more),
            // INVARIANT: a report reads rows of one kind.
            _ => {}
        }
    }
}

/// A page of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BooksPage {
    /// The groups with what they come to, in their order.
    pub lines: Vec<(Group, Sum)>,
    /// Whether more follow.
    pub more: bool,
}

/// A row of the books.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The day since 1970-01-01.
    pub day: i64,
    /// Who, as a uid.
    pub principal: &'a str,
    /// What was used, as a uid.
    pub resource: &'a str,
    /// The limit and its unit, where the row is of one.
    pub limit: Option<(&'a str, Unit)>,
    /// How much.
    pub spent: Sum,
}

/// Sums up rows as they come.
#[derive(Debug)]
pub struct Collector<'w> {
    wish: &'w BooksWish,
    groups: BTreeMap<Group, Sum>,
    /// The month of a day: rows mostly come day by day.
    month: Option<(i64, i64)>,
}

impl<'w> Collector<'w> {
    /// For what is wished.
    #[must_use]
    pub fn new(wish: &'w BooksWish) -> Self {
        Self { wish, groups: BTreeMap::new(), month: None }
    }

    /// Takes in a row, if it is asked about.
    pub fn take(&mut self, row: &Row<'_>) {
        let wish = self.wish;
        let is = |wanted: &Option<SmolStr>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let limit = row.limit.map_or("", |(id, _)| id);
        let wanted = (wish.from..=wish.to).contains(&row.day)
            && is(&wish.principal, row.principal)
            && is(&wish.resource, row.resource)
            && is(&wish.limit, limit);
        if !wanted {
            return;
        }
        let group = self.group(row);
        if wish.after.as_ref().is_some_and(|after| group <= *after) {
            return;
        }
        if let Some(sum) = self.groups.get_mut(&group) {
            return sum.add(row.spent);
        }
        // One more than a page has tells whether there is another.
        if self.groups.len() > wish.most {
            if self.groups.last_key_value().is_some_and(|(last, _)| group > *last) {
                return;
            }
            self.groups.pop_last();
        }
        self.groups.insert(group, row.spent);
    }

    fn group(&mut self, row: &Row<'_>) -> Group {
        let by = self.wish.by;
        let time = by.time.map(|span| match span {
            TimeSpan::Day => row.day,
            TimeSpan::Month => self.month_of(row.day),
        });
        Group {
            time,
            principal: by.principal.then(|| row.principal.into()),
            resource: by.resource.then(|| row.resource.into()),
            limit: row.limit.filter(|_| by.limit).map(|(id, _)| id.into()),
            unit: row.limit.map(|(_, unit)| unit),
        }
    }

    fn month_of(&mut self, day: i64) -> i64 {
        match self.month {
            Some((known, month)) if known == day => month,
            _ => {
                let month = date_of(day).map_or(0, |date| i64::from(date.year()) * 12 + i64::from(date.month()) - 1);
                self.month = Some((day, month));
                month
            }
        }
    }

    /// The page.
    #[must_use]
    pub fn page(mut self) -> BooksPage {
        let more = self.groups.len() > self.wish.most;
        if more {
            self.groups.pop_last();
        }
        BooksPage { lines: self.groups.into_iter().collect(), more }
    }
}

fn date_of(day: i64) -> Option<Date> {
    Date::constant(1970, 1, 1).checked_add(Span::new().try_days(day).ok()?).ok()
}

impl TimeSpan {
    /// How the day or month of this number is written: `2026-11-03`, `2026-11`.
    #[must_use]
    pub fn name(self, number: i64) -> String {
        match self {
            Self::Day => date_of(number).map(|date| date.to_string()).unwrap_or_default(),
            Self::Month => format!("{:04}-{:02}", number.div_euclid(12), number.rem_euclid(12) + 1),
        }
    }
}

/// The number of the day that `text` writes as `2026-11-03`.
#[must_use]
pub fn day_of(text: &str) -> Option<i64> {
    let shaped = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let date: Date = shaped.then(|| text.parse().ok()).flatten()?;
    let since = date.since(Date::constant(1970, 1, 1)).ok()?;
    Some(i64::from(since.get_days()))
}

/// The number of the day on which the month of `day` begins.
#[must_use]
pub fn month_begins(day: i64) -> i64 {
    date_of(day).map_or(day, |date| day - i64::from(date.day()) + 1)
}
