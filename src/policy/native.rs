//! Native Cedar: policies of `.cedar` files and entities of `.entities.json` files, parsed and validated per file.

use std::borrow::Cow;
use std::sync::Arc;

use cedar_policy_core::ast::{
    ActionConstraint, AnyId, BinaryOp, Entity, EntityReference, EntityType, EntityUID, Expr, ExprKind, Literal,
    PartialValue, Policy, PolicySet, PrincipalOrResourceConstraint, Template, UnaryOp, Value, ValueKind, Var,
};
use cedar_policy_core::validator::{ValidationMode, ValidationWarning, Validator};
use miette::Diagnostic;
use serde_json::value::RawValue;
use smol_str::{SmolStr, format_smolstr};

use super::addresses;
use super::bundle::SourceFile;
use super::condition::{Clause, Condition, MAX_DEPTH, Reads, bare, conjuncts, depth};
use super::entities::{Details, EntityIndex, Kind};
use super::guard;
use super::index::{Key, KeyIndex, ScopeIndex};
use super::link::Linker;
use super::named::{Named, NamedPart};
use super::problem::{Problem, ProblemCode, Severity};
use super::schema::{ActionSet, BundleSchema};
use super::snapshot::Rule;
use super::source;
use super::syntax::Place;
use super::validate;
use crate::model::Effect;

/// How many problems of one file are shown.
const MOST_PROBLEMS: usize = 200;
const MEND_THE_FIRST: &str = "many of them are often one mistake: mend the first and look again";

/// One alternative of a scope, before entities are numbered.
#[derive(Debug, Clone)]
enum Alternative {
    Is(EntityType),
    In(Arc<EntityUID>),
    Eq(Arc<EntityUID>),
}

type NativeScope = Vec<Vec<Alternative>>;

/// A policy of a `.cedar` file.
#[derive(Debug)]
pub struct NativePolicy {
    /// What it is called.
    pub id: SmolStr,
    /// Where it stands.
    pub place: Place,
    effect: Effect,
    principal: NativeScope,
    resource: NativeScope,
    actions: ActionSet,
    condition: Option<Arc<Condition>>,
    /// What its scope and its conditions name, in the order of the text.
    named: Box<[(Named, Place)]>,
}

