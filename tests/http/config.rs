//! `tollgate.yaml`, the environment and flags: which beats which, and what is wrong with them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate::config::{ConfigError, Flags, LogSettings, Settings, schema_json};
use tollgate::edge::telemetry::{LogFormat, LogLevel};

use crate::support::Setup;

fn load(file: Option<&str>, environment: &[(&str, &str)], mut flags: Flags) -> Result<Settings, String> {
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("t.yaml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
        flags.config.get_or_insert(path);
    }
    let variable =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
    Settings::from(&flags, variable)
        .map_err(|error: ConfigError| error.to_string().replace(&format!("{}/", temp.path().display()), ""))
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = "policies: from-file\ndata: from-file\nlisten: 127.0.0.1:1\nserver: { workers: 3 }\n";
    let environment = [("TOLLGATE_POLICIES", "from-environment"), ("TOLLGATE_LISTEN", "127.0.0.1:2")];
    let flags = Flags { policies: Some(PathBuf::from("from-flag")), ..Flags::default() };
    let settings = load(Some(file), &environment, flags).unwrap();
    assert_eq!(settings.policies, Path::new("from-flag"));
    assert_eq!(settings.http.listen.port(), 2);
    assert!(settings.data.ends_with("from-file"));
    assert_eq!(settings.workers, 3);
    let none = load(Some("# nothing\n"), &[], Flags::default()).unwrap();
    assert_eq!(none, Settings::default());
}

#[test]
fn what_is_logged_is_said_as_other_settings_are() {
    let file = "log: { format: text, level: error }\n";
    let environment = [("TOLLGATE_LOG_FORMAT", "json"), ("TOLLGATE_LOG_LEVEL", "debug")];
    let log = |format, level| LogSettings { format, level };
    let settings = |file, environment: &[_], flags| load(file, environment, flags).unwrap().log;
    assert_eq!(settings(None, &[], Flags::default()), log(None, LogLevel::Info));
    assert_eq!(settings(Some(file), &[], Flags::default()), log(Some(LogFormat::Text), LogLevel::Error));
    assert_eq!(settings(Some(file), &environment, Flags::default()), log(Some(LogFormat::Json), LogLevel::Debug));
    let flags = Flags { log_format: Some(LogFormat::Text), log_level: Some(LogLevel::Warn), ..Flags::default() };
    assert_eq!(settings(Some(file), &environment, flags), log(Some(LogFormat::Text), LogLevel::Warn));
    let said = load(Some("log: { format: xml }\n"), &[], Flags::default()).unwrap_err();
    assert!(said.contains("t.yaml:1:16") && said.contains("expected text or json"), "{said}");
    let said = load(None, &[("TOLLGATE_LOG_LEVEL", "off")], Flags::default()).unwrap_err();
    assert!(said.contains("TOLLGATE_LOG_LEVEL") && said.contains("error or warn or info"), "{said}");
}

#[test]
fn everything_can_be_set() {
    let file = r#"
policies: p
strict: true
insecure: true
listen: "0.0.0.0:80"
limits: { body_bytes: 4096, batch: 2, header_bytes: 2048, connections: 3, header_timeout_ms: 20, body_timeout_ms: 30, idle_timeout_ms: 40, shutdown_ms: 0 }
reload:
  guard: true
  look_every_ms: 100
  manifest: { required: true, public_keys: ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] }
log: { format: json, level: warn }
"#;
    let settings = load(Some(file), &[], Flags::default()).unwrap();
    assert!(settings.strict && settings.insecure && settings.guard && settings.manifest_required);
    assert_eq!((settings.http.body_bytes, settings.http.batch, settings.http.connections), (4096, 2, 3));
    assert_eq!(settings.http.idle_timeout, Duration::from_millis(40));
    assert_eq!(settings.log, LogSettings { format: Some(LogFormat::Json), level: LogLevel::Warn });
    assert_eq!(settings.watch_options().manifest.public_keys.len(), 1);
    assert_eq!(settings.watch_options().look_every, Duration::from_millis(100));
}

