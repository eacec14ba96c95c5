//! Wires the providers of identities, in the order of the configuration.

use std::sync::Arc;

use crate::config::{BasicSettings, IdentitySettings, ProviderKind, Settings};
use crate::edge::identity::{
    BasicProvider, CertificateProvider, ForwardedProvider, Htpasswd, PasswordOptions, StaticProvider, StaticSecret,
};
use crate::gate::Authenticator;

/// The providers; a word about each that is not for production.
///
/// # Errors
/// With the reason, where one cannot be had.
pub(super) fn providers(settings: &Settings) -> Result<Vec<Arc<dyn Authenticator>>, Box<dyn std::error::Error>> {
    let IdentitySettings { providers, .. } = &settings.identity;
    let mut made: Vec<Arc<dyn Authenticator>> = Vec::with_capacity(providers.len());
    for provider in providers {
        made.push(match &provider.kind {
            ProviderKind::Static(tokens) => {
                super::say("warning: fixed tokens (`identity.providers: static`) are for development");
                let secret = |one: &crate::config::StaticToken| StaticSecret {
                    token: one.token.clone(),
                    principal: one.principal.clone(),
                    roles: one.roles.clone(),
                };
                Arc::new(StaticProvider::new(tokens.tokens.iter().map(secret).collect())?)
            }
            ProviderKind::Basic(settings) => Arc::new(basic(provider.name.clone(), settings)?),
            ProviderKind::ClientCertificate(mappings) => {
                Arc::new(CertificateProvider::new(mappings.clone()).named(provider.name.clone()))
            }
            ProviderKind::ForwardedCertificate(forwarded) => {
                let made = ForwardedProvider::new(forwarded.from.clone(), forwarded.mappings.clone());
                Arc::new(made.named(provider.name.clone()))
            }
        });
    }
    Ok(made)
}

fn basic(name: String, settings: &BasicSettings) -> Result<BasicProvider, Box<dyn std::error::Error>> {
    let BasicSettings { htpasswd, bundle, at_once, queue, cache_ms } = settings.clone();
    let htpasswd = htpasswd.map(Htpasswd::open).transpose()?;
    let options = PasswordOptions { at_once, queue, cache_ms, bundle, ..PasswordOptions::default() };
    Ok(BasicProvider::new(name, options, htpasswd)?)
}
