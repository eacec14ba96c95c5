//! Loading: a bundle becomes a snapshot, or a list of everything that is wrong with it. The one function that `check`,
//! the watcher, the server and library users all call.
//!
//! What did not change since the last load is not parsed, validated, linked or compiled again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::bundle::{Bundle, FileKind, SourceFile};
use super::excerpt;
use super::index::{Filed, Index};
use super::limit_schema::{LimitNames, native_texts};
use super::limits::Limits;
use super::link::{self, Files, Kept, LinkCache, Linked, ParsedFile, Parts};
use super::native::{EntitiesFile, NativeFile};
use super::parallel;
use super::parse;
use super::problem::{Problem, ProblemCode, Severity};
use super::proved::RecentlyProved;
use super::report;
use super::schema::BundleSchema;
use super::snapshot::Snapshot;
use super::source;
use super::syntax::Place;
use super::test_file;
use crate::model::{Effect, starred_keys};

/// Most problems that one load reports.
const MOST_PROBLEMS: usize = 1_000;

/// A bundle that loads.
#[derive(Debug)]
pub struct Loaded {
    /// What decides.
    pub snapshot: Arc<Snapshot>,
    /// Warnings and notes, sorted.
    pub problems: Vec<Problem>,
}

/// One file, as far as it can be understood alone.
#[derive(Debug, Clone)]
enum Unit {
    Yaml(Arc<ParsedFile>, Arc<[Problem]>),
    Policies(Arc<NativeFile>),
    Entities(Arc<EntitiesFile>),
    /// A file of tests; only its problems are kept.
    Tests(Arc<[Problem]>),
    /// Schema fragments, which are read elsewhere.
    Other,
}

/// Loads bundles one after the other, keeping what may serve the next.
#[derive(Debug, Default)]
pub struct Loader {
    strict: bool,
    admin_policies: bool,
    units: HashMap<Arc<str>, ([u8; 32], u64, Unit)>,
    links: LinkCache,
    last: Option<Last>,
    schema: Option<(Vec<[u8; 32]>, Arc<BundleSchema>)>,
}

/// The last bundle that loaded.
#[derive(Debug)]
struct Last {
    /// The digest of each file, by path.
    files: Vec<(Arc<str>, [u8; 32])>,
    kept: Kept,
    problems: Vec<Problem>,
}

/// Loads one bundle.
///
/// # Errors
/// Every problem of every file, sorted, warnings among them.
pub fn load(bundle: &Bundle) -> Result<Loaded, Vec<Problem>> {
    Loader::default().load(bundle)
}

/// Compiles policies that need not fit their schema, as they stand: the way of [`load`] without its checks, for comparing
/// decisions with Cedar's own. Rules keep the order in which Cedar names the policies, `policy0`, `policy1` …
///
/// # Errors
/// Where a policy is more than is evaluated at all: too deep, or a template.
pub fn unchecked(
    policies: &cedar_policy::PolicySet,
    schema: &cedar_policy::Schema,
    entities: &cedar_policy::Entities,
) -> Result<Snapshot, Vec<Problem>> {
    let compile = || {
        let schema = BundleSchema::of(schema.clone(), 0).map_err(|error| vec![refused(error)])?;
        let (schema, path) = (Arc::new(schema), Arc::from("policy"));
        let policies = Arc::new(NativeFile::of(&path, policies.as_ref(), &schema));
        if !policies.problems.is_empty() {
            return Err(policies.problems.clone());
        }
        let known = |entity: &&cedar_policy_core::ast::Entity| !entity.uid().is_action();
        let entities: &cedar_policy_core::entities::Entities = entities.as_ref();
        let entities = Arc::new(EntitiesFile::of(&path, entities.iter().filter(known).cloned()));
        let files = Files { policies: vec![policies], entities: vec![entities], ..Files::default() };
        let linked = link::link(&LinkCache::default(), &schema, &files, None);
        if !linked.sound {
            return Err(linked.problems);
        }
        Ok(snapshot(linked, Arc::clone(&schema), &Bundle::default()).0)
    };
    parallel::on_large_stack(compile)
        .unwrap_or_else(|| Err(vec![refused("the policies could not be compiled".to_owned())]))
}

