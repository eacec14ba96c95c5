//! Sections with a structure of their own: each is read as a whole, from `tollgate.yaml` or from a variable of the
//! environment that says all of it, in YAML or JSON, and beats the file.

use std::path::Path;
use std::sync::Arc;

use schemars::{Schema, SchemaGenerator};

use super::Settings;
use super::decision_log::DecisionLogSettings;
use super::identity::IdentitySettings;
use super::node::NodeError;
use super::{paths, routes};
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::yaml::{self, Node};

/// A section.
pub(super) struct Section {
    /// Its key in the file.
    pub(super) name: &'static str,
    /// The variable that says all of it.
    pub(super) variable: &'static str,
    /// Where people read about it.
    page: &'static str,
    /// What it is about.
    pub(super) about: &'static str,
    /// Takes what it says.
    take: fn(&mut Settings, &Node) -> Result<(), NodeError>,
    /// What it takes.
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

pub(super) const SECTIONS: [Section; 3] = [
    Section {
        name: "decision_log",
        variable: "TOLLGATE_DECISION_LOG",
        page: "docs/decision-log.md has every setting",
        about: "Which decisions are recorded, and where. Default: forbids, in files below the data directory.",
        take: |settings, node| {
            settings.decision_log = DecisionLogSettings::read(node)?;
            Ok(())
        },
        schema: DecisionLogSettings::schema,
    },
    Section {
        name: "identity",
        variable: "TOLLGATE_IDENTITY",
        page: "docs/identity.md has every setting",
        about: "Who may be whom.",
        take: |settings, node| {
            settings.identity = IdentitySettings::read(node)?;
            Ok(())
        },
        schema: IdentitySettings::schema,
    },
    Section {
        name: "routes",
        variable: "TOLLGATE_ROUTES",
        page: "docs/http.md tells of them at `POST /v1/auth/validate`",
        about: "What requests of a gateway ask for; the first that fits. Default: the paths of OpenAI and Anthropic.",
        take: |settings, node| {
            settings.http.routes = routes::read(node)?;
            Ok(())
        },
        schema: routes::schema,
    },
];

impl Section {
    /// Applies the values of the file; its paths are relative to `base`.
    pub(super) fn apply(
        &self,
        file: &Arc<str>,
        node: &Node,
        base: &Path,
        settings: &mut Settings,
    ) -> Result<(), Problem> {
        let taken = paths::resolved(node, base).and_then(|node| (self.take)(settings, &node));
        taken.map_err(|error| {
            let place = error.place.unwrap_or_default();
            let message = format!("`{}`: {}", self.name, error.message);
            Problem::error(ProblemCode::InvalidValue, file, place, message).with_help(self.page)
        })
    }

    /// Takes what stands in the variable.
    pub(super) fn apply_text(&self, text: &str, settings: &mut Settings) -> Result<(), Vec<Problem>> {
        let name: Arc<str> = self.variable.into();
        let reading = yaml::read(&name, text);
        if reading.problems.iter().any(Problem::is_error) {
            return Err(reading.problems);
        }
        let Some(root) = &reading.root else { return Ok(()) };
        // Those of the environment are relative to where the server is started.
        self.apply(&name, root, Path::new(""), settings).map_err(|problem| vec![problem])
    }
}
