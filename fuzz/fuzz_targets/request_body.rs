//! Bytes as the body of a request, decided by the example bundle.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use tollgate::model::strict_json;
use tollgate::policy::{self, Bundle, Snapshot, SourceFile};
use tollgate::{CandidatesRequest, EntityUid, Facts, Request, Timestamp, gate};

static EXAMPLE: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let files = [
        ("eu/rules.yaml", include_str!("../../policies/eu/rules.yaml")),
        ("models.yaml", include_str!("../../policies/models.yaml")),
        ("native.cedar", include_str!("../../policies/native.cedar")),
        ("people.yaml", include_str!("../../policies/people.yaml")),
        ("rules.yaml", include_str!("../../policies/rules.yaml")),
    ];
    let files = files.into_iter().filter_map(|(path, text)| SourceFile::new(path, text.as_bytes())).collect();
    policy::load(&Bundle::new(files)).expect("the example loads").snapshot
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(Value::Object(body)) = strict_json::from_slice(bytes) else { return };
    let facts = Facts::at(Timestamp::from_millis(1_767_225_600_000));
    let (Some(principal), Some(action)) = (uid(body.get("principal")), body.get("action").and_then(Value::as_str))
    else {
        return;
    };
    let resource = uid(body.get("resource"));
    let context = body.get("context").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(Value::Array(candidates)) = body.get("candidates") {
        let candidates = candidates.iter().filter_map(|one| uid(Some(one))).collect();
        let (action, context) = (action.into(), context.into());
        let request = CandidatesRequest { principal, identity: None, action, router: resource, candidates, context };
        if let Ok(decision) = gate::decide_candidates(&EXAMPLE, &facts, &request) {
            assert_eq!(decision.outcome.as_str() == "permit", decision.permitted().count() > 0);
        }
    } else if let Some(resource) = resource {
        one(&facts, principal, action, resource, context);
    }
});

fn one(facts: &Facts, principal: EntityUid, action: &str, resource: EntityUid, context: Map<String, Value>) {
    let request = Request::new(principal, action, resource).with_context(context).with_explain(true);
    match (gate::decide(&EXAMPLE, facts, &request), gate::explain_request(&EXAMPLE, facts, &request)) {
        (Ok(decision), Ok((explained, _))) => {
            assert_eq!(decision, explained);
            assert_eq!(decision.is_permit(), decision.code.as_str() == "permitted");
            assert!(!decision.message().is_empty());
        }
        (Err(error), Err(again)) => assert_eq!(error, again),
        (left, right) => panic!("{left:?} but {right:?}"),
    }
}

/// `{"type": …, "id": …}` or a uid as Cedar writes it.
fn uid(value: Option<&Value>) -> Option<EntityUid> {
    match value? {
        Value::String(text) => text.parse().ok(),
        Value::Object(members) => {
            let member = |name| members.get(name).and_then(Value::as_str);
            EntityUid::new(member("type")?, member("id")?).ok()
        }
        _ => None,
    }
}
