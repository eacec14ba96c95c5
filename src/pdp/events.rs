//! The `tracing` events of the service: loads of bundles, and limits that reached a threshold. The library installs no
//! subscriber; a program that wants these events installs its own.

use crate::meter::Alert;
use crate::policy::live::Live;
use crate::policy::problem::{Problem, Severity};

/// Most problems of one load that are logged one by one; `tollgate check` shows all.
const MAX_PROBLEMS: usize = 50;

/// A load succeeded or failed.
pub(crate) fn load(live: &Live) {
    let report = live.report();
    match (&report.failure, live.current()) {
        (Some(failure), current) => {
            problems(&failure.problems);
            let count = failure.problems.len();
            let revision = current.as_ref().map(|snapshot| &**snapshot.revision());
            let stays = match revision {
                Some(revision) => format!("revision {revision} stays in use"),
                None => "no bundle is in use yet".to_owned(),
            };
            tracing::error!(target: "tollgate::bundle", problems = count, revision, "the bundle does not load; {stays}");
        }
        (None, Some(snapshot)) => {
            problems(&report.warnings);
            let (revision, counts) = (&**snapshot.revision(), snapshot.counts());
            tracing::info!(
                target: "tollgate::bundle",
                revision,
                rules = counts.rules,
                forbids = counts.forbids,
                limits = counts.limits,
                users = counts.users,
                teams = counts.teams,
                models = counts.models,
                files = counts.files,
                "loaded revision {revision}",
            );
        }
        (None, None) => {}
    }
}

/// Each problem, an event each.
pub(crate) fn problems(problems: &[Problem]) {
    for problem in problems.iter().take(MAX_PROBLEMS) {
        let place = match (problem.file.is_empty(), problem.place.line) {
            (true, _) => None,
            (false, 0) => Some(problem.file.to_string()),
            (false, line) => Some(format!("{}:{line}:{}", problem.file, problem.place.column)),
        };
        let (message, code) = (problem.message.as_str(), problem.code.as_str());
        let (place, help) = (place.as_deref(), problem.help.as_deref());
        match problem.severity {
            Severity::Error => tracing::error!(target: "tollgate::bundle", code, place, help, "{message}"),
            Severity::Warning => tracing::warn!(target: "tollgate::bundle", code, place, help, "{message}"),
            Severity::Note => tracing::info!(target: "tollgate::bundle", code, place, help, "{message}"),
        }
    }
    if let Some(more) = problems.len().checked_sub(MAX_PROBLEMS).filter(|more| *more > 0) {
        tracing::warn!(target: "tollgate::bundle", more, "there are {more} more problems; `tollgate check` shows them");
    }
}

/// Notes on the span of the request which decision is being made, and by which revision.
pub(crate) fn decision(id: impl std::fmt::Display, revision: &str) {
    let span = tracing::Span::current();
    if !span.is_disabled() {
        tracing::record_all!(span, decision_id = %id, revision = revision);
    }
}

/// A limit has reached one of its `warn_at`.
pub(super) fn limit_reached(alert: &Alert) {
    let (limit, meter, unit) = (alert.limit.as_str(), alert.subject.as_deref(), alert.unit);
    let of_meter = meter.map(|meter| format!(" of {meter}")).unwrap_or_default();
    let (taken, cap) = (unit.show(alert.standing.taken()), unit.show(alert.standing.cap));
    tracing::warn!(
        target: "tollgate::limits",
        limit,
        meter,
        percent = alert.percent,
        taken = display(&taken),
        cap = display(&cap),
        unit = unit.as_str(),
        "limit {limit}{of_meter} has reached {} %: {taken} of {cap} {} used or held",
        alert.percent,
        unit.as_str(),
    );
}