fn refused(message: String) -> Problem {
    Problem::error(ProblemCode::BundleTooLarge, &Arc::from(""), Place::default(), message)
}

impl Loader {
    /// A loader; a strict one takes warnings for errors.
    #[must_use]
    pub fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Lets the built-in policies decide the actions of `admin` for which the bundle has no rule.
    #[must_use]
    pub fn admin_policies(mut self, hold: bool) -> Self {
        self.admin_policies = hold;
        self
    }

    /// Loads `bundle`.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&mut self, bundle: &Bundle) -> Result<Loaded, Vec<Problem>> {
        parallel::on_large_stack(|| self.load_all(bundle)).unwrap_or_else(|| {
            let message = "the bundle could not be compiled: no thread for it could be started, or it ended early";
            Err(vec![refused(message.to_owned())])
        })
    }

    /// Loads the files, and reports those beside them that are not read. The two are apart because such a file comes and
    /// goes without any change of the bundle.
    fn load_all(&mut self, bundle: &Bundle) -> Result<Loaded, Vec<Problem>> {
        let outcome = self.load_here(bundle);
        if bundle.skipped().is_empty() {
            return outcome;
        }
        let with_skipped = |mut problems: Vec<Problem>| {
            problems.extend(bundle.skipped_problems());
            report::sorted(&mut problems);
            problems
        };
        match outcome {
            Ok(Loaded { snapshot, problems }) if !self.strict => {
                Ok(Loaded { snapshot, problems: with_skipped(problems) })
            }
            Ok(Loaded { problems, .. }) | Err(problems) => Err(with_skipped(problems)),
        }
    }

    fn load_here(&mut self, bundle: &Bundle) -> Result<Loaded, Vec<Problem>> {
        if let Some(last) = self.last.as_ref().filter(|last| last.is_of(bundle)) {
            return Ok(Loaded { snapshot: Arc::clone(last.kept.snapshot()), problems: last.problems.clone() });
        }
        self.read_yaml(bundle);
        let schema = match self.schema(bundle) {
            Ok(schema) => schema,
            Err(mut problems) => {
                problems.extend(self.problems(bundle, |kind| kind == FileKind::Yaml));
                return Err(finished(problems, bundle));
            }
        };
        self.read_native(bundle, &schema);
        let mut problems = self.problems(bundle, |_| true);
        self.links.tidy();
        let kept = self.last.as_ref().map(|last| &last.kept);
        let mut linked = link::link(&self.links, &schema, &self.files(bundle), kept);
        problems.append(&mut linked.problems);
        if linked.rules.is_empty() && !problems.iter().any(Problem::is_error) {
            problems.push(empty(bundle));
        }
        let failed = problems.iter().any(|problem| match problem.severity {
            Severity::Error => true,
            Severity::Warning => self.strict,
            Severity::Note => false,
        });
        let problems = finished(problems, bundle);
        if failed {
            return Err(problems);
        }
        let (mut snapshot, parts) = snapshot(linked, schema, bundle);
        snapshot.admin_policies = self.admin_policies;
        let snapshot = Arc::new(snapshot);
        let files = bundle.files().iter().map(|file| (Arc::clone(&file.path), file.digest)).collect();
        self.last = Some(Last { files, kept: parts.with(Arc::clone(&snapshot)), problems: problems.clone() });
        Ok(Loaded { snapshot, problems })
    }

    /// The files that linking is about.
    fn files(&self, bundle: &Bundle) -> Files {
        let mut files = Files::default();
        for (_, _, unit) in bundle.files().iter().filter_map(|file| self.units.get(&file.path)) {
            match unit {
                Unit::Yaml(file, _) => files.documents.push(Arc::clone(file)),
                Unit::Policies(file) => files.policies.push(Arc::clone(file)),
                Unit::Entities(file) => files.entities.push(Arc::clone(file)),
                Unit::Tests(_) | Unit::Other => {}
            }
        }
        files
    }

    fn schema(&mut self, bundle: &Bundle) -> Result<Arc<BundleSchema>, Vec<Problem>> {
        let fragments: Vec<&SourceFile> = bundle.files().iter().filter(|file| file.kind == FileKind::Schema).collect();
        let digests: Vec<[u8; 32]> = fragments.iter().map(|file| file.digest).collect();
        let documents = bundle.files().iter().filter_map(|file| match self.units.get(&file.path) {
            Some((_, _, Unit::Yaml(file, _))) => Some(&file.document),
            _ => None,
        });
        let limits = LimitNames::of(documents, native_texts(bundle));
        if let Some((known, schema)) = &self.schema
            && *known == digests
            && schema.limits == limits
        {
            return Ok(Arc::clone(schema));
        }
        let schema = Arc::new(BundleSchema::load(&fragments, limits)?);
        self.schema = Some((digests, Arc::clone(&schema)));
        Ok(schema)
    }

    /// Parses the YAML files that changed. No schema is needed for it: the limits that they declare are part of the
    /// schema.
    fn read_yaml(&mut self, bundle: &Bundle) {
        self.read(
            bundle,
            0,
            |kind| kind == FileKind::Yaml,
            |file| {
                let parsed = parse::parse(file);
                let document = ParsedFile { path: Arc::clone(&file.path), document: parsed.document };
                Unit::Yaml(Arc::new(document), parsed.problems.into())
            },
        );
    }

    /// Parses and validates the native files that changed, or all of them where the schema did; and forgets files that
    /// are gone.
    fn read_native(&mut self, bundle: &Bundle, schema: &BundleSchema) {
        self.read(
            bundle,
            schema.key,
            |kind| kind != FileKind::Yaml,
            |file| match file.kind {
                FileKind::Cedar => Unit::Policies(Arc::new(NativeFile::load(file, schema))),
                FileKind::Entities => Unit::Entities(Arc::new(EntitiesFile::load(file, schema))),
                FileKind::Test => Unit::Tests(test_file::problems(file).into()),
                FileKind::Yaml | FileKind::Schema => Unit::Other,
            },
        );
        if self.units.len() > bundle.files().len() {
            let present: std::collections::HashSet<&Arc<str>> = bundle.files().iter().map(|file| &file.path).collect();
            self.units.retain(|path, _| present.contains(path));
        }
    }

    /// Reads the changed files of these kinds, on as many threads as there are cores.
    fn read(
        &mut self,
        bundle: &Bundle,
        key: u64,
        kinds: impl Fn(FileKind) -> bool,
        understand: impl Fn(&SourceFile) -> Unit + Sync,
    ) {
        let is_new = |file: &&SourceFile| {
            let known = self.units.get(&file.path);
            known.is_none_or(|(digest, known, _)| *digest != file.digest || *known != key)
        };
        let changed: Vec<&SourceFile> = bundle.files().iter().filter(|file| kinds(file.kind)).filter(is_new).collect();
        for (file, unit) in changed.iter().zip(parallel::each(&changed, |file| understand(file))) {
            self.units.insert(Arc::clone(&file.path), (file.digest, key, unit));
        }
    }

    /// What is wrong with each file of these kinds by itself.
    fn problems(&self, bundle: &Bundle, kinds: impl Fn(FileKind) -> bool) -> Vec<Problem> {
        let found = |unit: &Unit| match unit {
            Unit::Yaml(_, problems) | Unit::Tests(problems) => problems.to_vec(),
            Unit::Policies(file) => file.problems.clone(),
            Unit::Entities(file) => file.problems.clone(),
            Unit::Other => Vec::new(),
        };
        let files = bundle.files().iter().filter(|file| kinds(file.kind));
        files.filter_map(|file| self.units.get(&file.path)).flat_map(|(_, _, unit)| found(unit)).collect()
    }
}

