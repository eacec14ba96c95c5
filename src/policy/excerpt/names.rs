//! Which keys hold secrets, by how they are called.

/// The endings of the keys of secrets. Some also match common misspellings, such as `pasword_hash`.
const SECRET: [&str; 14] = [
    "hash",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "pepper",
    "bearer",
    "authorization",
    "api_key",
    "api-key",
    "apikey",
    "private_key",
];
/// The endings of the keys of files. The name of a file is not a secret, and an error about a file has to show it.
const FILE: [&str; 5] = ["file", "files", "path", "dir", "htpasswd"];

/// Whether a member is called as secrets are.
pub(crate) fn is_secret(member: &str) -> bool {
    let member = trimmed(member);
    // A number of tokens is no secret; a list of them is, for `is_list` to say.
    let one = member.strip_suffix(['s', 'S']).filter(|_| !is_list(member)).unwrap_or(member);
    !is_file(member) && SECRET.iter().any(|name| ends_with(member, name) || ends_with(one, name))
}

/// Whether a member is called as lists of secrets are.
pub(crate) fn is_list(member: &str) -> bool {
    ends_with(trimmed(member), "tokens")
}

/// Whether a member is called as those that name files are.
pub(crate) fn is_file(member: &str) -> bool {
    FILE.iter().any(|name| ends_with(trimmed(member), name))
}

/// Whether `text` may contain a secret. A text without the name of a secret, plain or escaped, and without a URL needs
/// no further search.
pub(crate) fn may_hold_secrets(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.contains('\\') || lower.contains("://") || SECRET.iter().any(|name| lower.contains(name))
}

fn trimmed(member: &str) -> &str {
    member.trim_end_matches(['"', '\'', ' ', '\t'])
}

fn ends_with(member: &str, name: &str) -> bool {
    let (member, name) = (member.as_bytes(), name.as_bytes());
    let end = member.len().checked_sub(name.len()).and_then(|at| member.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(name))
}