/// A path of the file is relative to the file; one of a flag or of the environment to where the server is started.
#[test]
fn paths_of_the_file_are_relative_to_it() {
    let temp = tempfile::TempDir::new().unwrap();
    let directory = temp.path().join("conf");
    std::fs::create_dir_all(directory.join("secrets")).unwrap();
    let config = directory.join("tollgate.yaml");
    for (name, text) in [
        ("token", "a-token-of-32-bytes-or-more-0123456"),
        ("htpasswd", ""),
        ("digest", ""),
        ("webhook", "0123456789abcdef"),
    ] {
        std::fs::write(directory.join("secrets").join(name), text).unwrap();
    }
    let file = r#"
policies: ../policies
data: data
tls: { certificate_file: tls/a.pem, key_file: /tls/b.pem, client_ca_file: tls/c.pem, client_certificates: required }
alerts: { webhook: { url: "https://a.example.com/", secret_file: secrets/webhook } }
identity:
  providers:
    - keys: { pepper_file: secrets/pepper }
    - static: { tokens: [{ token_file: secrets/token, principal: 'User::"a"' }] }
    - basic: { htpasswd: secrets/htpasswd }
    - digest: { file: secrets/digest }
  tokens: { pepper_file: secrets/sealing }
decision_log:
  file: { directory: decisions }
  checkpoints:
    file: elsewhere/checkpoints.jsonl
    webhook: { url: "https://a.example.com/", secret_file: secrets/webhook }
"#;
    std::fs::write(&config, file).unwrap();
    let flags = Flags { config: Some(config.clone()), ..Flags::default() };
    let settings = Settings::from(&flags, |_| None).unwrap();
    let at = |path: &str| directory.join(path);
    assert_eq!((&settings.policies, &settings.data), (&at("../policies"), &at("data")));
    assert_eq!(settings.tls.certificate_file, Some(at("tls/a.pem")));
    assert_eq!(settings.tls.key_file, Some(PathBuf::from("/tls/b.pem")));
    assert_eq!(settings.tls.client_ca_file, Some(at("tls/c.pem")));
    assert_eq!(settings.webhook.secret_file, Some(at("secrets/webhook")));
    assert_eq!(settings.decision_log.directory, Some(at("decisions")));
    let checkpoints = &settings.decision_log.checkpoints;
    assert_eq!(checkpoints.file, Some(at("elsewhere/checkpoints.jsonl")));
    assert_eq!(checkpoints.webhook.as_ref().unwrap().secret_file, Some(at("secrets/webhook")));
    let identity = format!("{:?}", settings.identity);
    for path in ["secrets/pepper", "secrets/htpasswd", "secrets/digest", "secrets/sealing"] {
        assert!(identity.contains(&format!("{:?}", at(path))), "{path}: {identity}");
    }
    // Whoever sets a variable or a flag knows where the server is started.
    let environment = [("TOLLGATE_DATA", "there"), ("TOLLGATE_TLS_KEY_FILE", "k.pem")];
    let variable =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
    let flags = Flags { policies: Some(PathBuf::from("here")), ..flags };
    let settings = Settings::from(&flags, variable).unwrap();
    assert_eq!((settings.policies.as_path(), settings.data.as_path()), (Path::new("here"), Path::new("there")));
    assert_eq!(settings.tls.key_file, Some(PathBuf::from("k.pem")));
    // What is wrong names the file that was looked for, and names of the operator's own are no paths.
    let wrong =
        "identity: { providers: [{ static: { tokens: [{ token_file: nowhere, principal: 'User::\"a\"' }] } }] }\n";
    std::fs::write(&config, wrong).unwrap();
    let flags = Flags { config: Some(config), ..Flags::default() };
    let said = Settings::from(&flags, |_| None).unwrap_err().to_string();
    assert!(said.contains(&at("nowhere").display().to_string()), "{said}");
}

