//! The manifest: what files a bundle has, said by its author, so that neither half a bundle nor another's passes for it.
//!
//! `manifest.json` lies in the bundle's directory and names every file with its size and SHA-256, and a sequence number
//! that only grows. `manifest.json.sig` beside it, if there, is the Ed25519 signature of its bytes, in base64.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::read::ManifestText;
use super::walk::{MANIFEST, SIGNATURE, problem};
use crate::model::hex;
use crate::policy::bundle::{Bundle, SourceFile};
use crate::policy::problem::{Problem, ProblemCode};

/// The form of manifest that this version writes and reads.
const VERSION: u32 = 1;
/// An Ed25519 public key, or the seed of a private one.
const KEY_BYTES: usize = 32;

/// What is demanded of a bundle's manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestPolicy {
    /// Whether there must be one. One that is there must fit in any case.
    pub required: bool,
    /// Who may sign it. With any key here a manifest is required, and so is its signature by one of them: a bundle
    /// must not get around its keys by leaving the manifest out.
    pub public_keys: Vec<PublicKey>,
    /// The lowest sequence number that is not older than the active bundle.
    pub minimum_sequence: u64,
}

/// Why a text is no key, or a key does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64.
    #[error("the key is not base64")]
    NotBase64,
    /// A public key of another length.
    #[error("an Ed25519 public key has {KEY_BYTES} bytes; this one has {length}")]
    PublicKeyLength {
        /// Its length in bytes.
        length: usize,
    },
    /// Neither a seed nor PKCS#8.
    #[error("the private key is neither a seed of {KEY_BYTES} bytes nor an Ed25519 key in PKCS#8")]
    NotPrivateKey,
    /// The system gave no random numbers, or the cryptographic library failed.
    #[error("the cryptographic library failed")]
    Cryptography,
}

/// A key that signatures are verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// The key of this text: the base64 of its 32 bytes.
    ///
    /// # Errors
    /// Where it is not that.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| KeyError::NotBase64)?;
        let bytes = bytes.as_slice().try_into().map_err(|_| KeyError::PublicKeyLength { length: bytes.len() })?;
        Ok(Self(bytes))
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// A key that manifests are signed with. Never shown, not by `Debug` either.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key of this text: the base64 of a PKCS#8 document or of a seed of 32 bytes.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| KeyError::NotBase64)?;
        let pair = match bytes.len() {
            KEY_BYTES => Ed25519KeyPair::from_seed_unchecked(&bytes),
            _ => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes),
        };
        pair.map(Self).map_err(|_| KeyError::NotPrivateKey)
    }

    /// The key that verifies what this one signs.
    ///
    /// # Errors
    /// Where the cryptographic library fails.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        self.0.public_key().as_ref().try_into().map(PublicKey).map_err(|_| KeyError::Cryptography)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// A new private key, as [`SigningKey::parse`] takes it: the base64 of a PKCS#8 document.
///
/// # Errors
/// Where the system gives no random numbers.
pub fn generate_key() -> Result<String, KeyError> {
    let document = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8()).map_err(|_| KeyError::Cryptography)?;
    Ok(STANDARD.encode(document.as_ref()))
}

/// The manifest of `bundle`: the text of `manifest.json`.
#[must_use]
pub fn create(bundle: &Bundle, sequence: u64) -> String {
    let files: Vec<_> = bundle.files().iter().map(entry_of).collect();
    format!("{:#}\n", serde_json::json!({ "version": VERSION, "sequence": sequence, "files": files }))
}

fn entry_of(file: &SourceFile) -> serde_json::Value {
    serde_json::json!({ "path": &*file.path, "size": file.bytes.len(), "sha256": hex::encode(&file.digest) })
}

/// The signature of a manifest: the text of `manifest.json.sig`.
///
/// # Errors
/// Where the cryptographic library fails.
pub fn sign(manifest: &[u8], key: &SigningKey) -> Result<String, KeyError> {
    let signature = key.0.try_sign(manifest).map_err(|_| KeyError::Cryptography)?;
    Ok(STANDARD.encode(signature.as_ref()) + "\n")
}

