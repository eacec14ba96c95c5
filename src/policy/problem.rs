//! What is wrong with a bundle: the one error type of the policy way. Each problem has a place, a closed code with
//! a page of its own under `docs/diagnostics/`, and the way out.

use std::fmt;
use std::sync::Arc;

use super::syntax::Place;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The bundle does not load.
    Error,
    /// The bundle loads; with `--strict` it does not.
    Warning,
    /// Worth knowing; the bundle loads, strict or not.
    Note,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The closed set of things that can be wrong. The text of a code never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ProblemCode { $($(#[$doc])* $variant,)* }
        impl ProblemCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The code as users see it; also the name of its page.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }
    };
}

codes! {
    /// A file or folder could not be read.
    FileUnreadable = "file-unreadable",
    /// A FIFO, socket or device where a file is expected.
    NotAFile = "not-a-file",
    /// A file that looks like policy and is not read.
    FileSkipped = "file-skipped",
    /// A link that leads out of the bundle.
    LinkLeadsOut = "link-leads-out",
    /// A file over the size limit.
    FileTooLarge = "file-too-large",
    /// More files, or more bytes in all, than a bundle may hold.
    BundleTooLarge = "bundle-too-large",
    /// A bundle without any rule.
    BundleEmpty = "bundle-empty",
    /// Bytes that are not UTF-8.
    NotUtf8 = "not-utf8",
    /// A tab used as indentation.
    TabIndentation = "tab-indentation",
    /// Text that is not YAML.
    YamlSyntax = "yaml-syntax",
    /// A second document in a file.
    SeveralDocuments = "several-documents",
    /// YAML nested too deeply.
    TooDeep = "too-deep",
    /// Aliases that multiply beyond measure.
    AliasBomb = "alias-bomb",
    /// A merge key, `<<`.
    MergeKey = "merge-key",
    /// A YAML tag such as `!!binary`.
    YamlTag = "yaml-tag",
    /// The same key twice in one mapping.
    DuplicateKey = "duplicate-key",
    /// A key that nothing reads.
    UnknownField = "unknown-field",
    /// A key of a policy file in a file of tests.
    PolicyInTest = "policy-in-test",
    /// A key that must be there.
    MissingField = "missing-field",
    /// A list where a text was expected, and the like.
    WrongType = "wrong-type",
    /// Nothing (`null`, `~`) where a value was expected.
    NullValue = "null-value",
    /// An empty list, which would say neither all nor none.
    EmptyList = "empty-list",
    /// A value outside what its key takes.
    InvalidValue = "invalid-value",
    /// A name that holds what no name may hold.
    InvalidName = "invalid-name",
    /// `*` where it may not stand.
    WildcardNotAllowed = "wildcard-not-allowed",
    /// An id declared twice.
    DuplicateId = "duplicate-id",
    /// The same name twice in one list.
    DuplicateName = "duplicate-name",
    /// Two ids that differ only by case or look-alike characters.
    LookAlikeId = "look-alike-id",
    /// A password's hash that is none, or that costs too little or too much to check.
    PasswordHash = "password-hash",
    /// A reference to what is nowhere declared.
    UnknownReference = "unknown-reference",
    /// A reference that is one edit away from a declared id.
    NearMiss = "near-miss",
    /// A model name that is neither `account/model` nor an alias.
    UnknownModel = "unknown-model",
    /// A model that its account, which lists its models, does not list.
    UnlistedModel = "unlisted-model",
    /// An alias that is a model's name, or stands for two models.
    AliasClash = "alias-clash",
    /// Teams that are, through their parents, their own parents.
    MembershipCycle = "membership-cycle",
    /// An action that the schema does not have.
    UnknownAction = "unknown-action",
    /// A pattern that matches no declared model.
    PatternMatchesNothing = "pattern-matches-nothing",
    /// A rule that does not say who.
    RuleWithoutWho = "rule-without-who",
    /// A rule that does not say what.
    RuleWithoutWhat = "rule-without-what",
    /// A condition that Cedar cannot read.
    ConditionSyntax = "condition-syntax",
    /// A condition too long or too deep.
    ConditionTooComplex = "condition-too-complex",
    /// A condition whose types do not fit.
    ConditionType = "condition-type",
    /// A condition that reads what may be absent without asking first.
    UnguardedMember = "unguarded-member",
    /// A forbid that an absent member lets pass.
    GuardedForbid = "guarded-forbid",
    /// A forbid whose list of exceptions, each for itself, leaves nothing to forbid.
    UnlessAnyOf = "unless-any-of",
    /// A rule that can never match.
    NeverMatches = "never-matches",
    /// A rule that no index can skip.
    AlwaysLookedAt = "always-looked-at",
    /// A limit that says neither whom it binds nor on what.
    LimitWithoutScope = "limit-without-scope",
    /// A limit that says no amount, or more than one.
    LimitMeasure = "limit-measure",
    /// A time zone that the IANA database does not have.
    UnknownTimeZone = "unknown-time-zone",
    /// A limit for each team that gives child teams the whole amount too.
    EachChildTeam = "each-child-team",
    /// A limit that can never bind.
    LimitNeverBinds = "limit-never-binds",
    /// A money limit over models that have no price.
    ModelsWithoutPrice = "models-without-price",
    /// A price with more decimals than are counted.
    PriceRounded = "price-rounded",
    /// A price that leaves out what nearly every call costs.
    PriceIncomplete = "price-incomplete",
    /// Cedar text that does not parse.
    CedarSyntax = "cedar-syntax",
    /// A native policy that does not fit the schema.
    CedarValidation = "cedar-validation",
    /// A template, which a bundle cannot link.
    CedarTemplate = "cedar-template",
    /// A schema that does not parse, or redefines what is Tollgate's.
    SchemaInvalid = "schema-invalid",
    /// Entities that do not parse or do not fit the schema.
    EntitiesInvalid = "entities-invalid",
    /// A manifest that does not fit the files.
    ManifestMismatch = "manifest-mismatch",
    /// A signature that is missing or wrong.
    SignatureInvalid = "signature-invalid",
    /// A bundle older than one that was accepted.
    BundleOlder = "bundle-older",
    /// The record of the sequence that was accepted cannot be read or written.
    SequenceNotKept = "sequence-not-kept",
    /// A reload that drops more than the guard lets pass.
    ReloadHeld = "reload-held",
    /// More problems than are shown.
    TooManyProblems = "too-many-problems",
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Which kind.
    pub code: ProblemCode,
    /// The file, relative to the bundle; empty where a problem is about the whole bundle.
    pub file: Arc<str>,
    /// Where in the file; line 0 where it is about the whole file.
    pub place: Place,
    /// What is wrong, lower case, user input in backticks.
    pub message: String,
    /// What was expected, the nearest name, the fixed line: the way out.
    pub help: Option<String>,
    /// The line of the file that the place is in, without its line end.
    pub source_line: Option<Arc<str>>,
}

