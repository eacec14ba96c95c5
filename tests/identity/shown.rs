//! What is shown of values that hold secrets: nothing of those.

use tollgate::config::{Flags, Settings};
use tollgate::gate::{Credential, FailureLimits, Failures, Presented};
use tollgate::model::{PasswordHash, SecretText};
use tollgate::policy::{Bundle, SourceFile, load};

use crate::support::BUNDLE;

const SECRET: &str = "shown-nowhere-0123456789abcdef";
const OTHER: &str = "another-shown-nowhere-0123456789";
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2hvd25ub3doZXJl$c2hvd25ub3doZXJlMDEyMzQ1Njc4OWFiY2RlZg";

#[test]
fn settings_show_no_secret() {
    let temp = tempfile::TempDir::new().unwrap();
    let (config, file) = (temp.path().join("tollgate.yaml"), temp.path().join("token"));
    std::fs::write(&file, OTHER).unwrap();
    let text = format!(
        "identity:
  providers:
    - static:
        tokens:
          - {{ token: {SECRET}, principal: 'User::\"alice\"' }}
          - {{ token_file: {}, principal: 'User::\"alice\"' }}
    - basic: {{}}
    - delegated: {{ url: 'https://auth.example.com/' }}
",
        file.display()
    );
    std::fs::write(&config, text).unwrap();
    let settings = Settings::load(&Flags { config: Some(config), ..Flags::default() }).unwrap();
    let shown = format!("{settings:?}");
    assert!(shown.contains("alice") && !shown.contains(SECRET) && !shown.contains(OTHER), "{shown}");
}

#[test]
fn a_config_that_is_wrong_shows_no_secret() {
    let temp = tempfile::TempDir::new().unwrap();
    for wrong in [
        format!("identity:\n  providers:\n    - static: {{ tokens: [{{ token: {SECRET}, principle: x }}] }}\n"),
        format!("identity:\n  providers:\n    - static: {{ tokens: [{{ token: [{SECRET}], principal: x }}] }}\n"),
        format!("identity:\n  providers:\n    - static: {{ tokens: [{{ token: {SECRET}, token: x }}] }}\n"),
        format!("identity:\n  providers:\n    - static:\n        tokens:\n          - {SECRET}\n"),
        format!("identity:\n  secret: {SECRET}\n"),
        format!("password: {SECRET}\n"),
    ] {
        let config = temp.path().join("tollgate.yaml");
        std::fs::write(&config, &wrong).unwrap();
        let error = Settings::load(&Flags { config: Some(config), ..Flags::default() }).unwrap_err().to_string();
        assert!(!error.contains(SECRET), "{error}");
    }
}

#[test]
fn credentials_and_hashes_show_no_secret() {
    let secret = || SecretText::new(SECRET);
    let credentials = [
        Credential::Bearer(secret()),
        Credential::ApiKey(secret()),
        Credential::Basic { username: "alice".into(), password: secret() },
        Credential::Digest { username: Some("alice".into()), parameters: secret() },
    ];
    let mut failures = Failures::new(FailureLimits::default());
    for credential in credentials {
        let presented = Presented::new(credential);
        let attempt = failures.attempt(&presented);
        failures.proved(&attempt, tollgate::Timestamp::from_millis(0));
        let shown = format!("{presented:?} {attempt:?} {failures:?}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
    let shown = format!("{:?}", PasswordHash::parse(HASH).unwrap());
    assert!(!shown.contains("c2hvd25"), "{shown}");
}

#[test]
fn a_bundle_shows_no_hash() {
    let text = BUNDLE.replace(
        "{ id: alice, team: research }",
        &format!("{{ id: alice, team: research, password_hash: \"{HASH}\" }}"),
    );
    let file = |text: &str| Bundle::new(SourceFile::new("bundle.yaml", text.as_bytes().to_vec()).into_iter().collect());
    let loaded = load(&file(&text)).unwrap();
    let shown = format!("{:?}", loaded.snapshot);
    assert!(!shown.contains("c2hvd25"), "a snapshot shows a hash");
    let entities = format!("{:?}", loaded.snapshot.entities_json().unwrap());
    assert!(!entities.contains("c2hvd25"), "entities show a hash");
    let problems =
        load(&file(&text.replace("team: research, password_hash", "team: reserch, password_hash"))).unwrap_err();
    let shown = tollgate::policy::report::text(&problems, false);
    assert!(shown.contains("reserch") && !shown.contains("c2hvd25"), "{shown}");
}
