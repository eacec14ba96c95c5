//! Which keys hold secrets, by how they are called.

/// What the keys of secrets end with; `password` and what is written `pasword_hash` in haste among them.
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
/// What the keys of files end with. That a file is named is no secret, and where it should be is what an error is about.
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

/// Whether `text` may have a member that holds a secret: where it has none of their names, neither as it is nor escaped, and
/// no address either, it need not be looked at.
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