/// The start of a server whose `data` now names another directory, and what it says.
fn start_beside(data: &str, kept: &str, also: &str) -> (Option<i32>, String) {
    let temp = tempfile::TempDir::new().unwrap();
    for directory in ["conf", kept, also] {
        std::fs::create_dir_all(temp.path().join(directory)).unwrap();
    }
    for directory in [kept, also] {
        // No database: a start that goes on says so.
        std::fs::write(temp.path().join(directory).join("meters.db"), "").unwrap();
    }
    std::fs::write(temp.path().join("conf/t.yaml"), format!("data: {data}\n")).unwrap();
    Setup::new().argument("--config").argument("conf/t.yaml").fail_in(temp.path())
}

#[test]
fn meters_are_not_left_behind_where_data_was_relative_to_the_start() {
    let (code, said) = start_beside("kept", "kept", "elsewhere");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("/conf/kept`") && said.contains("data: ") && said.matches("/kept").count() >= 3, "{said}");
    assert!(!said.contains("it is empty"), "{said}");
    // Both hold meters, or the path is the same from everywhere.
    for (data, kept, also) in [("kept", "kept", "conf/kept"), ("../kept", "kept", "elsewhere")] {
        let (code, said) = start_beside(data, kept, also);
        assert!(code == Some(2) && said.contains("it is empty"), "{data}: {said}");
    }
}

/// What is shown of the file holds no secret, however it is written, and names the files that are wrong.
#[test]
fn secrets_of_the_file_are_not_shown_and_names_of_files_are() {
    for wrong in [
        "identity:\n  providers:\n    - introspection:\n        client_secret:\n          hunter2\n",
        "identity:\n  client_secret: |\n    hunter2\n",
        "identity:\n  ? client_secret\n  : hunter2\n",
        "identity: { \"client\\u005fsecret\": hunter2 }\n",
        "identity: { providers: [{ static: { tokens: [{ token: &t hunter2, bogus: *t }] } }] }\n",
        "meters: { redis: { url:\n redis://:hunter2@redis:6379, bogus: 1 } }\n",
        "meters: { redis: { url: \"redis:\\u002f/:hunter2@redis\", bogus: 1 } }\n",
        "tls:\n  private_key: |\n-----BEGIN PRIVATE KEY-----\nhunter2\n",
        "password: !hunter2\n",
    ] {
        let said = load(Some(wrong), &[], Flags::default()).unwrap_err();
        assert!(said.contains("t.yaml:") && !said.contains("hunter2"), "{wrong}\n{said}");
    }
    let files = "identity: { providers: [{ basic: { htpasswd: /nowhere/people, bogus: 1 } }] }\n";
    let said = load(Some(files), &[], Flags::default()).unwrap_err();
    assert!(said.contains("/nowhere/people"), "{said}");
}

