//! Loading: a bundle becomes a snapshot, or a list of everything that is wrong with it. The one function that `check`,
//! the watcher, the server and library users all call.
//!
//! What did not change since the last load is not parsed, validated or compiled again.

use std::collections::HashMap;
use std::sync::Arc;

use super::bundle::{Bundle, FileKind, SourceFile};
use super::index::{Filed, Index};
use super::limit_schema::{LimitNames, native_texts};
use super::limits::Limits;
use super::link::{LinkCache, Linker, ParsedFile};
use super::native::{EntitiesFile, NativeFile};
use super::parallel;
use super::parse;
use super::problem::{Problem, ProblemCode, Severity};
use super::report;
use super::schema::BundleSchema;
use super::snapshot::Snapshot;
use super::source;
use super::syntax::Place;
use crate::model::Effect;

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
    /// Tests and schema fragments, which are read elsewhere.
    Other,
}

/// Loads bundles one after the other, keeping what may serve the next.
#[derive(Debug, Default)]
pub struct Loader {
    strict: bool,
    units: HashMap<Arc<str>, ([u8; 32], u64, Unit)>,
    links: LinkCache,
    schema: Option<(Vec<[u8; 32]>, Arc<BundleSchema>)>,
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
        let mut links = LinkCache::default();
        let mut linker = Linker::new(&schema, &mut links);
        linker.native_entities(&[Arc::clone(&entities)]);
        if !linker.check_ancestry(&[], &[entities]) {
            return Err(linker.problems);
        }
        linker.close_native_entities();
        linker.native_policies(&[policies]);
        Ok(snapshot(linker, Arc::clone(&schema), &Bundle::default()))
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

    /// Loads `bundle`.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&mut self, bundle: &Bundle) -> Result<Loaded, Vec<Problem>> {
        parallel::on_large_stack(|| self.load_here(bundle)).unwrap_or_else(|| {
            let message = "the bundle could not be compiled: no thread for it could be started, or it ended early";
            Err(vec![refused(message.to_owned())])
        })
    }

    fn load_here(&mut self, bundle: &Bundle) -> Result<Loaded, Vec<Problem>> {
        self.read_yaml(bundle);
        let schema = match self.schema(bundle) {
            Ok(schema) => schema,
            Err(mut problems) => {
                problems.extend(self.problems());
                return Err(finished(problems, bundle));
            }
        };
        self.read_native(bundle, &schema);
        let mut problems = self.problems();
        self.links.conditions.tidy();
        self.links.validation.tidy();
        let mut linker = Linker::new(&schema, &mut self.links);
        let units: Vec<&Unit> = bundle.files().iter().filter_map(|file| Some(&self.units.get(&file.path)?.2)).collect();
        let documents: Vec<_> = units
            .iter()
            .filter_map(|unit| if let Unit::Yaml(file, _) = unit { Some(Arc::clone(file)) } else { None })
            .collect();
        let policies: Vec<_> = units
            .iter()
            .filter_map(|unit| if let Unit::Policies(file) = unit { Some(Arc::clone(file)) } else { None })
            .collect();
        let entities: Vec<_> = units
            .iter()
            .filter_map(|unit| if let Unit::Entities(file) = unit { Some(Arc::clone(file)) } else { None })
            .collect();
        linker.native_entities(&entities);
        linker.documents(&documents);
        if linker.check_ancestry(&documents, &entities) {
            linker.close_native_entities();
        }
        linker.native_policies(&policies);
        problems.append(&mut linker.problems);
        if linker.rules.is_empty() && !problems.iter().any(Problem::is_error) {
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
        let snapshot = Arc::new(snapshot(linker, Arc::clone(&schema), bundle));
        Ok(Loaded { snapshot, problems })
    }

    fn schema(&mut self, bundle: &Bundle) -> Result<Arc<BundleSchema>, Vec<Problem>> {
        let fragments: Vec<&SourceFile> = bundle.files().iter().filter(|file| file.kind == FileKind::Schema).collect();
        let digests: Vec<[u8; 32]> = fragments.iter().map(|file| file.digest).collect();
        let documents = self.units.values().filter_map(|(_, _, unit)| match unit {
            Unit::Yaml(file, _) => Some(&file.document),
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

    /// Parses the YAML files that changed, and forgets files that are gone. No schema is needed for it: the limits that
    /// they declare are part of the schema.
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
        if self.units.len() > bundle.files().len() {
            let present: std::collections::HashSet<&Arc<str>> = bundle.files().iter().map(|file| &file.path).collect();
            self.units.retain(|path, _| present.contains(path));
        }
    }

    /// Parses and validates the native files that changed, or all of them where the schema did.
    fn read_native(&mut self, bundle: &Bundle, schema: &BundleSchema) {
        self.read(
            bundle,
            schema.key,
            |kind| kind != FileKind::Yaml,
            |file| match file.kind {
                FileKind::Cedar => Unit::Policies(Arc::new(NativeFile::load(file, schema))),
                FileKind::Entities => Unit::Entities(Arc::new(EntitiesFile::load(file, schema))),
                FileKind::Yaml | FileKind::Test | FileKind::Schema => Unit::Other,
            },
        );
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

    /// What is wrong with each file by itself.
    fn problems(&self) -> Vec<Problem> {
        let found = |unit: &Unit| match unit {
            Unit::Yaml(_, problems) => problems.to_vec(),
            Unit::Policies(file) => file.problems.clone(),
            Unit::Entities(file) => file.problems.clone(),
            Unit::Other => Vec::new(),
        };
        self.units.values().flat_map(|(_, _, unit)| found(unit)).collect()
    }
}

/// The snapshot of what was linked.
pub(crate) fn snapshot(mut linker: Linker<'_>, schema: Arc<BundleSchema>, bundle: &Bundle) -> Snapshot {
    let filed: Vec<Filed> =
        linker.rules.iter().map(|rule| Filed { principal: rule.principal, resource: rule.resource }).collect();
    let index = Index::build(&mut linker.scopes, &linker.store, &filed);
    let permits = linker.rules.iter().filter(|rule| rule.effect == Effect::Permit).count();
    linker.counts.files = bundle.files().len();
    linker.counts.rules = linker.rules.len();
    linker.counts.permits = permits;
    linker.counts.forbids = linker.rules.len() - permits;
    linker.counts.conditions = linker.conditions.len();
    linker.counts.limits = linker.limits.len();
    linker.counts.entities = linker.store.len();
    linker.rules.shrink_to_fit();
    let may_be_disabled = linker.store.iter().any(|(_, record)| {
        record.details.as_ref().is_some_and(|details| details.extras.disabled || details.extras.expires_at.is_some())
    });
    let limits = Limits::build(linker.limits, &linker.scopes, &linker.store);
    let reads_meters = linker.conditions.iter().any(|condition| condition.reads.members.say_meters());
    Snapshot {
        revision: bundle.revision(),
        schema,
        store: linker.store,
        scopes: linker.scopes,
        index,
        rules: linker.rules,
        limits,
        files: linker.files,
        conditions: linker.conditions,
        action_sets: linker.action_sets,
        aliases: linker.aliases,
        group_patterns: linker.group_patterns,
        counts: linker.counts,
        may_be_disabled,
        reads_meters,
    }
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
    let with_line = |problem: Problem| {
        if problem.source_line.is_some() {
            return problem;
        }
        match texts.get(&problem.file).and_then(|file| source::text(file).ok()) {
            Some(text) => source::with_line(problem, text),
            None => problem,
        }
    };
    problems.into_iter().map(with_line).collect()
}