impl Last {
    fn is_of(&self, bundle: &Bundle) -> bool {
        let files = bundle.files();
        self.files.len() == files.len()
            && self.files.iter().zip(files).all(|((path, digest), file)| *path == file.path && *digest == file.digest)
    }
}

/// The snapshot of what was linked, and what the next load may take over of it.
fn snapshot(mut linked: Linked, schema: Arc<BundleSchema>, bundle: &Bundle) -> (Snapshot, Parts) {
    linked.rules.shrink_to_fit();
    let filed: Vec<Filed> =
        linked.rules.iter().map(|rule| Filed { principal: rule.principal, resource: rule.resource }).collect();
    let index = Index::build(&mut linked.scopes, &linked.store, &filed);
    let Linked {
        store,
        scopes,
        rules,
        limits,
        files,
        conditions,
        action_sets,
        aliases,
        group_patterns,
        mut counts,
        parts,
        ..
    } = linked;
    counts.files = bundle.files().len();
    counts.rules = rules.len();
    counts.permits = rules.iter().filter(|rule| rule.effect == Effect::Permit).count();
    counts.forbids = rules.len() - counts.permits;
    counts.conditions = conditions.len();
    counts.limits = limits.len();
    counts.entities = store.len();
    let may_be_disabled = store.iter().any(|(_, record)| {
        record.details.as_ref().is_some_and(|details| details.extras.disabled || details.extras.expires_at.is_some())
    });
    let limits = Limits::build(limits, &scopes, &store);
    let reads_meters = conditions.iter().any(|condition| condition.reads.members.say_meters());
    let snapshot = Snapshot {
        revision: bundle.revision(),
        schema,
        store,
        scopes,
        index,
        rules,
        limits,
        files,
        conditions,
        action_sets,
        aliases,
        group_patterns,
        counts,
        may_be_disabled,
        admin_policies: false,
        reads_meters,
        recently_proved: RecentlyProved::default(),
        narrowed_keys: OnceLock::new(),
    };
    (snapshot, parts)
}

