//! From a name in a certificate to a principal: an exact name, or a pattern whose `{variable}`s are whole parts of it.
//!
//! A variable takes one part (a segment of a path, a label of a domain) of plain characters, never several and never
//! half of one, so that a pattern fits a name in one way at most. Where two variables make up an id, something stands
//! between them that neither can hold: otherwise `a-b` with `c` and `a` with `b-c` would be the same principal.

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::spiffe;
use crate::model::EntityUid;

/// Longest name that is looked at, and longest pattern.
const MAX_BYTES: usize = 2048;

/// Which of a certificate's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A URI that is a SPIFFE id.
    Spiffe,
    /// A DNS name among the alternative names.
    Dns,
    /// An email address among them.
    Email,
    /// The common name of the subject.
    CommonName,
}

impl NameKind {
    /// Its parts.
    fn parts(self, name: &str) -> Vec<&str> {
        match self {
            Self::Spiffe => name.split('/').collect(),
            Self::Dns => name.split('.').collect(),
            Self::Email => name.rsplitn(2, '@').collect(),
            Self::CommonName => vec![name],
        }
    }
}

/// What is wrong with a mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// No such name can be in a certificate.
    #[error("`{0}` fits no name of its kind")]
    Pattern(String),
    /// A variable is no whole part, or has no plain name, or comes twice.
    #[error("`{0}`: a variable is a whole part of a name, such as `{{name}}`, and has a name of its own")]
    Variable(String),
    /// A variable is used that the pattern does not have.
    #[error("`{0}` uses a variable that the name does not have")]
    Unknown(String),
    /// Two variables meet.
    #[error("`{0}`: between two variables stands something that no name can hold, such as `/` or `:`")]
    Ambiguous(String),
    /// No user and no service.
    #[error("`{0}`: a certificate proves a User or a Service")]
    Principal(String),
}

/// Text with variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(SmolStr),
    Variable(SmolStr),
}

/// A name, and whom it proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    kind: NameKind,
    parts: Vec<Piece>,
    principal_kind: SmolStr,
    principal: Template,
    teams: Vec<Template>,
    orgs: Vec<Template>,
    roles: Box<[SmolStr]>,
    tags: Vec<Template>,
}

/// Whom a name proves, and what that principal has besides what the bundle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// The principal.
    pub principal: EntityUid,
    /// Its teams.
    pub teams: Box<[SmolStr]>,
    /// Its orgs.
    pub orgs: Box<[SmolStr]>,
    /// Its roles; the operator wrote them, so they may be Tollgate's own.
    pub roles: Box<[SmolStr]>,
    /// Its tags.
    pub tags: Box<[SmolStr]>,
}

impl Mapping {
    /// Names of `kind` that fit `pattern` prove what `grants` says; all of that but roles may hold the pattern's
    /// variables.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(kind: NameKind, pattern: &str, grants: &Grants) -> Result<Self, MappingError> {
        let parts = pattern_parts(kind, pattern)?;
        let variables: BTreeSet<&SmolStr> = parts.iter().filter_map(Piece::variable).collect();
        if variables.len() != parts.iter().filter_map(Piece::variable).count() {
            return Err(MappingError::Variable(pattern.to_owned()));
        }
        if !matches!(grants.principal.kind(), "User" | "Service") {
            return Err(MappingError::Principal(grants.principal.to_string()));
        }
        let template = |text: &str| Template::read(text, &variables);
        let all = |texts: &[SmolStr]| texts.iter().map(|text| template(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            kind,
            principal_kind: grants.principal.kind().into(),
            principal: template(grants.principal.id())?,
            teams: all(&grants.teams)?,
            orgs: all(&grants.orgs)?,
            roles: grants.roles.clone(),
            tags: all(&grants.tags)?,
            parts,
        })
    }

    /// Which names it looks at.
    #[must_use]
    pub fn kind(&self) -> NameKind {
        self.kind
    }

    /// Whom `name` proves, if it fits.
    #[must_use]
    pub fn apply(&self, name: &str) -> Option<Grants> {
        if name.len() > MAX_BYTES {
            return None;
        }
        let parts = self.kind.parts(name);
        if parts.len() != self.parts.len() {
            return None;
        }
        let mut values: Vec<(&SmolStr, &str)> = Vec::new();
        for (wanted, part) in self.parts.iter().zip(parts) {
            match wanted {
                Piece::Text(text) if text == part => {}
                Piece::Variable(variable) if is_plain(part) => values.push((variable, part)),
                _ => return None,
            }
        }
        let all = |templates: &[Template]| templates.iter().map(|template| template.fill(&values)).collect();
        Some(Grants {
            principal: EntityUid::new(self.principal_kind.clone(), self.principal.fill(&values)).ok()?,
            teams: all(&self.teams),
            orgs: all(&self.orgs),
            roles: self.roles.clone(),
            tags: all(&self.tags),
        })
    }
}

