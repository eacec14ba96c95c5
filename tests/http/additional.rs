//! `/v1/is_authorized`: the form of cedar-agent, and entities that a request brings along.

use serde_json::{Value, json};

use crate::support::{Answer, Server, Setup};

const NATIVE: &str = r#"
@id("leads")
permit (principal in Team::"leads", action, resource is Model) when { resource.tags.contains("open") };
@id("pilots")
permit (principal == User::"pilot", action, resource) when { principal.tags.contains("gpu") };
"#;

fn start() -> Server {
    // A team that a policy names is declared, also where only requests say who is in it.
    Setup::new().file("native.cedar", NATIVE).file("leads.yaml", "teams: [{ id: leads }]\n").start()
}

fn ask(server: &Server, principal: &str, resource: &str, entities: &Value) -> Answer {
    let body = json!({
        "principal": principal, "action": "Action::\"chat\"", "resource": resource,
        "context": {}, "additional_entities": entities,
    });
    server.post("/v1/is_authorized", &body.to_string())
}

fn user(id: &str, tags: &[&str], parents: &[(&str, &str)]) -> Value {
    let parents: Vec<Value> = parents.iter().map(|(kind, id)| json!({ "type": kind, "id": id })).collect();
    json!({
        "uid": { "type": "User", "id": id },
        "attrs": { "tags": tags, "roles": [], "team_roles": [] },
        "parents": parents,
    })
}

#[test]
fn the_answer_has_the_form_of_cedar_agent() {
    let server = start();
    let answer = ask(&server, "User::\"alice\"", "Model::\"openai-main/gpt-4o\"", &json!([]));
    assert_eq!(
        answer.json(),
        json!({ "decision": "Allow", "diagnostics": { "reason": ["research-chat"], "errors": [] } })
    );
    let answer = ask(&server, "User::\"alice\"", "Model::\"openai-main/gpt-4o-mini\"", &json!([]));
    assert_eq!(answer.json(), json!({ "decision": "Deny", "diagnostics": { "reason": ["no-mini"], "errors": [] } }));
    let answer = ask(&server, "User::\"bob\"", "Model::\"openai-main/gpt-4o\"", &json!([])).json();
    assert_eq!(answer, json!({ "decision": "Deny", "diagnostics": { "reason": [], "errors": [] } }));
    let answer = ask(&server, "User::\"erin\"", "Model::\"openai-main/gpt-4o\"", &json!([])).json();
    assert!(answer["diagnostics"]["errors"][0].as_str().unwrap().contains("overflow"), "{answer}");
}

