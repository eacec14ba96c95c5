//! Alerts of limits as events of a webhook.

use serde::Serialize;

use super::webhook::WebhookEvent;
use crate::edge::random;
use crate::gate::Notice;
use crate::model::hex;

#[derive(Serialize)]
struct Body<'a> {
    event: &'static str,
    /// Constant across the attempts to send the alert.
    id: String,
    limit: &'a str,
    meter: Option<&'a str>,
    percent: u8,
    unit: &'static str,
    amounts: Amounts,
    resets_at: Option<String>,
    at: String,
    revision: &'a str,
    node: &'a str,
}

#[derive(Serialize)]
struct Amounts {
    limit: String,
    used: String,
    held: String,
    remaining: String,
}

impl WebhookEvent for Notice {
    fn body(&self, node: &str) -> Vec<u8> {
        let (alert, standing) = (&self.alert, &self.alert.standing);
        let show = |amount| alert.unit.show(amount).to_string();
        let body = Body {
            event: "limit_warning",
            id: format!("a-{}", hex::encode(&random::bytes::<16>())),
            limit: &alert.limit,
            meter: alert.subject.as_deref(),
            percent: alert.percent,
            unit: alert.unit.as_str(),
            amounts: Amounts {
                limit: show(standing.cap),
                used: show(standing.used),
                held: show(standing.held),
                remaining: show(standing.remaining()),
            },
            resets_at: standing.resets_at.map(|at| at.to_string()),
            at: self.at.to_string(),
            revision: &self.revision,
            node,
        };
        // Texts and numbers always become JSON.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    fn log_failure(&self, reason: &str) {
        let (limit, percent) = (&self.alert.limit, self.alert.percent);
        tracing::warn!(
            target: "tollgate::alerts",
            limit = limit.as_str(),
            percent,
            "the alert that limit {limit} reached {percent} % was not taken: {reason}",
        );
    }
}
