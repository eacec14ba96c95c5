//! Wycheproof's vectors of JSON Web Signatures: every invalid one is refused, and of the valid ones those that are refused
//! by policy are listed here, with the reason.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tollgate::edge::identity::jose::{Jws, KeySet};

const VECTORS: &str = include_str!("../cases/jose/wycheproof_json_web_signature.json");

/// Valid, and refused all the same.
const BY_POLICY: &[(i64, &str)] = &[
    (347, "ES512 (P-521) is not taken: nobody's provider signs with it, and the library has no such curve"),
    (351, "ES512 (P-521) is not taken: nobody's provider signs with it, and the library has no such curve"),
];

fn keys(key: &Value) -> KeySet {
    if key["kty"] == "oct" {
        let secret = URL_SAFE_NO_PAD.decode(key["k"].as_str().unwrap()).unwrap();
        return KeySet::of_secret(&secret).unwrap();
    }
    KeySet::of_jwks(json!({ "keys": [key] }).to_string().as_bytes()).unwrap()
}

#[test]
fn no_invalid_vector_is_accepted() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let (mut valid, mut invalid, mut wrong) = (0, 0, Vec::new());
    for group in vectors["testGroups"].as_array().unwrap() {
        let keys = keys(&group["key"]);
        for test in group["tests"].as_array().unwrap() {
            let (number, is_valid, token) = (test[0].as_i64().unwrap(), test[1] == "valid", test[3].as_str().unwrap());
            let accepted =
                Jws::parse(token, 16 * 1024).is_ok_and(|jws| jws.payload().is_ok() && keys.check(&jws, None).is_ok());
            let by_policy = BY_POLICY.iter().any(|(known, _)| *known == number);
            *(if is_valid { &mut valid } else { &mut invalid }) += 1;
            if accepted != (is_valid && !by_policy) {
                wrong.push(format!("{number} ({}, {}): accepted {accepted}", test[1], test[2]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((valid, invalid), (46, 355));
}

#[test]
fn a_shared_secret_is_never_taken_from_a_published_set() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let groups = vectors["testGroups"].as_array().unwrap();
    for group in groups.iter().filter(|group| group["key"]["kty"] == "oct") {
        let set = KeySet::of_jwks(json!({ "keys": [group["key"]] }).to_string().as_bytes()).unwrap();
        assert!(set.is_empty());
    }
}
