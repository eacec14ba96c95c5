//! The health of the components that this server needs in addition to its bundle: stores and identity providers. It
//! uses only state that is already known, so a health request never causes a request to another system.

use std::sync::Arc;

use crate::engine::Engine;
use crate::gate::{Authenticator, Keys};

/// The kind of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Where something is kept.
    Store,
    /// Who knows identities.
    Provider,
}

/// A store or provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) part: Part,
    pub(super) name: String,
    /// Whether it did not answer when it was last asked.
    pub(super) away: bool,
}

impl Component {
    /// The text in `/health/ready`. The route is open to all callers, so the text names no address and no cause; the
    /// log has both.
    pub(super) fn reason(&self) -> String {
        match self.part {
            Part::Store => format!("the store of {} does not answer", self.name),
            Part::Provider => format!("the identity provider {} does not answer", self.name),
        }
    }
}

/// Every store and provider of this server, each with whether it answers.
pub(super) fn components(engine: &Engine, keys: Option<&dyn Keys>) -> Vec<Component> {
    let store = |name: &str, away| Component { part: Part::Store, name: name.to_owned(), away };
    let mut all = vec![store("meters", engine.meters().is_away())];
    // The keys in memory may miss a revocation, so no key can be verified.
    all.extend(keys.map(|keys| store("keys", keys.changes().is_err())));
    let provider = |provider: &Arc<dyn Authenticator>| Component {
        part: Part::Provider,
        name: provider.name().to_owned(),
        away: provider.is_away(),
    };
    all.extend(engine.pdp().authenticators().iter().map(provider));
    all
}
