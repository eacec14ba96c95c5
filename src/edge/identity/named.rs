//! What of a presented name may stand in the log. Whoever has a key may send it as a name (`curl -u "$KEY:"`), and a
//! password gets typed where the name belongs; so a name is shown where the server knows it, and otherwise nothing that
//! could be a secret.

use smol_str::SmolStr;

use crate::model::{KeyText, Refusal};

/// A name as it was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named<'n> {
    /// One that somebody has.
    Known(&'n str),
    /// One that nobody has, so that it may be anything.
    Unknown(&'n str),
}

impl Named<'_> {
    /// What the log gets: the name, of a key its public id, or nothing.
    pub(super) fn shown(self) -> Option<SmolStr> {
        match self {
            Self::Known(name) => Some(name.into()),
            Self::Unknown(text) => KeyText::public_id(text).map(SmolStr::from),
        }
    }

    /// `refusal`, with what the log gets of the name.
    pub(super) fn told_in(self, refusal: Refusal) -> Refusal {
        match self.shown() {
            Some(shown) => refusal.about(shown),
            None => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_name_that_nobody_has_only_the_id_of_a_key_is_shown() {
        for (text, shown) in
            [("mallory", None), ("hunter2", None), ("tg_3JxqPZ0aTn4L_abcdefghijklmnopqrstuvwxyz", Some("3JxqPZ0aTn4L"))]
        {
            assert_eq!(Named::Unknown(text).shown().as_deref(), shown, "{text}");
        }
        assert_eq!(Named::Known("alice").shown().as_deref(), Some("alice"));
    }
}
