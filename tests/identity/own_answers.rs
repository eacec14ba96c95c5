//! What the server answers about the actions of `admin`, and what a caller learns about itself.

use serde_json::{Value, json};

use crate::keys::{Keys, PEOPLE};
use crate::support::{Setup, secret};

const CLOSED: &str = "identity: { loopback: closed }\n";

/// Makes a key of a user; nothing else of it is said.
fn key(keys: &Keys, owner: &str) -> String {
    keys.make(json!({"owner": owner})).1
}

#[test]
fn questions_about_managing_get_the_servers_own_answer() {
    let limits = "limits: [{ id: l, users: \"*\", budget: { usd: 5, every: day } }]\n";
    for (config, files) in [("", vec![]), ("", vec![("limits.yaml", limits)])] {
        let setup = Setup::without_files().file("people.yaml", PEOPLE).config(config);
        let setup = files.iter().fold(setup, |setup, (name, text)| setup.file(name, text));
        let keys = Keys::of(setup.start());
        let [alice, boss, root] = ["alice", "boss", "root"].map(|user| key(&keys, &format!("User::\"{user}\"")));
        let narrowed = keys.make(json!({"owner": "User::\"root\"", "models": ["oa/big"]})).1;
        let limited = keys.make(json!({"owner": "User::\"root\"", "limits": [{"concurrency": 1}]})).1;
        for (who, resource, rule) in [
            (&alice, "User::\"alice\"", "tollgate:own"),
            (&alice, "User::\"boss\"", ""),
            (&alice, "Team::\"research\"", ""),
            (&boss, "User::\"alice\"", "tollgate:team-administrators"),
            (&boss, "Service::\"bot\"", ""),
            (&root, "Service::\"bot\"", "tollgate:administrators"),
            (&narrowed, "Service::\"bot\"", "narrowed"),
            (&limited, "User::\"root\"", "narrowed"),
        ] {
            let ask = |action: &str| {
                let question = json!({"credential": {"api_key": who}, "action": action, "resource": resource});
                keys.server.post("/is_authorized", &question.to_string()).json()
            };
            let told = ask("manage_keys");
            let made = keys.ask(who, "POST", "/v1/keys", json!({"owner": resource}));
            made.json()["key"].as_str().map(secret);
            let code = match rule {
                "" => "no_rule_permits",
                "narrowed" => "forbidden_by_rule",
                _ => "permitted",
            };
            assert_eq!(told["code"], code, "{resource}: {told}");
            assert_eq!(made.status == 201, told["decision"] == "permit", "{resource}: {told} {}", made.body);
            if code == "permitted" {
                let rules: Vec<_> = told["rules"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
                assert!(rules.contains(&&json!(rule)), "{told}");
            }
            if rule != "tollgate:own" {
                assert_eq!(ask("manage_members")["code"], code, "{resource}");
            }
        }
        // By name, the same; and in a batch, and in the form of cedar-agent.
        let question = json!({"principal": "User::\"alice\"", "action": "manage_keys", "resource": "User::\"alice\""});
        assert_eq!(keys.server.post("/is_authorized", &question.to_string()).json()["decision"], "permit");
        let batch = json!({"requests": [question.clone()]});
        let told = keys.server.post("/is_authorized/batch", &batch.to_string()).json();
        assert_eq!(told["responses"][0]["decision"], "permit");
        let action =
            json!({"principal": "User::\"alice\"", "action": "Action::\"manage_keys\"", "resource": "User::\"alice\""});
        assert_eq!(keys.server.post("/v1/is_authorized", &action.to_string()).json()["decision"], "Allow");
    }
}

#[test]
fn the_policies_that_ship_yield_to_the_bundle_and_to_the_settings() {
    let forbid = "forbid (principal, action == Action::\"manage_keys\", resource == User::\"alice\");\n";
    let off = "identity: { admin_policies: off, providers: [{ keys: {} }] }\n";
    for (config, file) in [("", forbid), (off, "")] {
        let setup = Setup::without_files().file("people.yaml", PEOPLE).config(config);
        let keys = Keys::of(if file.is_empty() { setup } else { setup.file("who.cedar", file) }.start());
        let question = json!({"principal": "User::\"alice\"", "action": "manage_keys", "resource": "User::\"alice\""});
        let told = keys.server.post("/is_authorized", &question.to_string()).json();
        assert_eq!(told["decision"], "forbid", "{told}");
        assert_eq!(keys.admin("POST", "/v1/keys", json!({"owner": "User::\"alice\""})).status, 403);
    }
}

#[test]
fn without_the_role_of_a_gateway_a_caller_checks_itself_and_holds_nothing() {
    for config in [CLOSED, "identity: { loopback: closed }\ndecisions: { reserve: auto }\n"] {
        let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).config(config).start());
        let (alice, boss) = (key(&keys, "User::\"alice\""), key(&keys, "User::\"boss\""));
        let narrowed = keys.make(json!({"owner": "User::\"alice\"", "models": ["oa/small"]})).1;
        let id = narrowed.split('_').nth(1).unwrap().to_owned();
        let about = |who: Value| -> Value {
            let mut question = json!({"action": "chat", "resource": "Model::\"oa/big\""});
            question.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
            question
        };
        for (who, told) in [
            (json!({"principal": "User::\"alice\""}), "permitted"),
            (json!({"credential": {"api_key": alice}}), "permitted"),
            (json!({"credential": {"api_key": narrowed}}), "forbidden_by_rule"),
            (json!({"principal": "User::\"boss\""}), ""),
            (json!({"principal": "Service::\"bot\""}), ""),
            (json!({"principal": format!("ApiKey::\"{id}\"")}), ""),
            (json!({"credential": {"api_key": boss}}), ""),
            (json!({"credential": {"api_key": "tg_wrong"}}), ""),
        ] {
            let param = if who.get("principal").is_some() { "principal" } else { "credential" };
            let answer = keys.ask(&alice, "POST", "/is_authorized", about(who.clone()));
            let batch = keys.ask(&alice, "POST", "/is_authorized/batch", json!({"requests": [about(who.clone())]}));
            if told.is_empty() {
                assert!(answer.is_error(403, "forbidden", param), "{who}: {}", answer.body);
                assert!(batch.is_error(403, "forbidden", &format!("requests[0].{param}")), "{who}: {}", batch.body);
            } else {
                assert_eq!(answer.json()["code"], told, "{who}: {}", answer.body);
                assert!(answer.json().get("reservation").is_none(), "{}", answer.body);
                assert_eq!(batch.json()["responses"][0]["code"], told, "{who}: {}", batch.body);
            }
            for reserve in [json!(true), json!({"requests": 1}), json!({"usd": "0"})] {
                let mut question = about(who.clone());
                question["reserve"] = reserve;
                let answer = keys.ask(&alice, "POST", "/is_authorized", question);
                assert!(answer.is_error(403, "forbidden", "reserve"), "{}", answer.body);
            }
        }
        // A narrowed key that names its owner asks for itself all the same.
        for principal in ["User::\"alice\"".to_owned(), format!("ApiKey::\"{id}\"")] {
            let question = about(json!({"principal": principal}));
            let told = keys.ask(&narrowed, "POST", "/is_authorized", question.clone());
            assert_eq!(told.json()["code"], "forbidden_by_rule", "{}", told.body);
            let mut list = question.clone();
            list.as_object_mut().unwrap().remove("resource");
            list["candidates"] = json!(["Model::\"oa/big\"", "Model::\"oa/small\""]);
            let told = keys.ask(&narrowed, "POST", "/is_authorized", list).json();
            assert_eq!(told["permitted"], json!([{"type": "Model", "id": "oa/small"}]), "{told}");
            let agent = json!({"principal": principal, "action": "Action::\"chat\"", "resource": "Model::\"oa/big\""});
            let told = keys.ask(&narrowed, "POST", "/v1/is_authorized", agent);
            assert_eq!(told.json()["decision"], "Deny", "{}", told.body);
        }
        let agent =
            json!({"principal": "User::\"boss\"", "action": "Action::\"chat\"", "resource": "Model::\"oa/big\""});
        assert!(keys.ask(&alice, "POST", "/v1/is_authorized", agent).is_error(403, "forbidden", "principal"));
        for path in ["/settle", "/release", "/extend", "/usage", "/v1/auth/validate"] {
            assert_eq!(keys.ask(&alice, "POST", path, json!({})).status, 403, "{path}");
        }
        assert_eq!(keys.ask("", "POST", "/is_authorized", about(json!({"principal": "User::\"alice\""}))).status, 401);
    }
}