/// A `.cedar` file, parsed and validated.
#[derive(Debug)]
pub struct NativeFile {
    /// Its path in the bundle.
    pub path: Arc<str>,
    /// Its policies, in their order.
    pub policies: Vec<NativePolicy>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// An `.entities.json` file, parsed and validated.
#[derive(Debug)]
pub struct EntitiesFile {
    /// Its path in the bundle.
    pub path: Arc<str>,
    entities: Vec<(Arc<Entity>, Place)>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl NativeFile {
    /// Parses and validates a `.cedar` file.
    #[must_use]
    pub fn load(file: &SourceFile, schema: &BundleSchema) -> Self {
        let mut loaded = Self { path: Arc::clone(&file.path), policies: Vec::new(), problems: Vec::new() };
        match parse(file) {
            Ok((text, set)) => {
                let text = &*text;
                loaded.validate(text, &set, schema);
                let mut places = source::Places::new(text);
                loaded.compile(&set, schema, |offset, length| places.of(offset, length));
                let shown = source::text(file).unwrap_or(text);
                loaded.problems = loaded.problems.drain(..).map(|problem| source::with_line(problem, shown)).collect();
            }
            Err(problems) => loaded.problems = problems,
        }
        loaded
    }

    /// A set of policies, without validation.
    #[must_use]
    pub fn of(path: &Arc<str>, set: &PolicySet, schema: &BundleSchema) -> Self {
        let mut loaded = Self { path: Arc::clone(path), policies: Vec::new(), problems: Vec::new() };
        loaded.compile(set, schema, |_, _| Place::default());
        loaded
    }

    fn validate(&mut self, text: &str, set: &PolicySet, schema: &BundleSchema) {
        let path = Arc::clone(&self.path);
        let put = |problems: &mut Vec<Problem>, severity, place, code, message: String, help| {
            let problem = Problem { severity, help, ..Problem::error(code, &path, place, message) };
            if !problems.iter().any(|known| known.place == problem.place && known.code == problem.code) {
                problems.push(problem);
            }
        };
        for template in set.templates().take(MOST_PROBLEMS) {
            let place = template.loc().map_or_else(Place::default, |loc| source::place_at(text, loc.start(), 6));
            let help =
                "name the entity instead of `?principal` or `?resource`; nothing links templates here".to_owned();
            let message = "a template is no policy".to_owned();
            put(&mut self.problems, Severity::Error, place, ProblemCode::CedarTemplate, message, Some(help));
        }
        let validator = Validator::new(schema.core().clone());
        let mut policies: Vec<_> = set.policies().collect();
        policies.sort_by_key(|policy| policy.loc().map_or(0, cedar_policy_core::parser::Loc::start));
        let mut refused = 0;
        for (number, policy) in policies.iter().enumerate() {
            if refused == MOST_PROBLEMS {
                let place = self.problems.last().map_or_else(Place::default, |last| Place { length: 0, ..last.place });
                let message = format!("{} more policies were not looked at", policies.len() - number);
                let problem = Problem::error(ProblemCode::TooManyProblems, &self.path, place, message);
                self.problems.push(problem.with_help(MEND_THE_FIRST));
                break;
            }
            let unknown = unknown_limits(policy, text, schema);
            let found =
                if unknown.is_empty() { validate_one(&validator, schema, policy, text, refused > 0) } else { unknown };
            refused += usize::from(found.iter().any(|found| found.severity == Severity::Error));
            for Finding { severity, code, offset, length, message, help } in found {
                put(&mut self.problems, severity, source::place_at(text, offset, length), code, message, help);
            }
        }
    }

    /// Takes up the policies of `set`; `place` finds the place of some bytes of the file, and is asked in their order.
    fn compile(&mut self, set: &PolicySet, schema: &BundleSchema, mut place: impl FnMut(usize, usize) -> Place) {
        let mut numbered: Vec<_> = set.policies().collect();
        // The parser calls them policy0, policy1 … in the order of the file.
        numbered.sort_by_key(|policy| {
            let id = policy.id().to_string();
            (id.trim_start_matches("policy").parse::<usize>().unwrap_or(usize::MAX), id)
        });
        let name: Option<AnyId> = "id".parse().ok();
        for (position, policy) in numbered.into_iter().enumerate() {
            let template = policy.template();
            let own_place = template.loc().map_or_else(Place::default, |loc| place(loc.start(), 1));
            let given = name.as_ref().and_then(|name| policy.annotation(name)).map(|annotation| annotation.val.clone());
            let stem = self.path.strip_suffix(".cedar").unwrap_or(&self.path);
            let id = given.filter(|id| !id.is_empty()).unwrap_or_else(|| format_smolstr!("{stem}#{}", position + 1));
            let (principal, resource, condition) = split(template);
            if let Some(deep) =
                condition.iter().map(|clause| depth(&clause.expression)).find(|depth| *depth > MAX_DEPTH)
            {
                let message = format!("the condition is {deep} levels deep; {MAX_DEPTH} are evaluated at most");
                let problem = Problem::error(ProblemCode::ConditionTooComplex, &self.path, own_place, message);
                self.problems.push(problem.with_help(guard::HELP));
                continue;
            }
            let named = named(template).into_iter().map(|NamedPart { named, offset, length }| {
                let place = place(offset, length);
                (named, place)
            });
            self.policies.push(NativePolicy {
                id,
                place: own_place,
                named: named.collect(),
                effect: effect(policy.effect()),
                principal,
                resource,
                actions: actions(policy.action_constraint(), schema),
                condition: Condition::new(condition).map(Arc::new),
            });
        }
    }
}

/// Something that Cedar finds in a policy, and the bytes of the file that it is about.
struct Finding {
    severity: Severity,
    code: ProblemCode,
    offset: usize,
    length: usize,
    message: String,
    help: Option<String>,
}

/// The limits that a policy names and the bundle does not have: Cedar takes what asks whether there is one for false.
fn unknown_limits(policy: &Policy, text: &str, schema: &BundleSchema) -> Vec<Finding> {
    let (start, end) = policy.loc().map_or((0, text.len()), |loc| (loc.start(), loc.end()));
    let Some(condition) = policy.non_scope_constraints() else { return Vec::new() };
    let mut unknown = Reads::of(condition).limits;
    unknown.retain(|id| !schema.limits.has(id));
    unknown.sort_unstable();
    unknown.dedup();
    let finding = |id: SmolStr| Finding {
        severity: Severity::Error,
        code: ProblemCode::UnknownReference,
        offset: start + text.get(start..end).and_then(|own| own.find(id.as_str())).unwrap_or(0),
        length: id.len().max(1),
        message: format!("no limit is called `{id}`"),
        help: Some(schema.limits.help(&id)),
    };
    unknown.into_iter().map(finding).collect()
}

/// What Cedar finds in one policy of `text`, in an order that does not depend on Cedar's tables. Each of its errors carries
/// the text that the policy was parsed from and is hashed with it; with `alone`, that is the policy's own.
fn validate_one(
    validator: &Validator,
    schema: &BundleSchema,
    policy: &Policy,
    text: &str,
    alone: bool,
) -> Vec<Finding> {
    let (start, end) = policy.loc().map_or((0, text.len()), |loc| (loc.start(), loc.end()));
    let own = text.get(start..end).filter(|_| alone);
    let parsed = own.and_then(|own| cedar_policy_core::parser::parse_policy(Some(policy.id().clone()), own).ok());
    let shift = if parsed.is_some() { start } else { 0 };
    let mut one = PolicySet::new();
    // Neither can fail in a set without policies.
    let _ = match parsed {
        Some(parsed) => one.add_static(parsed),
        None => one.add(policy.clone()),
    };
    let place = |error: &dyn Diagnostic| {
        let (offset, length) = source::label_of(error).unwrap_or((0, 1));
        (offset + shift, length)
    };
    let result = validator.validate(&one, ValidationMode::Strict);
    let mut found = Vec::new();
    for error in result.validation_errors() {
        let (offset, length) = place(error);
        let (snippet, clause) = (text.get(offset..offset + length), clause_at(policy, text, offset));
        let told = validate::of_error(error, snippet, clause.as_ref(), effect(policy.effect()), schema);
        let code = if told.code == ProblemCode::ConditionType { ProblemCode::CedarValidation } else { told.code };
        found.push(Finding { severity: Severity::Error, code, offset, length, message: told.message, help: told.help });
    }
    // What a policy with a mistake in it can match is not known.
    for warning in result.validation_warnings().filter(|_| found.is_empty()).collect::<Vec<_>>() {
        let (offset, length) = place(warning);
        let (severity, code) = match warning {
            ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) => {
                (Severity::Error, ProblemCode::NeverMatches)
            }
            _ => (Severity::Warning, ProblemCode::CedarValidation),
        };
        let (message, help) =
            (validate::bare(&warning.to_string()), warning.help().map(|help| validate::bare(&help.to_string())));
        found.push(Finding { severity, code, offset, length, message, help });
    }
    found.sort_by(|left, right| {
        (left.offset, left.code, &left.message).cmp(&(right.offset, right.code, &right.message))
    });
    found.dedup_by(|next, first| (next.offset, next.code) == (first.offset, first.code));
    found
}

/// The clause of a policy that contains `offset` of the file.
fn clause_at(policy: &Policy, text: &str, offset: usize) -> Option<Clause> {
    let holds = |part: &Expr| part.source_loc().is_some_and(|loc| (loc.start()..loc.end()).contains(&offset));
    let holds = |part: &&Expr| part.subexpressions().any(holds);
    let part = conjuncts(policy.non_scope_constraints()?).into_iter().find(holds)?;
    let made = |part: &Expr, unless| {
        let parses = |text: &&str| text.parse::<Expr>().is_ok_and(|parsed| parsed.to_string() == part.to_string());
        let written = part.source_loc().and_then(|loc| text.get(loc.start()..loc.end())).filter(parses);
        let text = written.map_or_else(|| SmolStr::from(part.to_string()), SmolStr::from);
        Clause { unless, text, expression: part.clone(), named: Arc::default() }
    };
    match part.expr_kind() {
        // The parser turns `unless` into a negation that has no place in the text.
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } if made(part, false).text != part_text(part, text) => {
            Some(made(arg, true))
        }
        _ => Some(made(part, false)),
    }
}