#[test]
fn misspelt_variables_are_told() {
    let server = Setup::new()
        .variable("TOLLGATE_POLICIS", "elsewhere")
        .variable("TOLLGATE_SERVICE_HOST", "10.0.0.1")
        .variable("TOLLGATE_PORT", "tcp://10.0.0.1:8181")
        .variable("TOLLGATE_PORT_8181_TCP", "tcp://10.0.0.1:8181")
        .start();
    let log = server.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("is not read")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("TOLLGATE_POLICIS") && told[0].contains("did you mean `TOLLGATE_POLICIES`?"), "{log}");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let file = "policy: x\nlimits:\n  batch: 0\n  body_byte: 1\n  header_timeout_ms: 10s\nreload: true\nstrict: \"true\"\ndata:\nstrict: true\n";
    let said = load(Some(file), &[], Flags::default()).unwrap_err();
    for expected in [
        "t.yaml:1:1",
        "did you mean `policies`?",
        "t.yaml:3:10",
        "from 1 to 1000000",
        "t.yaml:4:3",
        "did you mean `body_bytes`?",
        "t.yaml:5:22",
        "expected milliseconds",
        "t.yaml:6:9",
        "t.yaml:7:9",
        "expected true or false",
        "t.yaml:8:",
        "`data` has no value",
        "t.yaml:9:1",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    for file in ["- a\n", "a: b: c\n", "policies: [a]\n", "listen: 8181\n", "listen: localhost\n", "\tpolicies: x\n"] {
        assert!(load(Some(file), &[], Flags::default()).unwrap_err().contains("t.yaml:1:"), "{file}");
    }
    let said = load(None, &[("TOLLGATE_LISTEN", "8181")], Flags::default()).unwrap_err();
    assert!(said.contains("TOLLGATE_LISTEN") && said.contains("127.0.0.1:8181"), "{said}");
    let said = load(None, &[("TOLLGATE_INSECURE", "yes")], Flags::default()).unwrap_err();
    assert!(said.contains("TOLLGATE_INSECURE") && said.contains("true or false"), "{said}");
    let said = load(None, &[("TOLLGATE_CONFIG", "nowhere.yaml")], Flags::default()).unwrap_err();
    assert!(said.contains("nowhere.yaml"), "{said}");
    // With keys, callers can be told apart.
    assert!(load(None, &[("TOLLGATE_LISTEN", "0.0.0.0:1")], Flags::default()).is_ok());
    let nobody = [("TOLLGATE_LISTEN", "0.0.0.0:1"), ("TOLLGATE_IDENTITY", "providers: []")];
    let said = load(None, &nobody, Flags::default()).unwrap_err();
    assert!(said.contains("--insecure"), "{said}");
}

#[test]
fn routes_are_said_by_the_file_or_the_environment() {
    let param = |_: &str| Some("a/b");
    let asked = |settings: &Settings, path: &str, method: Option<&str>| {
        let found = settings.http.routes.find(path, method, param);
        found.map(|(action, resource)| format!("{action} {resource}")).map_err(|error| error.to_string())
    };
    let file = "routes:\n  - { path: /talk, method: POST, action: chat }\n  \
                - { path: /in/*, action: use, resource: 'Router::\"in\"' }\n  \
                - { path: /say, action: audio, model_param: voice }\n";
    let settings = load(Some(file), &[], Flags::default()).unwrap();
    assert_eq!(asked(&settings, "/talk", Some("POST")).unwrap(), "chat Model::\"a/b\"");
    assert_eq!(asked(&settings, "/in/x/y", Some("PUT")).unwrap(), "use Router::\"in\"");
    assert_eq!(asked(&settings, "/say", None).unwrap(), "audio Model::\"a/b\"");
    // What is said replaces the usual ones.
    for (path, method) in [("/talk", Some("GET")), ("/in", None), ("/v1/chat/completions", None)] {
        assert!(asked(&settings, path, method).is_err(), "{path}");
    }
    let variable = r#"[{"path": "/other", "action": "embed"}]"#;
    let settings = load(Some(file), &[("TOLLGATE_ROUTES", variable)], Flags::default()).unwrap();
    assert_eq!(asked(&settings, "/other", None).unwrap(), "embed Model::\"a/b\"");
    assert!(asked(&settings, "/talk", None).is_err());
    for (wrong, told) in [
        ("[]", "1 to 1000 routes are allowed"),
        ("[{ path: talk, action: chat }]", "begins with `/`"),
        ("[{ path: /a*, action: chat }]", "begins with `/`"),
        ("[{ path: /a/*/b, action: chat }]", "begins with `/`"),
        ("[{ path: /a, method: post, action: chat }]", "in capitals"),
        ("[{ path: /a, action: '' }]", "name of an action"),
        ("[{ path: /a }]", "action"),
        ("[{ path: /a, action: chat, resource: in }]", "resource"),
        ("[{ path: /a, action: chat, resource: 'Router::\"in\"', model_param: x }]", "do not go together"),
        ("[{ path: /a, action: chat, verb: x }]", "verb"),
    ] {
        let said = load(Some(&format!("routes: {wrong}\n")), &[], Flags::default()).unwrap_err();
        assert!(said.contains("t.yaml:1:") && said.contains(told), "{wrong}: {said}");
    }
}

