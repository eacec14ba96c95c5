//! Records as JSON: their members, masks and bounds.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::gate::{DecisionId, Via, decide};
use crate::model::{AuthMethod, Facts, Timestamp};
use crate::policy::{Bundle, SourceFile, load};

fn record_of(request: &Request, mask: &Mask, seen: &[Seen]) -> Value {
    let text = "authz_rules: [{ id: r, users: [alice], models: \"*\" }]\n";
    let bundle = Bundle::new(vec![SourceFile::new("a.yaml", text.as_bytes()).unwrap()]);
    let snapshot = load(&bundle).unwrap().snapshot;
    let decision = decide(&snapshot, &Facts::at(Timestamp::from_millis(0)), request).unwrap();
    let record = DecisionRecord {
        id: DecisionId { process: 0x00ff, number: 10 },
        at: Timestamp::from_millis(1_500),
        revision: "rev",
        via: Via::Library,
        reserve: None,
        charging: None,
        seen,
        decided: Decided::One(request, &decision),
    };
    let mut out = b"{".to_vec();
    write(&mut out, &record, mask);
    assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1));
    serde_json::from_slice(&out).unwrap()
}

fn request(context: Value) -> Request {
    let Value::Object(context) = context else { panic!("a context is an object") };
    Request::new("User::\"alice\"".parse().unwrap(), "chat", "Model::\"a/b\"".parse().unwrap()).with_context(context)
}

#[test]
fn a_record_holds_the_question_and_its_outcome() {
    let mut identity = Identity::new("User::\"alice\"".parse().unwrap(), AuthMethod::Jwt);
    identity.said.email = Some("a@example.com".into());
    identity.said.teams = ["research".into()].into();
    identity.metadata = [("cost".into(), "12".into())].into();
    let mut asked = request(json!({ "ip": "10.1.2.3", "input_tokens": 7, "metadata": { "env": "prod" } }));
    asked.identity = Some(Arc::new(identity));
    let mut mask = Mask::default();
    let whole = record_of(&asked, &mask, &[]);
    assert_eq!(
        whole,
        json!({
            "id": "00000000000000ff-a", "at": "1970-01-01T00:00:01.5Z", "revision": "rev", "via": "library",
            "decision": "permit", "code": "permitted", "principal": "User::\"alice\"", "action": "chat",
            "resource": "Model::\"a/b\"",
            "identity": {
                "method": "jwt", "attributes": { "replaces_bundle": false, "teams": ["research"], "email": "a@example.com" },
                "metadata": { "cost": "12" }
            },
            "context": { "ip": "10.1.2.3", "input_tokens": 7, "metadata": { "env": "prod" } },
            "rules": ["r"], "masked": []
        })
    );
    for path in Mask::USUAL.into_iter().chain(["identity.attributes.email"]) {
        mask.add(path).unwrap();
    }
    let masked = record_of(&asked, &mask, &[]);
    assert_eq!(masked["context"], json!({ "input_tokens": 7 }));
    assert_eq!(masked["identity"]["metadata"], json!({}));
    assert_eq!(masked["masked"], json!(["identity.attributes.email", "context.metadata", "context.ip"]));
    for hidden in ["10.1.2.3", "a@example.com", "prod", "12"] {
        assert!(!masked.to_string().contains(&format!("\"{hidden}\"")), "{hidden}: {masked}");
    }
}

#[test]
fn a_meter_that_a_masked_member_names_is_masked_too() {
    let standing = LimitStanding {
        id: "l".into(),
        meter: Some("cust-7".into()),
        unit: Unit::Tokens,
        limit: crate::model::Amount::ONE,
        used: crate::model::Amount::ZERO,
        held: crate::model::Amount::ZERO,
        resets_at: None,
        shortage: None,
    };
    let seen = [Seen { resource: "Model::\"a/b\"".parse().unwrap(), limits: Some(vec![standing]) }];
    let masked = record_of(&request(json!({ "end_user": "cust-7" })), &Mask::usual(), &seen);
    assert_eq!(masked["condition_limits"][0]["limits"], json!([["l", null, "tokens", "1", "0", "0"]]));
    assert!(!masked.to_string().contains("cust-7"), "{masked}");
}

#[test]
fn what_is_too_long_is_cut_to_its_outcome() {
    let long: serde_json::Map<String, Value> =
        (0..10).map(|number| (format!("m{number}"), Value::from("x".repeat(8_000)))).collect();
    let record = record_of(&request(json!({ "metadata": long })), &Mask::default(), &[]);
    assert_eq!((&record["decision"], &record["resource"]), (&json!("permit"), &Value::Null));
    assert!(record["truncated"]["bytes"].as_u64().unwrap() > 80_000);
    assert!(record.to_string().len() < 1_000);
}

proptest! {
    #[test]
    fn any_text_stays_one_line_that_reads_back(text in "[ -~äé日😀]{1,20}", key in "[ -~äé日😀]{1,10}") {
        let mut metadata = serde_json::Map::new();
        metadata.insert(key, Value::from(text.clone()));
        let asked = request(json!({ "end_user": text, "metadata": metadata }));
        let record = record_of(&asked, &Mask::default(), &[]);
        prop_assert_eq!(&record["context"], &Value::Object(asked.context.to_json()));
    }
}