/// The parts of a pattern that some name can fit.
fn pattern_parts(kind: NameKind, pattern: &str) -> Result<Vec<Piece>, MappingError> {
    let wrong = || MappingError::Pattern(pattern.to_owned());
    if pattern.is_empty() || pattern.len() > MAX_BYTES {
        return Err(wrong());
    }
    let texts = kind.parts(pattern);
    let parts: Vec<Piece> = texts.into_iter().map(|text| part(text, pattern)).collect::<Result<_, MappingError>>()?;
    let fits = match kind {
        NameKind::Spiffe => match parts.as_slice() {
            [Piece::Text(scheme), Piece::Text(empty), Piece::Text(domain), path @ ..] => {
                let is_segment = |part: &Piece| part.text().is_none_or(spiffe::is_segment);
                let starts = scheme == "spiffe:" && empty.is_empty() && spiffe::is_trust_domain(domain);
                starts && !path.is_empty() && path.iter().all(is_segment)
            }
            _ => false,
        },
        NameKind::Dns => parts.iter().all(|part| {
            let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
            part.text().is_none_or(|text| !text.is_empty() && text.bytes().all(label))
        }),
        NameKind::Email => match parts.as_slice() {
            [Piece::Text(domain), local] => !domain.is_empty() && local.text().is_none_or(|text| !text.is_empty()),
            _ => false,
        },
        NameKind::CommonName => true,
    };
    if fits { Ok(parts) } else { Err(wrong()) }
}

fn part(text: &str, whole: &str) -> Result<Piece, MappingError> {
    if !text.contains(['{', '}']) {
        return Ok(Piece::Text(text.into()));
    }
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).filter(|name| is_variable(name));
    inner.map(|name| Piece::Variable(name.into())).ok_or_else(|| MappingError::Variable(whole.to_owned()))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// What a variable takes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_plain_byte)
}

fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._+-".contains(&byte)
}

impl Piece {
    fn variable(&self) -> Option<&SmolStr> {
        match self {
            Self::Variable(name) => Some(name),
            Self::Text(_) => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Variable(_) => None,
        }
    }
}

impl Template {
    fn read(text: &str, known: &BTreeSet<&SmolStr>) -> Result<Self, MappingError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| MappingError::Variable(text.to_owned()))?;
            let name = known.get(&SmolStr::new(name)).ok_or_else(|| MappingError::Unknown(text.to_owned()))?;
            let apart = before.bytes().any(|byte| !is_plain_byte(byte));
            if !pieces.is_empty() && !apart {
                return Err(MappingError::Ambiguous(text.to_owned()));
            }
            pieces.extend([Piece::Text(before.into()), Piece::Variable((*name).clone())]);
            rest = after;
        }
        pieces.push(Piece::Text(rest.into()));
        Ok(Self(pieces))
    }

    fn fill(&self, values: &[(&SmolStr, &str)]) -> SmolStr {
        let value = |piece: &Piece| match piece {
            Piece::Text(text) => text.to_string(),
            Piece::Variable(name) => {
                // INVARIANT: a template's variables are the pattern's, and a name that fits has all of those.
                let value = values.iter().find(|(known, _)| *known == name);
                value.map_or_else(String::new, |(_, value)| (*value).to_owned())
            }
        };
        self.0.iter().map(value).collect::<String>().into()
    }
}