/// Everything in which `bundle` and its manifest do not fit each other, or `policy`. The signature comes first: of
/// what nobody signed, nothing further is read.
#[must_use]
pub fn verify(bundle: &Bundle, manifest: Option<&ManifestText>, policy: &ManifestPolicy) -> Vec<Problem> {
    let Some(manifest) = manifest else {
        if policy.required || !policy.public_keys.is_empty() {
            let help = "write it with `tollgate bundle manifest`, as the last file";
            return vec![mismatch(MANIFEST, "the bundle has no manifest, and one is required").with_help(help)];
        }
        return Vec::new();
    };
    if let Err(message) = check_signature(manifest, &policy.public_keys) {
        return vec![problem(ProblemCode::SignatureInvalid, SIGNATURE, message)];
    }
    let parsed = match serde_json::from_slice::<Manifest>(&manifest.text) {
        Ok(parsed) if parsed.version == VERSION => parsed,
        Ok(parsed) => {
            let message = format!("this is a manifest of version {}; only {VERSION} is known", parsed.version);
            return vec![mismatch(MANIFEST, message)];
        }
        Err(error) => return vec![mismatch(MANIFEST, format!("this is no manifest: {error}"))],
    };
    let mut problems = compare(bundle, &parsed);
    if parsed.sequence < policy.minimum_sequence {
        problems.push(older(parsed.sequence, policy.minimum_sequence));
    }
    problems
}

/// That a bundle is older than one that was accepted.
pub(super) fn older(sequence: u64, accepted: u64) -> Problem {
    let message = format!("this bundle's sequence is {sequence}, and one of {accepted} has been accepted");
    let help = format!(
        "to go back to an older content, publish it under a higher sequence: `tollgate bundle manifest --sequence {}`",
        accepted.saturating_add(1)
    );
    problem(ProblemCode::BundleOlder, MANIFEST, message).with_help(help)
}

/// A manifest's sequence number, if it is a manifest: what a bundle that was taken raises
/// [`ManifestPolicy::minimum_sequence`] to.
#[must_use]
pub fn sequence(manifest: &ManifestText) -> Option<u64> {
    serde_json::from_slice::<Manifest>(&manifest.text).ok().map(|manifest| manifest.sequence)
}

fn check_signature(manifest: &ManifestText, keys: &[PublicKey]) -> Result<(), &'static str> {
    if keys.is_empty() {
        return Ok(());
    }
    let Some(signature) = &manifest.signature else {
        return Err("the manifest is not signed, and a signature is required");
    };
    let text = std::str::from_utf8(signature).map_err(|_| "the signature is not base64")?;
    let signature = STANDARD.decode(text.trim()).map_err(|_| "the signature is not base64")?;
    if keys.iter().any(|key| key.verifies(&manifest.text, &signature)) {
        return Ok(());
    }
    Err("the manifest's signature is of none of the keys that may sign it")
}

fn compare(bundle: &Bundle, manifest: &Manifest) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut said: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in &manifest.files {
        if said.insert(&entry.path, entry).is_some() {
            problems.push(mismatch(MANIFEST, format!("the manifest names `{}` twice", entry.path)));
        }
    }
    for file in bundle.files() {
        match said.remove(&*file.path) {
            None => problems.push(mismatch(&file.path, "the manifest does not name this file")),
            Some(entry) if entry.size != file.bytes.len() as u64 => {
                let message = format!("the file has {} bytes, and by the manifest {}", file.bytes.len(), entry.size);
                problems.push(mismatch(&file.path, message));
            }
            Some(entry) if entry.sha256 != hex::encode(&file.digest) => {
                problems.push(mismatch(&file.path, "the file is not the one that the manifest names"));
            }
            Some(_) => {}
        }
    }
    for path in said.into_keys() {
        problems.push(mismatch(MANIFEST, format!("the manifest names `{path}`, which is not in the bundle")));
    }
    problems
}

