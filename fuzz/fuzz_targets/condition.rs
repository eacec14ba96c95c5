//! A text as the condition of a rule: where it loads, it is evaluated, explained, and printed as Cedar; and the Cedar
//! that is printed decides the same.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use tollgate::policy::{Bundle, Loader, Snapshot, SourceFile};
use tollgate::{Decision, Facts, Request, Timestamp, gate};

const MODELS: &str = "provider_accounts: [{id: a, tags: [t], models: [{name: m, max_output_tokens: 9, tags: [u]}]}]\n\
    users: [{id: alice, roles: [r], tags: [v], email: a@b.example, metadata: {region: eu}}]\n";

thread_local! {
    static LOADER: RefCell<Loader> = RefCell::default();
}

fuzz_target!(|text: &str| {
    // A JSON text is a YAML scalar in quotes.
    let condition = Value::from(text).to_string();
    let rule = format!("authz_rules: [{{id: r, users: \"*\", models: \"*\", when: {condition}}}]\n");
    let Some(snapshot) = load(&[("models.yaml", MODELS), ("rules.yaml", &rule)]) else { return };
    let cedar = snapshot.to_cedar();
    let again = load(&[("models.yaml", MODELS), ("rules.cedar", &cedar)]);
    let again = again.unwrap_or_else(|| panic!("what loaded does not load as Cedar: {cedar}"));
    for context in contexts() {
        let first = decide(&snapshot, &context);
        let second = decide(&again, &context);
        assert_eq!(first.code, second.code, "{cedar}");
    }
});

fn load(files: &[(&str, &str)]) -> Option<std::sync::Arc<Snapshot>> {
    let files = files.iter().filter_map(|(path, text)| SourceFile::new(*path, text.as_bytes())).collect();
    LOADER.with_borrow_mut(|loader| loader.load(&Bundle::new(files))).ok().map(|loaded| loaded.snapshot)
}

fn contexts() -> [Map<String, Value>; 2] {
    let full = json!({"ip": "10.1.2.3", "method": "POST", "path": "/v1/chat", "input_tokens": 7, "max_output_tokens": 8,
        "stream": true, "end_user": "e", "team": "t", "metadata": {"env": "prod"}});
    [Map::new(), full.as_object().cloned().unwrap_or_default()]
}

fn decide(snapshot: &Snapshot, context: &Map<String, Value>) -> Decision {
    let facts = Facts::at(Timestamp::from_millis(1_767_225_600_000));
    let uid = |text: &str| text.parse().expect("a uid");
    let request = Request::new(uid("User::\"alice\""), "chat", uid("Model::\"a/m\""))
        .with_context(context.clone())
        .with_explain(true);
    let (explained, _) = gate::explain_request(snapshot, &facts, &request).expect("the request is one");
    let decision = gate::decide(snapshot, &facts, &request).expect("the request is one");
    assert_eq!(explained, decision);
    decision
}
