//! `GET /usage`: what was spent, by day, month, subject, model and limit.

use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use smol_str::SmolStr;

use super::app::App;
use super::body::json;
use super::errors::{ApiError, ErrorCode, Response};
use super::query::{Part, Query, cursor, read_cursor};
use super::run::run_blocking_with;
use crate::model::Unit;
use crate::pdp::{BooksWish, By, Group, MAX_LINES, Sum, TimeSpan, day_of, month_begins};

const PARAMETERS: [&str; 8] = ["from", "to", "by", "principal", "resource", "limit", "page_size", "after"];
const DAY_MS: i64 = 86_400_000;

/// What was spent.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Books")]
pub(super) struct Told {
    #[schemars(extend("format" = "date"))]
    from: String,
    #[schemars(extend("format" = "date"))]
    to: String,
    #[schemars(with = "Vec<super::answers::UsageGroup>")]
    by: Vec<&'static str>,
    #[schemars(with = "Vec<super::answers::UsageLine>")]
    usage: Vec<Line>,
    /// The `after` of the next page.
    next: Option<String>,
}

#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    month: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<SmolStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<SmolStr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<SmolStr>,
    #[serde(flatten)]
    amounts: Amounts,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Amounts {
    Used { requests: String, input_tokens: String, output_tokens: String, usd: String },
    Counted { unit: &'static str, amount: String },
}

/// A group as a cursor has it: its time, principal, resource, limit and unit.
type GroupParts = (Option<i64>, Part, Part, Part, Part);

/// Answers about one page.
pub(super) async fn answer(app: &Arc<App>, query: Option<&str>) -> Result<Response, ApiError> {
    let query = Query::read(query, &PARAMETERS)?;
    let wish = wish(&query, app.pdp().facts().now.as_millis().div_euclid(DAY_MS))?;
    let reports = app.pdp().usage()?;
    // One at a time: the others wait for the permit, and not on a thread each.
    let told = run_blocking_with(app, &app.reading_books, move |_| {
        let page = reports.page(&wish)?;
        let next = page.lines.last().filter(|_| page.more).map(|(group, _)| cursor(&parts(group)));
        let usage = page.lines.into_iter().map(|(group, sum)| line(wish.by, group, sum)).collect();
        let (from, to) = (TimeSpan::Day.name(wish.from), TimeSpan::Day.name(wish.to));
        Ok::<_, ApiError>(Told { from, to, by: names(wish.by), usage, next })
    });
    Ok(json(StatusCode::OK, &told.await??))
}

fn wish(query: &Query, today: i64) -> Result<BooksWish, ApiError> {
    let day = |name: &'static str| {
        let wrong = || ApiError::invalid(name, "a day is written as 2026-11-30");
        query.get(name).map(|text| day_of(text).ok_or_else(wrong)).transpose()
    };
    let to = day("to")?.unwrap_or(today);
    let from = day("from")?.unwrap_or_else(|| month_begins(to));
    if from > to {
        return Err(ApiError::invalid("from", "`from` must not be behind `to`"));
    }
    if let Some(kind) = query.uid("principal")?.map(|uid| uid.kind().to_owned())
        && !matches!(&*kind, "User" | "Service")
    {
        let message = format!(
            "spending is recorded by User and Service, and not by {kind}: ask about each of its members, or see its \
             limits in GET /limits"
        );
        return Err(ApiError { param: "principal".to_owned(), ..ApiError::new(ErrorCode::NotSupported, message) });
    }
    let uid = |name| Ok::<_, ApiError>(query.uid(name)?.map(|uid| SmolStr::from(uid.to_string())));
    let after = query.get("after").map(read_cursor::<GroupParts>).transpose()?.map(group).transpose()?;
    Ok(BooksWish {
        from,
        to,
        by: by(query.get("by").unwrap_or_default())?,
        principal: uid("principal")?,
        resource: uid("resource")?,
        limit: query.get("limit").map(SmolStr::new),
        after,
        most: query.page_size(MAX_LINES)?,
    })
}

fn by(text: &str) -> Result<By, ApiError> {
    let mut by = By::default();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let twice = match word {
            "day" => by.time.replace(TimeSpan::Day).is_some(),
            "month" => by.time.replace(TimeSpan::Month).is_some(),
            "subject" => std::mem::replace(&mut by.principal, true),
            "model" => std::mem::replace(&mut by.resource, true),
            "limit" => std::mem::replace(&mut by.limit, true),
            _ => return Err(ApiError::invalid("by", "`by` is a list of day or month, subject, model and limit")),
        };
        if twice {
            return Err(ApiError::invalid("by", "`by` names each once, and of day and month one"));
        }
    }
    Ok(by)
}

fn names(by: By) -> Vec<&'static str> {
    let time = by.time.map(|time| if time == TimeSpan::Day { "day" } else { "month" });
    let others = [(by.principal, "subject"), (by.resource, "model"), (by.limit, "limit")];
    time.into_iter().chain(others.into_iter().filter(|(named, _)| *named).map(|(_, name)| name)).collect()
}

fn parts(group: &Group) -> GroupParts {
    let Group { time, principal, resource, limit, unit } = group.clone();
    (time, principal, resource, limit, unit.map(|unit| unit.as_str().into()))
}

fn group(parts: GroupParts) -> Result<Group, ApiError> {
    let (time, principal, resource, limit, unit) = parts;
    let unknown = || ApiError::invalid("after", "it is not what `next` of the page before said");
    let unit = unit.map(|unit| Unit::named(&unit).ok_or_else(unknown)).transpose()?;
    Ok(Group { time, principal, resource, limit, unit })
}

fn line(by: By, group: Group, sum: Sum) -> Line {
    let unit = group.unit.unwrap_or(Unit::Requests);
    let amounts = match sum {
        Sum::Used { requests, input_tokens, output_tokens, nano_usd } => Amounts::Used {
            requests: requests.to_string(),
            input_tokens: input_tokens.to_string(),
            output_tokens: output_tokens.to_string(),
            usd: Unit::Usd.show_sum(nano_usd),
        },
        Sum::Counted(amount) => Amounts::Counted { unit: unit.as_str(), amount: unit.show_sum(amount) },
    };
    let name = |span| by.time.filter(|time| *time == span).zip(group.time).map(|(time, number)| time.name(number));
    let (day, month) = (name(TimeSpan::Day), name(TimeSpan::Month));
    let Group { principal, resource, limit, .. } = group;
    Line { day, month, principal, resource, limit, amounts }
}
