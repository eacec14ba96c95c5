//! Accounts that only a condition names contain their models, in whatever form the condition is written; and `compile`
//! prints what decides the same beside people alone.

use std::fs;
use std::process::Command;

const PEOPLE: &str = "teams: [{ id: staff }]\nusers: [{ id: alice, team: staff }]\n";
const EVERYBODY: &str = "authz_rules:\n  - { id: all, users: \"*\", models: \"*\" }\n";

/// Writes a bundle into a folder of its own.
fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        fs::write(folder.path().join(path), text).unwrap();
    }
    folder
}

fn tollgate(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let output = command.args(arguments).env_clear().output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// Whether alice may chat with `model`, by the bundle in that folder.
fn permits(folder: &tempfile::TempDir, model: &str) -> bool {
    let resource = format!("Model::\"{model}\"");
    let policies = folder.path().to_str().unwrap();
    let arguments = [
        "decide",
        "--principal",
        "User::\"alice\"",
        "--action",
        "chat",
        "--resource",
        &resource,
        "--policies",
        policies,
    ];
    match tollgate(&arguments) {
        (Some(0), _) => true,
        (Some(3), _) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_account_that_only_a_condition_names_contains_its_models() {
    let hub = "context.now > datetime(\"2020-01-01\") && resource in ProviderAccount::\"hub\"";
    let native = format!("@id(\"no-hub\") forbid (principal, action, resource) when {{ {hub} }};\n");
    let yaml = format!("  - {{ id: no-hub, effect: forbid, users: \"*\", models: \"*\", when: '{hub}' }}\n");
    let unless = format!("  - {{ id: no-hub, effect: forbid, users: \"*\", models: \"*\", unless: '!({hub})' }}\n");
    // Of a model that the condition names, the account is one too.
    let of_model = "  - { id: no-hub, effect: forbid, users: \"*\", models: \"*\", when: 'Model::\"hub/m\" in ProviderAccount::\"hub\" && resource == Model::\"hub/m\"' }\n";
    let with = |rule: &str| format!("{EVERYBODY}{rule}");
    let bundles: [(&str, String, &str); 4] = [
        ("native", EVERYBODY.to_owned(), &native),
        ("when", with(&yaml), ""),
        ("unless", with(&unless), ""),
        ("a model", with(of_model), ""),
    ];
    for (name, rules, cedar) in bundles {
        let files = [("people.yaml", PEOPLE), ("rules.yaml", rules.as_str()), ("own.cedar", cedar)];
        let folder = written(&files);
        assert!(!permits(&folder, "hub/m"), "{name}: the account `hub` is forbidden");
        assert!(permits(&folder, "hub-evil/m"), "{name}: another account is not");
    }
}

#[test]
fn what_compile_prints_decides_the_same_beside_people_alone() {
    let rules = r#"
authz_rules:
  - { id: some, teams: [staff], models: ["hub/*", "*/z*"] }
  - { id: none, effect: forbid, teams: [staff], models: ["*/*-old", "attic/*"], when: 'resource in ProviderAccount::"hub2" || resource.name like "*-old"' }
"#;
    let source = written(&[("people.yaml", PEOPLE), ("rules.yaml", rules)]);
    let (code, cedar) = tollgate(&["compile", source.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{cedar}");
    let again = written(&[("people.yaml", PEOPLE), ("compiled.cedar", &cedar)]);
    for (model, expected) in [
        ("hub/m", true),
        ("hub/x/y", true),
        ("hub/m-old", false),
        ("other/m", false),
        ("other/z1", true),
        ("other/x/z1", false),
        ("hub-evil/m", false),
        ("attic/z", true),
        ("attic/z-old", false),
    ] {
        assert_eq!(permits(&source, model), expected, "{model} by the source");
        assert_eq!(permits(&again, model), expected, "{model} by what compile prints\n{cedar}");
    }
}

#[test]
fn a_group_that_nobody_declares_is_an_error_in_every_file() {
    let files = [
        ("people.yaml", "teams: [{ id: contractors }]\n"),
        (
            "rules.yaml",
            "authz_rules:\n  - { users: \"*\", models: \"*\", unless: 'principal in Team::\"contractor\"' }\n",
        ),
        ("own.cedar", "forbid (principal in Team::\"contractor\", action, resource);\n"),
    ];
    let folder = written(&files);
    let (code, said) = tollgate(&["check", folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    for place in ["rules.yaml:2:54", "own.cedar:1:22"] {
        assert!(said.contains(place), "{place} is not in\n{said}");
    }
    assert_eq!(said.matches("did you mean `Team::\"contractors\"`?").count(), 2, "{said}");
}

/// Runs `decide` with this context.
fn decides(folder: &tempfile::TempDir, action: &str, resource: &str, context: &str) -> Option<i32> {
    let policies = folder.path().to_str().unwrap();
    let principal = "User::\"alice\"";
    let arguments =
        ["decide", "--policies", policies, "--principal", principal, "--action", action, "--resource", resource];
    let context = ["--context", context];
    tollgate(&[arguments.as_slice(), &context].concat()).0
}

#[test]
fn a_mapped_address_of_a_bundle_is_the_ipv4_address_in_every_spelling() {
    for address in ["::ffff:a00:0/104", "::ffff:10.0.0.0/104", "::FFFF:0a00:0/104", "0:0:0:0:0:ffff:10.0.0.0/104"] {
        let when = format!("context has ip && context.ip.isInRange(ip(\"{address}\"))");
        let yaml =
            format!("{EVERYBODY}  - {{ id: no, effect: forbid, users: \"*\", models: \"*\", when: '{when}' }}\n");
        let cedar = format!("forbid (principal, action, resource) when {{ {when} }};\n");
        for files in
            [[("rules.yaml", yaml.as_str()), ("own.cedar", "")], [("rules.yaml", EVERYBODY), ("own.cedar", &cedar)]]
        {
            let folder = written(&files);
            let asked = |ip: &str| decides(&folder, "chat", "Model::\"a/m\"", &format!("{{\"ip\": \"{ip}\"}}"));
            for (ip, status) in [("10.1.2.3", 3), ("::ffff:10.1.2.3", 3), ("::ffff:a01:203", 3), ("11.1.2.3", 0)] {
                assert_eq!(asked(ip), Some(status), "{address} {ip} {files:?}");
            }
            // Another Cedar engine has to decide the same by what `compile` prints.
            let (_, printed) = tollgate(&["compile", "--no-admin-policies", folder.path().to_str().unwrap()]);
            assert!(printed.contains("ip(\"10.0.0.0/8\")"), "{address}: {printed}");
        }
    }
}

#[test]
fn a_mapped_address_of_a_json_file_or_of_an_own_context_is_the_ipv4_address() {
    let files = [
        (
            "own.cedarschema",
            "entity Host { own: __cedar::ipaddr, known: Set<__cedar::ipaddr> };\n\
             action ping appliesTo { principal: [User], resource: [Host], context: { from: __cedar::ipaddr } };\n",
        ),
        (
            "own.cedar",
            "permit (principal, action == Action::\"ping\", resource is Host)\n\
             when { context.from == resource.own && resource.known.contains(context.from) };\n",
        ),
        (
            "hosts.entities.json",
            r#"[{"uid": {"type": "Host", "id": "h"}, "parents": [], "attrs":
                {"own": "::ffff:a01:203", "known": [{"__extn": {"fn": "ip", "arg": "::ffff:a01:203"}}]}}]"#,
        ),
    ];
    let folder = written(&files);
    for (from, status) in [("10.1.2.3", 0), ("::ffff:a01:203", 0), ("10.1.2.4", 3)] {
        let context = format!("{{\"from\": \"{from}\"}}");
        assert_eq!(decides(&folder, "ping", "Host::\"h\"", &context), Some(status), "{from}");
    }
}

#[test]
fn a_parent_in_a_json_file_that_names_nothing_is_an_error() {
    let user = |parent: &str| {
        let attributes = r#"{"tags": [], "roles": [], "team_roles": []}"#;
        format!(r#"[{{"uid": {{"type": "User", "id": "bob"}}, "attrs": {attributes}, "parents": [{parent}]}}]"#)
    };
    for (parent, problem) in [
        (r#"{"type": "Team", "id": "staff"}"#, None),
        (r#"{"type": "Team", "id": "stafff"}"#, Some("no team is called `stafff`")),
        (r#"{"type": "Org", "id": "acme"}"#, Some("no org is called `acme`")),
    ] {
        let entities = user(parent);
        let files = [("people.yaml", PEOPLE), ("rules.yaml", EVERYBODY), ("bob.entities.json", entities.as_str())];
        let folder = written(&files);
        let (status, said) = tollgate(&["check", folder.path().to_str().unwrap()]);
        assert_eq!(status, Some(i32::from(problem.is_some())), "{parent}: {said}");
        assert!(said.contains(problem.unwrap_or("1 rule")), "{parent}: {said}");
    }
}