/// The text of the file at the place that the parser reports for `part`.
fn part_text<'a>(part: &Expr, text: &'a str) -> &'a str {
    part.source_loc().and_then(|loc| text.get(loc.start()..loc.end())).unwrap_or_default()
}

fn effect(effect: cedar_policy_core::ast::Effect) -> Effect {
    match effect {
        cedar_policy_core::ast::Effect::Permit => Effect::Permit,
        cedar_policy_core::ast::Effect::Forbid => Effect::Forbid,
    }
}

fn parse(file: &SourceFile) -> Result<(Cow<'_, str>, PolicySet), Vec<Problem>> {
    let text = source::text(file).map_err(|problem| vec![problem])?;
    guard::cedar_text(text).map_err(|trouble| {
        let place = source::place_at(text, trouble.offset, 1);
        let problem = Problem::error(ProblemCode::ConditionTooComplex, &file.path, place, trouble.to_string());
        vec![source::with_line(problem.with_help(guard::HELP), text)]
    })?;
    let parsed = cedar_policy_core::parser::parse_policyset(text).map(|set| {
        let conditions = set.all_templates().filter_map(Template::non_scope_constraints);
        let rewritten = addresses::rewritten(text, conditions);
        let again = rewritten.and_then(|text| Some((cedar_policy_core::parser::parse_policyset(&text).ok()?, text)));
        again.map_or((Cow::Borrowed(text), set), |(set, text)| (Cow::Owned(text), set))
    });
    parsed.map_err(|errors| {
        let problem = |error: &cedar_policy_core::parser::err::ParseError| {
            let place = source::place_of(error, text);
            let problem = Problem::error(ProblemCode::CedarSyntax, &file.path, place, error.to_string());
            let help = error.help().map(|help| help.to_string());
            source::with_line(Problem { help, ..problem }, text)
        };
        let problems = errors.iter().take(MOST_PROBLEMS).map(problem).collect();
        with_the_rest(problems, errors.len(), &file.path)
    })
}

