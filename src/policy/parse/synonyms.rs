//! The keys that people write who know other products, and what they mean here.

/// What people write who know other products.
pub(super) fn synonym(key: &str, known: &[&str]) -> Option<&'static str> {
    let meant = match key {
        "rules" | "policies" | "permissions" => "authz_rules",
        "accounts" | "providers" => "provider_accounts",
        "groups" => "model_groups",
        "principals" | "people" => "users",
        "condition" | "conditions" | "if" => "when",
        "organizations" | "organisations" => "orgs",
        "expires" | "expiry" => "expires_at",
        "labels" | "annotations" => "metadata",
        _ => return synonym_in_limits(key).into_iter().flatten().copied().find(|meant| known.contains(meant)),
    };
    known.contains(&meant).then_some(meant)
}

/// What it may mean in a limit, a budget or a rate: the first that is known there.
fn synonym_in_limits(key: &str) -> Option<&'static [&'static str]> {
    Some(match key {
        "per" | "for_each" | "by" | "group_by" => &["each", "every"],
        "period" | "interval" | "window" | "reset" | "duration" | "frequency" => &["every"],
        "quota" | "spend" | "max_budget" | "cost" => &["budget", "usd"],
        "rate_limit" | "throttle" | "rpm" | "tpm" | "rps" => &["rate"],
        "max" | "cap" | "amount" | "limit" => &["usd", "requests"],
        "max_usd" | "dollars" | "money" | "usd_amount" => &["usd"],
        "max_tokens" | "total_tokens" => &["tokens"],
        "prompt_tokens" => &["input_tokens"],
        "completion_tokens" => &["output_tokens"],
        "calls" | "max_requests" => &["requests"],
        "parallel" | "concurrent" | "max_parallel_requests" | "max_concurrency" => &["concurrency"],
        "alert_at" | "alerts" | "thresholds" | "notify_at" | "warn" => &["warn_at"],
        "tz" | "zone" | "time_zone" => &["timezone"],
        "start" | "begins_on" | "reset_on" | "reset_day" => &["starts_on"],
        "sliding" | "last" => &["rolling"],
        "rollover" | "roll_over" => &["carry_over"],
        "all" | "everybody" | "anyone" => &["everyone"],
        "prompt" => &["input"],
        "completion" => &["output"],
        "cache_read" | "cached" => &["cached_input"],
        "per_request" => &["request"],
        "per_image" => &["image"],
        "over" | "threshold" | "context" => &["above"],
        "till" | "to" | "end" | "ends_at" | "expires_at" => &["until"],
        "begin" | "starts_at" | "since" => &["from"],
        _ => return None,
    })
}
