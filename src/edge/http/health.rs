//! What this server needs besides its bundle, and whether that answers: stores and providers of identities. It is looked up
//! in what is known already: nobody who asks for the server's health makes it ask anybody else.

use std::sync::Arc;

use super::app::App;
use crate::gate::Authenticator;

/// What a component is.
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
    /// What `/health/ready` says of it. Everybody may read that, so that it names no address and no cause; the log does.
    pub(super) fn reason(&self) -> String {
        match self.part {
            Part::Store => format!("the store of {} does not answer", self.name),
            Part::Provider => format!("the identity provider {} does not answer", self.name),
        }
    }
}

/// Every store and provider of this server, each with whether it answers.
pub(super) fn components(app: &App) -> Vec<Component> {
    let store = |name: &str, away| Component { part: Part::Store, name: name.to_owned(), away };
    let mut all = vec![store("meters", app.engine.meters().is_away())];
    // What is in memory may be older than a revocation: then nobody can say what a key proves.
    all.extend(app.keys.get().map(|desk| store("keys", desk.keys.changes().is_err())));
    let provider = |provider: &Arc<dyn Authenticator>| Component {
        part: Part::Provider,
        name: provider.name().to_owned(),
        away: provider.is_away(),
    };
    all.extend(app.engine.authenticators().iter().map(provider));
    all
}