/// `problems`, and that there are more where they are not all of `count`.
fn with_the_rest(mut problems: Vec<Problem>, count: usize, path: &Arc<str>) -> Vec<Problem> {
    if let Some(more) = count.checked_sub(MOST_PROBLEMS).filter(|more| *more > 0) {
        let place = problems.last().map_or_else(Place::default, |last| Place { length: 0, ..last.place });
        let message = format!("{more} more problems are not shown");
        let problem = Problem::error(ProblemCode::TooManyProblems, path, place, message);
        problems.push(problem.with_help(MEND_THE_FIRST));
    }
    problems
}

fn actions(constraint: &ActionConstraint, schema: &BundleSchema) -> ActionSet {
    let named = |uids: &mut dyn Iterator<Item = &EntityUID>, below: bool| {
        let mut all = Vec::new();
        for uid in uids {
            let Some(index) = schema.action(&uid.to_string()) else { continue };
            all.push(index);
            if below && let Some(action) = schema.action_at(index) {
                all.extend(action.descendants.iter());
            }
        }
        ActionSet::of(all)
    };
    match constraint {
        ActionConstraint::Any => ActionSet::of(schema.actions().map(|(index, _)| index)),
        ActionConstraint::In(uids) => named(&mut uids.iter().map(AsRef::as_ref), true),
        ActionConstraint::Eq(uid) => named(&mut std::iter::once(uid.as_ref()), false),
    }
}

/// A policy as scopes and what is left. The first conjuncts that only say who or what belong to the scopes: such a test
/// raises no error, so that leaving it to the index changes neither the outcome nor the errors.
fn split(policy: &Template) -> (NativeScope, NativeScope, Vec<Clause>) {
    let mut principal = head(policy.principal_constraint().as_inner());
    let mut resource = head(policy.resource_constraint().as_inner());
    let Some(condition) = policy.non_scope_constraints() else { return (principal, resource, Vec::new()) };
    let parts = conjuncts(condition);
    let mut taken = 0;
    for part in &parts {
        if let Some(clause) = alternatives(part, Var::Principal) {
            principal.push(clause);
        } else if let Some(clause) = alternatives(part, Var::Resource) {
            resource.push(clause);
        } else {
            break;
        }
        taken += 1;
    }
    let left = parts.iter().skip(taken).map(|part| {
        let expression = bare(part);
        // What the policy names is kept with its places in the file instead.
        Clause { unless: false, text: expression.to_string().into(), expression, named: Arc::default() }
    });
    (principal, resource, left.collect())
}

