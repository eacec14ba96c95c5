//! Signed tokens (JOSE), whoever's they are: how they are taken apart, which keys check them, and what their claims must be.

mod algorithm;
mod checks;
mod jws;
mod keys;

pub use algorithm::Algorithm;
pub use checks::{Checked, Checks};
pub(super) use checks::{Rounding, check_required, instant, shown, wrong_audience};
pub use jws::{Header, Jws, MOST_TOKEN_BYTES, looks_like};
pub(super) use keys::ready;
pub use keys::{KeyError, KeySet, MAX_ALIKE, Unsigned};