fn empty(bundle: &Bundle) -> Problem {
    let message = match bundle.files().len() {
        0 => "the bundle has no files".to_owned(),
        count => format!("the bundle has no rule in any of its files ({count})"),
    };
    Problem::error(ProblemCode::BundleEmpty, &Arc::from(""), Place::default(), message)
        .with_help("write at least one rule under `authz_rules:`; `tollgate init` writes a bundle to begin with")
}

/// The problems sorted, each with the line that it points at, not more than can be read.
fn finished(mut problems: Vec<Problem>, bundle: &Bundle) -> Vec<Problem> {
    report::sorted(&mut problems);
    for problem in &mut problems {
        let texts = std::iter::once(&mut problem.message).chain(&mut problem.help);
        texts.for_each(|text| {
            if let Cow::Owned(starred) = starred_keys(text) {
                *text = starred;
            }
        });
    }
    let count = problems.len();
    if count > MOST_PROBLEMS {
        // Errors are what must be mended first.
        problems.sort_by_key(|problem| problem.severity);
        problems.truncate(MOST_PROBLEMS);
        report::sorted(&mut problems);
        let message = format!("{} more problems are not shown", count - MOST_PROBLEMS);
        problems.push(Problem {
            severity: Severity::Note,
            ..Problem::error(ProblemCode::TooManyProblems, &Arc::from(""), Place::default(), message)
        });
    }
    let texts: HashMap<&Arc<str>, &SourceFile> = bundle.files().iter().map(|file| (&file.path, file)).collect();
    // All problems of one file at once, since its text is parsed to find the parts that must not be shown.
    for of_one_file in problems.chunk_by_mut(|left, right| left.file == right.file) {
        let file = of_one_file.first().and_then(|problem| texts.get(&problem.file));
        if let Some(text) = file.and_then(|file| source::text(file).ok()) {
            excerpt::fill(of_one_file, text);
        }
    }
    problems
}