#[test]
fn the_schema_names_every_setting() {
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    for section in ["decisions", "limits", "log", "meters", "reload", "server"] {
        assert_eq!(schema["properties"][section]["additionalProperties"], false, "{section}");
    }
    assert!(
        schema["properties"]["reload"]["properties"]["manifest"]["properties"]["public_keys"]["description"]
            .is_string()
    );
}

/// Every variable of the environment that sets something: a value, a wrong value, and part of the error about it.
const VARIABLES: [(&str, &str, &str, &str); 18] = [
    ("TOLLGATE_POLICIES", "elsewhere", "", "expected a path"),
    ("TOLLGATE_LISTEN", "127.0.0.1:1", "8181", "expected an address and port such as 127.0.0.1:8181"),
    ("TOLLGATE_LISTEN_HEALTH", "127.0.0.1:2", "localhost", "expected an address and port"),
    ("TOLLGATE_DATA", "elsewhere", "", "expected a path"),
    ("TOLLGATE_TLS_CERTIFICATE_FILE", "a", "", "expected a path"),
    ("TOLLGATE_TLS_KEY_FILE", "a", "", "expected a path"),
    ("TOLLGATE_TLS_CLIENT_CA_FILE", "a", "", "expected a path"),
    ("TOLLGATE_TLS_CLIENT_CERTIFICATES", "optional", "maybe", "expected off or optional or required"),
    ("TOLLGATE_REDIS_URL", "redis://a # b", "", "expected a text"),
    ("TOLLGATE_STRICT", "true", "1", "expected true or false"),
    ("TOLLGATE_INSECURE", "true", "yes", "expected true or false"),
    ("TOLLGATE_WORKERS", "3", "1025", "expected a whole number from 0 to 1024"),
    ("TOLLGATE_LOG_FORMAT", "json", "xml", "expected text or json"),
    ("TOLLGATE_LOG_LEVEL", "warn", "loud", "expected error or warn or info or debug or trace"),
    ("TOLLGATE_ALERTS_WEBHOOK_URL", "https://a.example/", "ftp://a", "https"),
    ("TOLLGATE_DECISION_LOG", "{ level: all }", "{ level: some }", "TOLLGATE_DECISION_LOG:1:10"),
    ("TOLLGATE_IDENTITY", "{ loopback: closed }", "{ loopback: shut }", "TOLLGATE_IDENTITY:1:13"),
    ("TOLLGATE_ROUTES", "[{ path: /x, action: chat }]", "[{ path: x, action: chat }]", "TOLLGATE_ROUTES:1:"),
];

#[test]
fn every_variable_sets_something_and_its_errors_name_it() {
    // A certificate needs its key, and an alert its secret.
    let others = [
        ("TOLLGATE_TLS_CERTIFICATE_FILE", "c"),
        ("TOLLGATE_TLS_KEY_FILE", "k"),
        ("TOLLGATE_TLS_CLIENT_CA_FILE", "ca"),
        ("TOLLGATE_TLS_CLIENT_CERTIFICATES", "required"),
        ("TOLLGATE_ALERTS_WEBHOOK_SECRET", "0123456789abcdef"),
    ];
    let without = load(None, &others, Flags::default()).unwrap();
    for (name, value, wrong, part) in VARIABLES {
        let with = |value| -> Vec<_> {
            let others = others.into_iter().filter(|(other, _)| *other != name);
            others.chain([(name, value)]).collect()
        };
        let settings = load(None, &with(value), Flags::default()).unwrap();
        assert_ne!(settings, without, "{name}");
        let said = load(None, &with(wrong), Flags::default()).unwrap_err();
        assert!(said.starts_with(&format!("{name}: ")) && said.contains(part), "{name}: {said}");
    }
}

