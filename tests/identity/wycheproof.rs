//! Wycheproof's vectors of JSON Web Signatures: every invalid one is refused, and of the valid ones those that are refused
//! by policy are listed here, with the reason.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tollgate::edge::identity::jose::{Jws, KeySet};

const VECTORS: &str = include_str!("../cases/jose/wycheproof_json_web_signature.json");

/// Valid, and refused all the same.
const BY_POLICY: &[(i64, &str)] = &[
    (346, "the key is for PS256 and the token says PS384: a key that names its algorithm is for no other"),
    (347, "the key says `ES521`, which is no algorithm; with its right name the vector is taken, below"),
    (350, "as 346"),
    (351, "as 347"),
    (372, "a `?` in base64url is passed over by lenient readers; what stands there is no token"),
    (373, "as 372"),
];

/// Called invalid for a padding that the file does not have: each is, byte for byte, the valid vector beside it.
const SAME_AS_VALID: &[(i64, i64)] = &[(367, 357), (370, 357)];

fn keys(key: &Value) -> KeySet {
    if key["kty"] == "oct" {
        let secret = URL_SAFE_NO_PAD.decode(key["k"].as_str().unwrap()).unwrap();
        return KeySet::of_secret(&secret).unwrap();
    }
    KeySet::of_jwks(json!({ "keys": [key] }).to_string().as_bytes()).unwrap()
}

/// Figure 27 of RFC 7520, once its key has the right name for its algorithm, or none.
#[test]
fn what_p_521_signed_is_taken() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let groups = vectors["testGroups"].as_array().unwrap().iter().filter(|group| group["key"]["crv"] == "P-521");
    let mut taken = 0;
    for group in groups {
        for test in group["tests"].as_array().unwrap() {
            for name in [Some("ES512"), None] {
                let mut key = group["key"].clone();
                key.as_object_mut().unwrap().remove("alg");
                if let Some(name) = name {
                    key["alg"] = name.into();
                }
                let jws = Jws::parse(test[3].as_str().unwrap(), 16 * 1024);
                let accepted = jws.is_ok_and(|jws| keys(&key).check(&jws, None).is_ok());
                assert_eq!(accepted, test[1] == "valid", "{test}");
                taken += usize::from(accepted);
            }
        }
    }
    assert_eq!(taken, 4);
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
            if let Some((_, valid)) = SAME_AS_VALID.iter().find(|(known, _)| *known == number) {
                assert!(
                    group["tests"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|test| test[0] == *valid && test[1] == "valid" && test[3] == token)
                );
                continue;
            }
            let by_policy = BY_POLICY.iter().any(|(known, _)| *known == number);
            *(if is_valid { &mut valid } else { &mut invalid }) += 1;
            if accepted != (is_valid && !by_policy) {
                wrong.push(format!("{number} ({}, {}): accepted {accepted}", test[1], test[2]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((valid, invalid), (46, 353));
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