#[test]
fn what_is_brought_along_counts() {
    let server = start();
    let decision = |principal: &str, resource: &str, entities: Value| {
        let answer = ask(&server, principal, resource, &entities);
        answer.json()["decision"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    let gpt = "Model::\"openai-main/gpt-4o\"";
    // In a declared team, directly and through one that is brought along.
    assert_eq!(decision("User::\"dora\"", gpt, json!([user("dora", &[], &[("Team", "research")])])), "Allow");
    let team = json!({ "uid": { "type": "Team", "id": "sub" }, "attrs": { "tags": [] }, "parents": [{ "type": "Team", "id": "research" }] });
    assert_eq!(decision("User::\"dora\"", gpt, json!([user("dora", &[], &[("Team", "sub")]), team])), "Allow");
    assert_eq!(decision("User::\"dora\"", gpt, json!([user("dora", &[], &[("Team", "sub")])])), "Deny");
    // In a team that is disabled.
    assert_eq!(
        decision("User::\"dora\"", gpt, json!([user("dora", &[], &[("Team", "research"), ("Team", "gone")])])),
        "Deny"
    );
    // By a tag of its own, and as one that a rule names.
    assert_eq!(decision("User::\"dora\"", "Model::\"labs/x\"", json!([user("dora", &["gpu"], &[])])), "Allow");
    assert_eq!(decision("User::\"pilot\"", gpt, json!([user("pilot", &["gpu"], &[])])), "Allow");
    assert_eq!(decision("User::\"pilot\"", gpt, json!([user("pilot", &[], &[])])), "Deny");
    // A model with attributes, and a team that nobody but requests is in.
    let model = json!({ "uid": { "type": "Model", "id": "labs/y" }, "attrs": { "name": "labs/y", "tags": ["open"] }, "parents": [] });
    let lead = user("lea", &[], &[("Team", "leads")]);
    assert_eq!(decision("User::\"lea\"", "Model::\"labs/y\"", json!([lead, model])), "Allow");
    assert_eq!(decision("User::\"lea\"", "Model::\"labs/y\"", json!([lead])), "Deny");
    // For one request alone.
    assert_eq!(decision("User::\"dora\"", gpt, json!([])), "Deny");
}

#[test]
fn what_is_known_cannot_be_redefined() {
    let server = start();
    let gpt = "Model::\"openai-main/gpt-4o\"";
    let model =
        |id: &str| json!({ "uid": { "type": "Model", "id": id }, "attrs": { "name": id, "tags": [] }, "parents": [] });
    let many: Vec<Value> = (0..257).map(|number| user(&format!("u{number}"), &[], &[])).collect();
    for (name, entities, param) in [
        ("a declared user", json!([user("ian", &[], &[("Team", "research")])]), "additional_entities[0]"),
        ("a declared model", json!([model("openai-main/gpt-4o-mini")]), "additional_entities[0]"),
        ("an alias", json!([model("best")]), "additional_entities[0]"),
        ("twice", json!([user("x", &[], &[]), user("x", &["gpu"], &[])]), "additional_entities[1]"),
        (
            "no such type",
            json!([{ "uid": { "type": "Robot", "id": "r" }, "attrs": {}, "parents": [] }]),
            "additional_entities[0]",
        ),
        (
            "an action",
            json!([{ "uid": { "type": "Action", "id": "chat" }, "attrs": {}, "parents": [] }]),
            "additional_entities[0]",
        ),
        (
            "Tollgate's own",
            json!([{ "uid": { "type": "Metadata", "id": "request" }, "attrs": {}, "parents": [] }]),
            "additional_entities[0]",
        ),
        (
            "an unknown attribute",
            json!([{ "uid": { "type": "User", "id": "x" }, "attrs": { "tags": [], "roles": [], "team_roles": [], "age": 3 }, "parents": [] }]),
            "additional_entities[0]",
        ),
        (
            "a missing attribute",
            json!([{ "uid": { "type": "User", "id": "x" }, "attrs": {}, "parents": [] }]),
            "additional_entities[0]",
        ),
        ("a wrong parent", json!([user("x", &[], &[("Model", "openai-main/gpt-4o")])]), "additional_entities[0]"),
        ("no entity", json!([3]), "additional_entities[0]"),
        ("a zero-width name", json!([user("x\u{200b}", &[], &[])]), "additional_entities[0]"),
        (
            "a circle",
            json!([
                { "uid": { "type": "Team", "id": "a" }, "attrs": { "tags": [] }, "parents": [{ "type": "Team", "id": "b" }] },
                { "uid": { "type": "Team", "id": "b" }, "attrs": { "tags": [] }, "parents": [{ "type": "Team", "id": "a" }] },
            ]),
            "additional_entities",
        ),
        ("too many", Value::Array(many), "additional_entities"),
    ] {
        let answer = ask(&server, "User::\"alice\"", gpt, &entities);
        assert!(answer.is_error(400, "invalid_entities", param), "{name}: {answer:?}");
    }
    let replaced = server.post(
        "/v1/is_authorized",
        r#"{"principal": "User::\"a\"", "action": "chat", "resource": "Model::\"a/b\"", "entities": []}"#,
    );
    assert!(replaced.is_error(400, "not_supported", "entities"), "{replaced:?}");
    let object = server.post(
        "/v1/is_authorized",
        r#"{"principal": {"type": "User", "id": "a"}, "action": "chat", "resource": "Model::\"a/b\""}"#,
    );
    assert!(object.is_error(400, "invalid_request", "principal"), "{object:?}");
    let twice = r#"{"principal": "User::\"a\"", "action": "chat", "resource": "Model::\"a/b\"", "additional_entities": [{"uid": 1, "uid": 2}]}"#;
    assert!(server.post("/v1/is_authorized", twice).is_error(400, "invalid_request", "additional_entities[0]"));
}