/// What a policy names, in the order of its text; its actions are no entities of a bundle.
fn named(policy: &Template) -> Vec<NamedPart> {
    let of_scope = |constraint: &PrincipalOrResourceConstraint| match constraint {
        PrincipalOrResourceConstraint::In(reference)
        | PrincipalOrResourceConstraint::Eq(reference)
        | PrincipalOrResourceConstraint::IsIn(_, reference) => match reference {
            EntityReference::EUID(uid) => Some(NamedPart::entity(uid, None)),
            EntityReference::Slot(_) => None,
        },
        PrincipalOrResourceConstraint::Any | PrincipalOrResourceConstraint::Is(_) => None,
    };
    let scopes = [policy.principal_constraint().as_inner(), policy.resource_constraint().as_inner()];
    let mut found: Vec<NamedPart> = scopes.into_iter().filter_map(of_scope).collect();
    found.extend(policy.non_scope_constraints().map(NamedPart::all).unwrap_or_default());
    found.sort_by_key(|part| part.offset);
    found
}

fn head(constraint: &PrincipalOrResourceConstraint) -> NativeScope {
    let uid = |reference: &EntityReference| match reference {
        EntityReference::EUID(uid) => Some(Arc::clone(uid)),
        EntityReference::Slot(_) => None,
    };
    let one = |alternative: Option<Alternative>| alternative.map(|alternative| vec![alternative]);
    let clauses = match constraint {
        PrincipalOrResourceConstraint::Any => vec![],
        PrincipalOrResourceConstraint::In(reference) => vec![one(uid(reference).map(Alternative::In))],
        PrincipalOrResourceConstraint::Eq(reference) => vec![one(uid(reference).map(Alternative::Eq))],
        PrincipalOrResourceConstraint::Is(kind) => vec![one(Some(Alternative::Is(kind.as_ref().clone())))],
        PrincipalOrResourceConstraint::IsIn(kind, reference) => {
            vec![one(uid(reference).map(Alternative::In)), one(Some(Alternative::Is(kind.as_ref().clone())))]
        }
    };
    clauses.into_iter().flatten().collect()
}

/// The alternatives of a test that says who (or what) by entity or type, and nothing else.
fn alternatives(expression: &Expr, variable: Var) -> Option<Vec<Alternative>> {
    let is_variable = |expression: &Expr| matches!(expression.expr_kind(), ExprKind::Var(var) if *var == variable);
    match expression.expr_kind() {
        ExprKind::Or { left, right } => {
            let mut both = alternatives(left, variable)?;
            both.extend(alternatives(right, variable)?);
            Some(both)
        }
        ExprKind::Is { expr, entity_type } if is_variable(expr) => Some(vec![Alternative::Is(entity_type.clone())]),
        ExprKind::BinaryApp { op: BinaryOp::Eq, arg1, arg2 } => {
            let other = if is_variable(arg1) {
                arg2
            } else if is_variable(arg2) {
                arg1
            } else {
                return None;
            };
            Some(vec![Alternative::Eq(entity(other)?)])
        }
        ExprKind::BinaryApp { op: BinaryOp::In, arg1, arg2 } if is_variable(arg1) => match arg2.expr_kind() {
            ExprKind::Set(elements) if !elements.is_empty() => {
                elements.iter().map(|element| entity(element).map(Alternative::In)).collect()
            }
            _ => Some(vec![Alternative::In(entity(arg2)?)]),
        },
        _ => None,
    }
}

fn entity(expression: &Expr) -> Option<Arc<EntityUID>> {
    match expression.expr_kind() {
        ExprKind::Lit(Literal::EntityUID(uid)) => Some(Arc::clone(uid)),
        _ => None,
    }
}

