//! Wires the providers of identities, in the order of the configuration.

use std::sync::Arc;

use crate::config::{IdentitySettings, Provider, Settings};
use crate::edge::identity::{CertificateProvider, ForwardedProvider, StaticProvider, StaticSecret};
use crate::gate::Authenticator;

/// The providers; a word about each that is not for production.
///
/// # Errors
/// With the reason, where one cannot be had.
pub(super) fn providers(settings: &Settings) -> Result<Vec<Arc<dyn Authenticator>>, Box<dyn std::error::Error>> {
    let IdentitySettings { providers, .. } = &settings.identity;
    let mut made: Vec<Arc<dyn Authenticator>> = Vec::with_capacity(providers.len());
    for provider in providers {
        made.push(match provider {
            Provider::Static(tokens) => {
                super::say("warning: fixed tokens (`identity.providers: static`) are for development");
                let secret = |one: &crate::config::StaticToken| StaticSecret {
                    token: one.token.clone(),
                    principal: one.principal.clone(),
                    roles: one.roles.clone(),
                };
                Arc::new(StaticProvider::new(tokens.tokens.iter().map(secret).collect())?)
            }
            Provider::ClientCertificate(mappings) => Arc::new(CertificateProvider::new(mappings.clone())),
            Provider::ForwardedCertificate(forwarded) => {
                Arc::new(ForwardedProvider::new(forwarded.from.clone(), forwarded.mappings.clone()))
            }
        });
    }
    Ok(made)
}
