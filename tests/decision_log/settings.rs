//! `decision_log:` in the configuration.

use std::ffi::OsString;

use serde_json::Value;
use tollgate::config::{Flags, Settings, schema_json};
use tollgate::edge::decision_log::{Destination, Level, OnFull, SampleRate};

fn load(text: &str) -> Result<Settings, String> {
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("t.yaml");
    std::fs::write(&path, text).unwrap();
    Settings::from(&Flags { config: Some(path), ..Flags::default() }, |_| None).map_err(|error| error.to_string())
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let settings = Settings::default();
    let options = settings.decision_log.options(&settings.data, "n".to_owned()).unwrap();
    assert_eq!(options.level, Level::Forbids);
    assert_eq!(options.destination, Destination::Folder("tollgate-data/decisions".into()));
    assert_eq!((options.max_bytes, options.keep_days, options.on_full), (1 << 30, 14, OnFull::Drop));
    let written = "decision_log: { level: forbids, file: {}, max_bytes: 1GiB, keep_days: 14, on_full: drop, mask: [context.ip, context.end_user, context.metadata] }\n";
    let log = load(written).unwrap().decision_log;
    assert_eq!(log.options(&settings.data, "n".to_owned()).unwrap(), options);
    assert!(
        load("decision_log: { level: off }\n").unwrap().decision_log.options(&settings.data, String::new()).is_none()
    );
}

#[test]
fn everything_can_be_set_in_the_file_or_the_environment() {
    let text = "{ level: { sample: 0.25 }, stdout: {}, max_bytes: 64KiB, keep_days: 1, on_full: wait, mask: [], checkpoints: { file: /c } }";
    let by_file = load(&format!("decision_log: {text}\n")).unwrap();
    let variable = |name: &str| (name == "TOLLGATE_DECISION_LOG").then(|| OsString::from(text));
    let by_environment = Settings::from(&Flags::default(), variable).unwrap();
    assert_eq!(by_file.decision_log, by_environment.decision_log);
    let log = by_file.decision_log;
    assert_eq!(log.level, Level::Sample(SampleRate::parse("0.25").unwrap()));
    assert_eq!(log.checkpoints.file.as_deref(), Some(std::path::Path::new("/c")));
    assert!(log.to_stdout && log.on_full == OnFull::Wait && log.max_bytes == 65_536 && log.keep_days == 1);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, expected) in [
        ("level: some", "t.yaml:1:24"),
        ("level: { sample: 0 }", "a decimal above 0 and at most 1"),
        ("level: { sample: 1.5 }", "a decimal above 0 and at most 1"),
        ("file: {}, stdout: {}", "not to both"),
        ("max_bytes: 1GB", "such as 268435456, 256MiB or 1GiB"),
        ("max_bytes: 1024", "64KiB"),
        ("keep_days: 0", "1 to 3650 days"),
        ("on_full: forbid", "expected `drop` or `wait`"),
        ("mask: [principal]", "`principal` cannot be masked"),
        ("sink: {}", "unknown field `sink`"),
        ("checkpoints: /c", "this must be a mapping"),
        ("checkpoints: {}", "to a `file`, to a `webhook`, or to both"),
        ("checkpoints: { webhook: { secret_file: s } }", "missing field `url`"),
        ("checkpoints: { webhook: { url: 'https://a.example' } }", "missing field `secret_file`"),
        ("checkpoints: { webhook: { url: 'http://a.example', secret_file: s } }", "expected https://"),
        ("checkpoints: { webhook: { url: 'https://a.example', secret_file: s, queue: 0 } }", "from 1 to 10000"),
        ("checkpoints: { webhook: { url: 'https://a.example', secret_file: /none } }", "/none cannot be read"),
    ] {
        let told = load(&format!("decision_log: {{ {text} }}\n")).unwrap_err();
        assert!(told.contains(expected) && told.contains("t.yaml:1:"), "{text}: {told}");
        assert!(told.contains("docs/decision-log.md"), "{told}");
    }
}

#[test]
fn the_schema_describes_the_section() {
    let schema: Value = serde_json::from_str(&schema_json()).unwrap();
    let section = &schema["properties"]["decision_log"];
    let mut names: Vec<&String> = section["properties"].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["checkpoints", "file", "keep_days", "level", "mask", "max_bytes", "on_full", "stdout"]);
    assert_eq!(section["additionalProperties"], false);
    let webhook = &section["properties"]["checkpoints"]["properties"]["webhook"];
    assert_eq!(webhook["required"], serde_json::json!(["url", "secret_file"]));
    assert_eq!(section["properties"]["level"]["anyOf"][0]["enum"], serde_json::json!(["all", "forbids", "off"]));
}
