//! Settings of providers that would let in too much, nobody, or somebody at random: each is an error before anything starts.

use tollgate::config::{Flags, Settings};

/// Why a provider of these settings is not taken.
fn refused(provider: &str) -> String {
    let identity = format!("providers: [{{ {provider} }}]");
    let environment = |name: &str| (name == "TOLLGATE_IDENTITY").then(|| identity.clone().into());
    match Settings::from(&Flags::default(), environment) {
        Ok(_) => format!("{provider} is taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_issuer_that_lets_in_too_much_or_nobody_is_refused() {
    let temp = tempfile::TempDir::new().unwrap();
    let secret = temp.path().join("secret");
    std::fs::write(&secret, "a-secret-of-32-bytes-at-the-least!").unwrap();
    let secret = format!("secret_file: {}", secret.display());
    let many: Vec<String> = (0..17).map(|number| format!("{number}.pem")).collect();
    let many = format!("pem_files: [{}]", many.join(", "));
    for (settings, part) in [
        ("audiences: [], jwks_file: f", "`audiences` takes 1 to 100"),
        ("audiences: [''], jwks_file: f", "`audiences` takes 1 to 100"),
        ("audiences: [t], jwks_file: f, types: []", "`types` names none"),
        ("audiences: [t], jwks_file: f, max_lifetime_seconds: 0", "`max_lifetime_seconds` is 1 at least"),
        ("audiences: [t], jwks_file: f, max_stale_ms: 0", "`max_stale_ms` is 2000 at least"),
        ("audiences: [t], jwks_file: f, max_stale_ms: 1999", "`max_stale_ms` is 2000 at least"),
        ("audiences: [t], jwks_file: f, algorithms: []", "`algorithms` names none"),
        ("audiences: [t], jwks_file: f, algorithms: [HS256]", "`HS256` wants a `secret_file`"),
        ("audiences: [t], pem_files: f, algorithms: [ES256, HS512]", "`HS512` wants a `secret_file`"),
        ("audiences: [t], jwks_url: 'https://a.example', algorithms: [HS384]", "`HS384` wants a `secret_file`"),
        (&format!("audiences: [t], {secret}, algorithms: [HS256, RS256]"), "`RS256` is for public keys"),
        (&format!("audiences: [t], {many}"), "`pem_files` names 16 at most"),
    ] {
        let said = refused(&format!("jwt: {{ issuers: [{{ issuer: 'https://a.example', {settings} }}] }}"));
        assert!(said.contains(part), "{settings}: {said}");
    }
}

#[test]
fn an_introspection_endpoint_that_lets_in_too_much_or_nobody_is_refused() {
    let temp = tempfile::TempDir::new().unwrap();
    let (good, empty) = (temp.path().join("good"), temp.path().join("empty"));
    std::fs::write(&good, "secret").unwrap();
    std::fs::write(&empty, " \n").unwrap();
    for (file, settings, part) in [
        (&good, "audiences: []", "`audiences` takes 1 to 100"),
        (&good, "audiences: ['']", "`audiences` takes 1 to 100"),
        (&good, "timeout_ms: 0", "`timeout_ms` is a number from 1 to 30000"),
        (&good, "at_once: 0", "`at_once` is a number from 1 to 10000"),
        (&good, "remember_ms: 300001", "`remember_ms` is 300000 at most"),
        (&empty, "audiences: [t]", "empty: it is empty"),
    ] {
        let file = file.display();
        let wanted = format!("url: 'https://a.example', client_id: c, client_secret_file: {file}, issuer: i");
        let said = refused(&format!("introspection: {{ {wanted}, {settings} }}"));
        assert!(said.contains(part), "{settings}: {said}");
    }
}
