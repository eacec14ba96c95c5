//! Members of a record that are left out before it is hashed and written.

use smol_str::SmolStr;

/// Members that can be masked in addition to those of `context`.
const ATTRIBUTES: [&str; 7] = ["teams", "orgs", "roles", "team_roles", "tags", "email", "external_id"];

/// Some names, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    all: bool,
    some: Vec<SmolStr>,
}

impl Names {
    pub(super) fn has(&self, name: &str) -> bool {
        self.all || self.some.iter().any(|known| known == name)
    }

    pub(super) const fn has_all(&self) -> bool {
        self.all
    }
}

/// The members that are left out of every record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    /// Masked members of `context`.
    pub(super) context: Names,
    /// Masked entries of `context.metadata`, including those that a credential adds to it.
    pub(super) metadata: Names,
    /// Masked attributes that come from a credential.
    pub(super) attributes: Names,
    /// The entities of a request of its own.
    pub(super) additional_entities: bool,
}

/// Why a text is no mask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` cannot be masked; the paths are `context`, `context.NAME`, `context.metadata.KEY`, `identity.attributes`, \
     `identity.attributes.NAME` and `additional_entities`"
)]
pub struct MaskError {
    text: String,
}

impl Mask {
    /// The default mask: addresses, end users and metadata.
    #[must_use]
    pub fn usual() -> Self {
        let mut mask = Self::default();
        for path in Self::USUAL {
            // The paths are valid; a test checks them.
            let _added = mask.add(path);
        }
        mask
    }

    /// The paths of [`Mask::usual`].
    pub const USUAL: [&'static str; 3] = ["context.ip", "context.end_user", "context.metadata"];

    /// Leaves one more member out.
    ///
    /// # Errors
    /// Where the path names none that a record may have.
    pub fn add(&mut self, path: &str) -> Result<(), MaskError> {
        let wrong = || MaskError { text: path.chars().take(80).flat_map(char::escape_debug).collect() };
        match path.split_once('.') {
            None if path == "context" => {
                self.context.all = true;
                self.metadata.all = true;
            }
            None if path == "additional_entities" => self.additional_entities = true,
            Some(("context", "metadata")) => self.metadata.all = true,
            Some(("context", name)) => match name.split_once('.') {
                None if !name.is_empty() => self.context.some.push(name.into()),
                Some(("metadata", key)) if !key.is_empty() => self.metadata.some.push(key.into()),
                _ => return Err(wrong()),
            },
            Some(("identity", "attributes")) => self.attributes.all = true,
            Some(("identity", rest)) => match rest.split_once('.') {
                Some(("attributes", name)) if ATTRIBUTES.contains(&name) => self.attributes.some.push(name.into()),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_members_of_a_record() {
        let mut mask = Mask::usual();
        assert!(mask.context.has("ip") && mask.context.has("end_user") && mask.metadata.has_all());
        assert!(!mask.context.has("input_tokens") && !mask.additional_entities);
        for path in [
            "context",
            "additional_entities",
            "identity.attributes",
            "identity.attributes.email",
            "context.metadata.a.b",
        ] {
            mask.add(path).unwrap();
        }
        for path in
            ["", "principal", "context.", "context.metadata.", "identity", "identity.attributes.password", "a.b"]
        {
            assert!(mask.add(path).is_err(), "{path}");
        }
    }
}