fn mismatch(path: &str, message: impl Into<String>) -> Problem {
    problem(ProblemCode::ManifestMismatch, path, message)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    sequence: u64,
    files: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    size: u64,
    sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(files: &[(&str, &str)]) -> Bundle {
        Bundle::new(files.iter().map(|(path, text)| SourceFile::new(*path, text.as_bytes()).unwrap()).collect())
    }

    fn usual() -> Bundle {
        bundle(&[("a.yaml", "orgs: []\n"), ("eu/b.cedar", "// b\n")])
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::parse(&STANDARD.encode([seed; 32])).unwrap()
    }

    fn demanding(seeds: &[u8]) -> ManifestPolicy {
        let public_keys = seeds.iter().map(|seed| key(*seed).public_key().unwrap()).collect();
        ManifestPolicy { required: true, public_keys, minimum_sequence: 0 }
    }

    fn text(text: &str, signature: Option<&str>) -> ManifestText {
        ManifestText { text: text.as_bytes().into(), signature: signature.map(|text| text.as_bytes().into()) }
    }

    fn signed(manifest: &str, seed: u8) -> ManifestText {
        text(manifest, Some(&sign(manifest.as_bytes(), &key(seed)).unwrap()))
    }

    /// What is said of `bundle` with this manifest, a line each.
    #[track_caller]
    fn check(bundle: &Bundle, manifest: Option<&ManifestText>, policy: &ManifestPolicy, expected: &[&str]) {
        let said: Vec<String> = verify(bundle, manifest, policy).iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn a_manifest_fits_the_bundle_it_was_made_of() {
        let manifest = create(&usual(), 7);
        check(&usual(), Some(&text(&manifest, None)), &ManifestPolicy::default(), &[]);
        check(&usual(), Some(&signed(&manifest, 1)), &demanding(&[1]), &[]);
        check(&usual(), Some(&signed(&manifest, 2)), &demanding(&[1, 2]), &[]);
        assert_eq!(sequence(&text(&manifest, None)), Some(7));
    }

    #[test]
    fn a_manifest_may_be_left_out_only_where_nothing_demands_it() {
        let missing = "manifest.json: error[manifest-mismatch]: the bundle has no manifest, and one is required";
        check(&usual(), None, &ManifestPolicy::default(), &[]);
        check(&usual(), None, &ManifestPolicy { required: true, ..ManifestPolicy::default() }, &[missing]);
        check(&usual(), None, &ManifestPolicy { required: false, ..demanding(&[1]) }, &[missing]);
    }

    #[test]
    fn a_file_more_or_less_or_altered_is_a_mismatch() {
        let manifest = text(&create(&usual(), 1), None);
        let policy = ManifestPolicy::default();
        let gone =
            "manifest.json: error[manifest-mismatch]: the manifest names `eu/b.cedar`, which is not in the bundle";
        check(&bundle(&[("a.yaml", "orgs: []\n")]), Some(&manifest), &policy, &[gone]);
        let more = bundle(&[("a.yaml", "orgs: []\n"), ("c.yaml", ""), ("eu/b.cedar", "// b\n")]);
        let extra = "c.yaml: error[manifest-mismatch]: the manifest does not name this file";
        check(&more, Some(&manifest), &policy, &[extra]);
        let longer = bundle(&[("a.yaml", "orgs: [] \n"), ("eu/b.cedar", "// b\n")]);
        let size = "a.yaml: error[manifest-mismatch]: the file has 10 bytes, and by the manifest 9";
        check(&longer, Some(&manifest), &policy, &[size]);
        let other = bundle(&[("a.yaml", "orgs: [] "), ("eu/b.cedar", "// c\n")]);
        let altered = "error[manifest-mismatch]: the file is not the one that the manifest names";
        check(&other, Some(&manifest), &policy, &[&format!("a.yaml: {altered}"), &format!("eu/b.cedar: {altered}")]);
        let moved = bundle(&[("a.yaml", "orgs: []\n"), ("us/b.cedar", "// b\n")]);
        check(&moved, Some(&manifest), &policy, &[&extra.replace("c.yaml", "us/b.cedar"), gone]);
    }

    #[test]
    fn any_field_tampered_with_is_refused() {
        let manifest = create(&usual(), 7);
        let seal = sign(manifest.as_bytes(), &key(1)).unwrap();
        for (from, to) in [
            ("\"sequence\": 7", "\"sequence\": 8"),
            ("\"version\": 1", "\"version\": 2"),
            ("a.yaml", "b.yaml"),
            ("\"size\": 9", "\"size\": 8"),
            ("\"sha256\": \"", "\"sha256\": \"0"),
            ("\"files\"", "\"file\""),
        ] {
            let tampered = manifest.replacen(from, to, 1);
            assert_ne!(tampered, manifest, "{from}");
            let expected = "manifest.json.sig: error[signature-invalid]: the manifest's signature is of none of the keys that may sign it";
            check(&usual(), Some(&text(&tampered, Some(&seal))), &demanding(&[1]), &[expected]);
            let unsigned = verify(&usual(), Some(&text(&tampered, None)), &ManifestPolicy::default());
            // Without keys the sequence is whatever the manifest says; all else still shows.
            assert_eq!(unsigned.is_empty(), from.contains("sequence"), "{from}");
        }
    }

    #[test]
    fn every_single_bit_of_manifest_and_signature_is_signed() {
        let manifest = create(&usual(), 7).into_bytes();
        let seal = key(1).0.sign(&manifest);
        let public = key(1).public_key().unwrap();
        assert!(public.verifies(&manifest, seal.as_ref()));
        for position in 0..manifest.len() {
            let mut tampered = manifest.clone();
            tampered[position] ^= 1;
            assert!(!public.verifies(&tampered, seal.as_ref()), "byte {position} of the manifest");
        }
        for position in 0..seal.as_ref().len() * 8 {
            let mut tampered = seal.as_ref().to_vec();
            tampered[position / 8] ^= 1 << (position % 8);
            assert!(!public.verifies(&manifest, &tampered), "bit {position} of the signature");
        }
    }

    #[test]
    fn a_signature_must_be_there_and_be_one() {
        let manifest = create(&usual(), 7);
        let policy = demanding(&[1]);
        for (signature, message) in [
            (None, "the manifest is not signed, and a signature is required"),
            (Some(""), "the manifest's signature is of none of the keys that may sign it"),
            (Some("not base64!"), "the signature is not base64"),
            (Some("AAAA"), "the manifest's signature is of none of the keys that may sign it"),
        ] {
            let expected = format!("manifest.json.sig: error[signature-invalid]: {message}");
            check(&usual(), Some(&text(&manifest, signature)), &policy, &[&expected]);
        }
        let expected = "manifest.json.sig: error[signature-invalid]: the manifest's signature is of none of the keys that may sign it";
        check(&usual(), Some(&signed(&manifest, 2)), &policy, &[expected]);
    }

    #[test]
    fn an_older_bundle_is_refused_and_an_equal_one_is_not() {
        let manifest = signed(&create(&usual(), 7), 1);
        let since = |minimum_sequence| ManifestPolicy { minimum_sequence, ..demanding(&[1]) };
        check(&usual(), Some(&manifest), &since(7), &[]);
        let older = "manifest.json: error[bundle-older]: this bundle's sequence is 7, and one of 8 has been accepted";
        check(&usual(), Some(&manifest), &since(8), &[older]);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for bytes in [
            "",
            "null",
            "[]",
            "{}",
            "{\"version\":1,\"sequence\":-1,\"files\":[]}",
            "{\"version\":1,\"sequence\":1,\"sequence\":2,\"files\":[]}",
            "{\"version\":1,\"sequence\":1,\"files\":[],\"more\":1}",
            &"[".repeat(100_000),
        ] {
            let problems = verify(&bundle(&[]), Some(&text(bytes, None)), &ManifestPolicy::default());
            assert_eq!(problems.len(), 1, "{bytes:.60}");
            assert_eq!(problems[0].code, ProblemCode::ManifestMismatch, "{bytes:.60}");
        }
        let twice = create(&usual(), 1).replace("eu/b.cedar", "a.yaml");
        assert!(!verify(&usual(), Some(&text(&twice, None)), &ManifestPolicy::default()).is_empty());
    }

    #[test]
    fn keys_are_parsed_strictly_and_never_shown() {
        let private = generate_key().unwrap();
        let key = SigningKey::parse(&format!("{private}\n")).unwrap();
        let public = key.public_key().unwrap();
        assert_eq!(PublicKey::parse(&public.to_string()).unwrap(), public);
        assert_ne!(generate_key().unwrap(), private);
        assert_eq!(format!("{key:?}"), "SigningKey(…)");
        assert_eq!(PublicKey::parse(""), Err(KeyError::PublicKeyLength { length: 0 }));
        assert_eq!(PublicKey::parse("%"), Err(KeyError::NotBase64));
        assert_eq!(SigningKey::parse("").unwrap_err(), KeyError::NotPrivateKey);
        assert_eq!(SigningKey::parse("AAAA").unwrap_err(), KeyError::NotPrivateKey);
    }
}