impl Problem {
    /// An error of `code` at `place` in `file`.
    pub fn error(code: ProblemCode, file: &Arc<str>, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            file: Arc::clone(file),
            place,
            message: message.into(),
            help: None,
            source_line: None,
        }
    }

    /// A warning of `code` at `place` in `file`.
    pub fn warning(code: ProblemCode, file: &Arc<str>, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, file, place, message) }
    }

    /// The same problem with the way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the bundle cannot load because of it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    /// One line: `path:line:column: error[code]: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        match (self.file.is_empty(), self.place.line) {
            (true, _) => {}
            (false, 0) => write!(f, "{}: ", self.file)?,
            (false, line) => write!(f, "{}:{}:{}: ", self.file, line, self.place.column)?,
        }
        write!(f, "{severity}[{}]: {}", self.code, self.message)
    }
}

/// The name among `names` that is nearest to `name`, if any is near enough to be meant.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bound = match name.chars().count() {
        0 | 1 => 0,
        2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    let lower = name.to_lowercase();
    // A character has up to four bytes; where each has one, a difference in length is a lower bound of the distance.
    let widest = |candidate: &str| if name.is_ascii() && candidate.is_ascii() { bound } else { 4 * bound };
    names
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= widest(candidate))
        .map(|candidate| (edit_distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, left out, replaced or swapped with their neighbour to make `left` into `right`.
#[must_use]
pub fn edit_distance(left: &str, right: &str) -> usize {
    strsim::osa_distance(left, right)
}