impl EntitiesFile {
    /// Parses an `.entities.json` file: a list of entities in Cedar's JSON form, each checked against the schema.
    #[must_use]
    pub fn load(file: &SourceFile, schema: &BundleSchema) -> Self {
        let mut loaded = Self { path: Arc::clone(&file.path), entities: Vec::new(), problems: Vec::new() };
        let text = match source::text(file) {
            Ok(text) => text,
            Err(problem) => {
                loaded.problems.push(problem);
                return loaded;
            }
        };
        let items: Vec<&RawValue> = match serde_json::from_str(text) {
            Ok(items) => items,
            Err(error) => {
                let (line, column) = (error.line().max(1), error.column().max(1));
                let place = Place { line: source::number(line), column: source::number(column), length: 1 };
                loaded.problem(place, format!("this is no list of entities: {}", without_place(&error)), text);
                return loaded;
            }
        };
        let mut places = source::Places::new(text);
        for item in items {
            let place = places.at((item.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize));
            let value = match crate::model::strict_json::from_str(item.get()) {
                Ok(value) => value,
                Err(error) => {
                    loaded.problem(place, without_place(&error), text);
                    continue;
                }
            };
            match cedar_policy::Entity::from_json_value(value, Some(&schema.schema)) {
                Ok(entity) if misnamed(entity.as_ref()) => {
                    let message = format!("the `name` of `{}` is not its id", entity.uid());
                    loaded.problem(place, message, text);
                }
                Ok(entity) => loaded.entities.push((Arc::new(addresses::entity(entity.as_ref())), place)),
                Err(error) => loaded.problem(place, super::schema::describe(&error), text),
            }
        }
        loaded
    }

    /// Entities as they are, without a file.
    pub fn of(path: &Arc<str>, entities: impl IntoIterator<Item = Entity>) -> Self {
        let entities = entities.into_iter().map(|entity| (Arc::new(entity), Place::default())).collect();
        Self { path: Arc::clone(path), entities, problems: Vec::new() }
    }

    /// Where the entity stands.
    #[must_use]
    pub fn place_of(&self, uid: &EntityUID) -> Option<Place> {
        self.entities.iter().find(|(entity, _)| entity.uid() == uid).map(|(_, place)| *place)
    }

    fn problem(&mut self, place: Place, message: String, text: &str) {
        let problem = Problem::error(ProblemCode::EntitiesInvalid, &self.path, place, message)
            .with_help("each entity is `{\"uid\": {\"type\": …, \"id\": …}, \"attrs\": {…}, \"parents\": […]}`, as the schema wants it");
        self.problems.push(source::with_line(problem, text));
    }
}