/// The settings that are scalars or lists of them, in the order of the file.
const SETTINGS: [&str; 44] = [
    "policies",
    "listen",
    "listen_health",
    "hosts",
    "cors.origins",
    "tls.certificate_file",
    "tls.key_file",
    "tls.client_ca_file",
    "tls.client_certificates",
    "data",
    "meters.in_memory",
    "meters.redis.url",
    "meters.redis.cluster",
    "meters.redis.timeout_ms",
    "meters.redis.prefix",
    "meters.redis.eviction",
    "strict",
    "insecure",
    "limits.body_bytes",
    "limits.batch",
    "limits.header_bytes",
    "limits.connections",
    "limits.open_reservations_per_principal",
    "limits.header_timeout_ms",
    "limits.body_timeout_ms",
    "limits.idle_timeout_ms",
    "limits.shutdown_ms",
    "decisions.reserve",
    "decisions.budget_status",
    "validate.authorize",
    "alerts.webhook.url",
    "alerts.webhook.secret_file",
    "alerts.webhook.node",
    "alerts.webhook.attempts",
    "alerts.webhook.pause_ms",
    "alerts.webhook.timeout_ms",
    "alerts.webhook.queue",
    "reload.guard",
    "reload.look_every_ms",
    "reload.manifest.required",
    "reload.manifest.public_keys",
    "log.format",
    "log.level",
    "server.workers",
];

fn described(schema: &serde_json::Value, path: &str, found: &mut Vec<(String, serde_json::Value)>) {
    for (name, member) in schema["properties"].as_object().unwrap() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if member["properties"].is_object() {
            described(member, &path, found);
        } else {
            found.push((path, member.clone()));
        }
    }
}

#[test]
fn the_schema_has_every_setting_with_its_default() {
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
    let mut found = Vec::new();
    described(&schema, "", &mut found);
    let of_sections = ["decision_log", "identity", "routes"];
    let is_flat = |name: &str| !of_sections.iter().any(|section| name.split('.').next() == Some(section));
    found.retain(|(name, _)| is_flat(name));
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, SETTINGS);
    // A file of these defaults changes nothing.
    let mut file = serde_json::json!({});
    for (name, described) in &found {
        assert!(described["description"].is_string(), "{name}");
        let Some(default) = described.get("default").cloned() else { continue };
        let member = name.split('.').fold(&mut file, |section, name| &mut section[name]);
        *member = default;
    }
    let mut settings = load(Some(&file.to_string()), &[], Flags::default()).unwrap();
    for path in [&mut settings.policies, &mut settings.data] {
        *path = path.file_name().unwrap().into();
    }
    assert_eq!(settings, Settings::default());
}

#[test]
fn the_documents_show_the_defaults() {
    let page = std::fs::read_to_string("docs/http.md").unwrap();
    let (_, settings) = page.split_once("## Settings").unwrap();
    let (_, example) = settings.split_once("```yaml").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let mut settings = load(Some(example), &[], Flags::default()).unwrap();
    // The file stands in a directory of the test's own.
    for path in [&mut settings.policies, &mut settings.data] {
        *path = path.file_name().unwrap().into();
    }
    assert_eq!(settings, Settings::default());
    // Each of them is there.
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
    let mut sections = vec![&schema];
    let mut count = 0;
    while let Some(section) = sections.pop() {
        for (name, described) in section["properties"].as_object().into_iter().flatten() {
            assert!(example.contains(&format!("{name}:")), "{name}");
            count += 1;
            // Of these the pages that they name tell.
            if !["identity", "routes", "decision_log"].contains(&name.as_str()) {
                sections.push(described);
            }
        }
    }
    assert!(count > 40, "{count}");
}
