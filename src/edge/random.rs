//! Random numbers: the one source of secrets, salts and ids.
//!
//! The generator is that of AWS-LC, which draws its seed from the operating system. Without a seed it ends the process, so
//! an error of [`aws_lc_rs::rand::fill`] is not expected in any build. Should a build return one all the same, these
//! functions panic: a start fails, and a handler answers 503. A secret or an id that can be predicted is worse than either,
//! so no caller has a fallback of its own.

/// Fills `bytes`. Secrets are drawn in place, so that no copy of them is left behind.
///
/// # Panics
/// Panics if the operating system has no random numbers.
pub fn fill(bytes: &mut [u8]) {
    assert!(aws_lc_rs::rand::fill(bytes).is_ok(), "the operating system has no random numbers");
}

/// Returns `N` new bytes.
///
/// # Panics
/// Panics if the operating system has no random numbers.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}
