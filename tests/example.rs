//! The worked example in `policies/`: what its comments promise is what is decided.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

use serde_json::{Value, json};
use tollgate::model::{Amount, Budget, EntityUid, LimitFacts, Unit};
use tollgate::{Engine, Facts, Request, Timestamp};

/// One request and what must come of it: the code, and the rules that made it so.
struct Case {
    ask: [&'static str; 3],
    context: Value,
    facts: Facts,
    expect: (&'static str, &'static [&'static str]),
}

fn at(hour: &str) -> Facts {
    Facts::at(Timestamp::parse(&format!("2026-03-02T{hour}:00:00Z")).unwrap())
}

fn spent(used_percent: i64) -> Facts {
    Facts { budget: Budget { used_percent, remaining_micros: 1_000_000 }, ..at("10") }
}

/// What of the limit `research-month` is used.
fn of_the_month(percent: u64) -> Facts {
    let usd = |usd: u64| Amount::from_usd(&usd.to_string()).unwrap();
    let limit = LimitFacts::of(Unit::Usd, usd(100), usd(percent), Amount::ZERO);
    Facts { limits: [("research-month".into(), limit)].into(), ..at("10") }
}

fn uid(text: &str) -> EntityUid {
    text.parse().unwrap()
}

#[test]
fn the_example_decides_as_it_says() {
    let engine =
        Engine::load(concat!(env!("CARGO_MANIFEST_DIR"), "/policies")).unwrap_or_else(|error| panic!("{error}"));
    let snapshot = engine.snapshot().unwrap();
    let case = |principal, action, resource, context, facts, code, rules| Case {
        ask: [principal, action, resource],
        context,
        facts,
        expect: (code, rules),
    };
    let (alice, ian, carol, heidi) = (r#"User::"alice""#, r#"User::"ian""#, r#"User::"carol""#, r#"User::"heidi""#);
    let gpt = r#"Model::"openai-main/gpt-4o""#;
    let mini = r#"Model::"openai-main/gpt-4o-mini""#;
    let preview = r#"Model::"openai-main/gpt-5-preview""#;
    let opus = r#"Model::"anthropic-main/claude-opus-4-1""#;
    let none = || json!({});
    let inside = || json!({"ip": "10.65.0.1"});
    let cases = [
        case(alice, "chat", gpt, none(), at("10"), "permitted", &["research-frontier"]),
        case(ian, "chat", gpt, none(), at("10"), "no_rule_permits", &[]),
        case(carol, "chat", gpt, none(), at("10"), "permitted", &["on-call-openai"]),
        case(carol, "chat", preview, none(), at("10"), "forbidden_by_rule", &["previews-are-for-pilots"]),
        case(alice, "chat", preview, none(), at("10"), "permitted", &["pilots-try-previews"]),
        case(alice, "chat", gpt, none(), spent(85), "no_rule_permits", &[]),
        case(alice, "chat", mini, none(), spent(85), "permitted", &["acme-economy"]),
        case(alice, "chat", gpt, none(), of_the_month(79), "permitted", &["research-frontier"]),
        case(alice, "chat", gpt, none(), of_the_month(80), "forbidden_by_rule", &["research-economy-after-80-percent"]),
        case(
            alice,
            "chat",
            preview,
            none(),
            of_the_month(80),
            "forbidden_by_rule",
            &["research-economy-after-80-percent"],
        ),
        case(alice, "chat", mini, none(), of_the_month(80), "permitted", &["acme-economy"]),
        case(heidi, "chat", opus, none(), at("10"), "forbidden_by_rule", &["eu-lab-inside-only"]),
        case(heidi, "chat", opus, inside(), at("10"), "permitted", &["eu-lab-claude"]),
        case(heidi, "chat", opus, inside(), spent(80), "forbidden_by_rule", &["eu-lab-economy-after-80-percent"]),
        case(
            ian,
            "chat",
            r#"Model::"azure-dev/gpt-4o""#,
            none(),
            at("09"),
            "permitted",
            &["interns-in-business-hours"],
        ),
        case(ian, "chat", r#"Model::"azure-dev/gpt-4o""#, none(), at("20"), "no_rule_permits", &[]),
        case(
            r#"Service::"support-bot""#,
            "chat",
            r#"Router::"chat-prod""#,
            json!({"metadata": {"env": "prod"}}),
            at("10"),
            "permitted",
            &["support-bot-in-production"],
        ),
        case(r#"Service::"support-bot""#, "chat", gpt, none(), at("10"), "no_rule_permits", &[]),
        case(
            r#"Service::"ci""#,
            "embed",
            r#"Model::"openai-main/text-embedding-3-small""#,
            none(),
            at("10"),
            "forbidden_by_rule",
            &["ci-never-in-production"],
        ),
        case(
            r#"User::"jonas""#,
            "chat",
            r#"Model::"eu-selfhosted/llama-3.1-8b-instruct""#,
            none(),
            at("10"),
            "permitted",
            &["eu/rules#4"],
        ),
        case(alice, "chat", r#"Model::"openai-main/no-such""#, none(), at("10"), "model_unknown", &[]),
        case(alice, "chat", r#"Model::"no-such""#, none(), at("10"), "model_unknown", &[]),
    ];
    for Case { ask: [principal, action, resource], context, facts, expect } in cases {
        let context = context.as_object().unwrap().clone();
        let request = Request::new(uid(principal), action, uid(resource)).with_context(context);
        let decision = tollgate::gate::decide(&snapshot, &facts, &request).unwrap();
        let rules: Vec<&str> = decision.rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!((decision.code.as_str(), rules.as_slice()), expect, "{principal} {action} {resource}");
    }
}