impl Linker<'_> {
    /// Adds entities of JSON files; their parents may be entities of any file.
    pub fn native_entities(&mut self, files: &[Arc<EntitiesFile>]) {
        for file in files {
            for (entity, place) in &file.entities {
                let Some(index) = self.entity_index(entity.uid()) else { continue };
                if self.store.record(index).declared {
                    let message = format!("`{}` is declared twice", entity.uid());
                    let help = "an entity is declared once in the whole bundle, in YAML or in JSON".to_owned();
                    self.error(ProblemCode::DuplicateId, &file.path, *place, message, Some(help));
                    continue;
                }
                let parents = entity.ancestors().filter_map(|parent| self.entity_index(parent)).collect();
                let record = self.store.record_mut(index);
                record.declared = true;
                record.parents = parents;
                record.details = Some(Box::new(Details {
                    tags: strings(entity.get("tags")),
                    roles: strings(entity.get("roles")),
                    native: Some(Arc::clone(entity)),
                    ..Details::default()
                }));
                self.place_in_namespace(index);
            }
        }
    }

    /// Looks up the parents of entities of JSON files, once files have declared all that they declare: one that names
    /// nothing is as wrong there as in YAML's `teams:`.
    pub fn native_parents(&mut self, files: &[Arc<EntitiesFile>]) {
        for file in files {
            for (entity, place) in &file.entities {
                let mut parents: Vec<&EntityUID> = entity.ancestors().collect();
                parents.sort_unstable();
                for parent in parents {
                    self.entity_literal(parent, *place, &file.path);
                }
            }
        }
    }

    /// Gives entities of JSON files all their ancestors, once all parents are known and found to be in no circle.
    pub fn close_native_entities(&mut self) {
        let natives: Vec<(EntityIndex, Arc<Entity>)> = self
            .store
            .iter()
            .filter_map(|(index, record)| Some((index, Arc::clone(record.details.as_ref()?.native.as_ref()?))))
            .collect();
        for (index, entity) in natives {
            let parents = &self.store.record(index).parents;
            let direct = parents.iter().map(|parent| self.store.core_uid(*parent)).collect();
            let closure = self.store.closure(parents);
            let indirect = closure.iter().skip(parents.len()).map(|parent| self.store.core_uid(*parent)).collect();
            let closed = Entity::new_with_attr_partial_value(
                entity.uid().clone(),
                entity.attrs().map(|(name, value)| (name.clone(), value.clone())),
                indirect,
                direct,
                entity.tags().map(|(name, value)| (name.clone(), value.clone())),
            );
            if let Some(details) = &mut self.store.record_mut(index).details {
                details.native = Some(Arc::new(closed));
            }
        }
    }

    /// Adds the policies of a `.cedar` file.
    pub fn native_policies(&mut self, file: &NativeFile) {
        let number = self.file_number(&file.path);
        for policy in &file.policies {
            for (named, place) in &policy.named {
                self.look_up(named, *place, &file.path);
            }
            let principal = self.native_scope(&policy.principal);
            let resource = self.native_scope(&policy.resource);
            if policy.place.line > 0 {
                self.note_if_always_looked_at(principal, resource, policy.place, &policy.id, &file.path);
            }
            let condition = policy.condition.as_ref().map(|condition| self.condition_number(condition));
            let actions = self.action_set(policy.actions.clone());
            self.rules.push(Rule {
                id: policy.id.clone(),
                effect: policy.effect,
                file: number,
                line: policy.place.line,
                principal,
                resource,
                actions,
                exact: self.scopes.are_exact(principal, resource),
                direct_only: false,
                condition,
            });
        }
    }

    fn native_scope(&mut self, scope: &NativeScope) -> ScopeIndex {
        let clauses: Vec<Vec<KeyIndex>> =
            scope.iter().map(|clause| clause.iter().filter_map(|one| self.alternative_key(one)).collect()).collect();
        self.scopes.scope(clauses)
    }

    fn alternative_key(&mut self, alternative: &Alternative) -> Option<KeyIndex> {
        let key = match alternative {
            Alternative::Is(kind) => Key::Is(self.store.kind(&kind.to_string())?),
            Alternative::In(uid) => Key::In(self.entity_index(uid)?),
            Alternative::Eq(uid) => Key::Eq(self.entity_index(uid)?),
        };
        Some(self.scopes.key(key))
    }

    fn entity_index(&mut self, uid: &EntityUID) -> Option<EntityIndex> {
        let kind: Kind = self.store.kind(&uid.entity_type().to_string())?;
        let id = SmolStr::new(uid.eid());
        let index = self.store.intern(kind, &id);
        if !self.store.record(index).declared {
            self.place_in_namespace(index);
        }
        Some(index)
    }
}

/// A JSON error's message without its own place, which is told apart.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(" at line ").map_or(message.clone(), |(before, _)| before.to_owned())
}

/// Whether it is a model (or another resource with a namespace) whose `name` differs from its id, by which rules and
/// requests name it.
fn misnamed(entity: &Entity) -> bool {
    let kind = Kind::named(&entity.uid().entity_type().to_string());
    let name = Value::from(SmolStr::new(entity.uid().eid()));
    kind.and_then(Kind::namespace).is_some() && entity.get("name") != Some(&PartialValue::Value(name))
}

/// The texts of a set attribute.
pub(crate) fn strings(value: Option<&PartialValue>) -> Box<[SmolStr]> {
    let Some(PartialValue::Value(Value { value: ValueKind::Set(set), .. })) = value else { return Box::default() };
    set.iter()
        .filter_map(|member| match member.value_kind() {
            ValueKind::Lit(Literal::String(text)) => Some(text.clone()),
            _ => None,
        })
        .collect()
}
