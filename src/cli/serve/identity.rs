//! Wires the providers of identities, in the order of the configuration.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{BasicSettings, ProviderKind, Settings};
use crate::edge::clock::SystemClock;
use crate::edge::http::{KeyService, KeyServiceOptions, PasswordService};
use crate::edge::identity::introspection::{IntrospectionProvider, Outside};
use crate::edge::identity::jwt::JwtProvider;
use crate::edge::identity::tokens::{Lookups, TokenProvider};
use crate::edge::identity::{
    BasicProvider, CertificateProvider, DelegatedProvider, DigestFile, DigestProvider, ForwardedProvider, Htpasswd,
    KeyOptions, KeyProvider, PasswordOptions, StaticProvider,
};
use crate::edge::outgoing::Fetcher;
use crate::edge::telemetry::metrics::Metrics;
use crate::gate::{Authenticator, Clock, Fetch, Passwords, Tokens};

/// Providers, and what has to run for as long as they are asked.
#[derive(Default)]
pub(super) struct Providers {
    pub(super) asked: Vec<Arc<dyn Authenticator>>,
    pub(super) tokens: Option<Arc<dyn Tokens>>,
    pub(super) keys: Option<KeyService>,
    pub(super) passwords: Option<PasswordService>,
    pub(super) running: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// The providers; a word about each that is not for production.
///
/// # Errors
/// With the reason, where one cannot be had.
pub(super) fn providers(settings: &Settings, metrics: &Metrics) -> Result<Providers, Box<dyn std::error::Error>> {
    let fetch: Arc<dyn Fetch> = Arc::new(Fetcher::through(crate::config::proxy()?));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut made = Providers::default();
    let store = settings.identity.keys().map(|options| super::keys::open(settings, options)).transpose()?;
    let of_keys = settings.identity.keys().cloned().unwrap_or_default();
    let unknown_owners = of_keys.unknown_owners;
    let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    let options = KeyServiceOptions {
        unknown_owners,
        session_key: days(of_keys.max_days),
        orphaned_for: days(of_keys.orphan_days),
    };
    let keys = store.as_ref().map(|store| {
        let keys = || Arc::clone(&store.keys);
        made.keys = Some(KeyService::new(keys(), options));
        Arc::new(KeyProvider::new(Some(keys()), KeyOptions { unknown_owners }))
    });
    // Of each, whether it takes those of the store.
    let mut takers: Vec<(Arc<BasicProvider>, bool)> = Vec::new();
    let mut lookups = Lookups { keys: keys.clone().map(|keys| keys as _), passwords: Vec::new() };
    for provider in &settings.identity.providers {
        let fetch = || metrics.fetch(&provider.name, Arc::clone(&fetch));
        made.asked.push(match &provider.kind {
            ProviderKind::Keys(_) => match &keys {
                Some(keys) => Arc::clone(keys) as _,
                None => continue,
            },
            ProviderKind::Static(tokens) => {
                let message = "fixed tokens (`identity.providers: static`) are for development";
                tracing::warn!(target: "tollgate::identity", "{message}");
                Arc::new(StaticProvider::new(tokens.tokens.clone())?)
            }
            ProviderKind::Delegated(options) => {
                Arc::new(DelegatedProvider::new(provider.name.clone(), (**options).clone(), fetch()))
            }
            ProviderKind::Digest(settings) => {
                let file = DigestFile::open(&settings.file, &settings.realm)?;
                Arc::new(DigestProvider::new(provider.name.clone(), file)?)
            }
            ProviderKind::Jwt(jwt) => {
                let provider = JwtProvider::new(&provider.name, jwt.clone(), provider.pass_on_error);
                made.running.extend(provider.followers(&fetch(), &clock).map(|follower| Box::pin(follower) as _));
                Arc::new(provider)
            }
            ProviderKind::Introspection(asked) => {
                let by = Outside { fetch: fetch(), clock: Arc::clone(&clock) };
                Arc::new(IntrospectionProvider::new(&provider.name, (**asked).clone(), provider.pass_on_error, by))
            }
            ProviderKind::Basic(settings) => {
                let passwords = store.as_ref().filter(|_| settings.store).map(|store| Arc::clone(&store.passwords));
                let basic = Arc::new(basic(provider.name.clone(), settings, passwords, unknown_owners)?);
                takers.push((Arc::clone(&basic), settings.store));
                lookups.passwords.push(Arc::clone(&basic) as _);
                basic
            }
            ProviderKind::ClientCertificate(mappings) => {
                Arc::new(CertificateProvider::new(mappings.clone()).named(provider.name.clone()))
            }
            ProviderKind::ForwardedCertificate(forwarded) => {
                let made = ForwardedProvider::new(forwarded.from.clone(), forwarded.mappings.clone());
                Arc::new(made.named(provider.name.clone()))
            }
        });
    }
    super::metrics::passwords(metrics, takers.iter().map(|(basic, _)| Arc::clone(basic)).collect());
    let store = store.filter(|_| takers.iter().any(|(_, takes)| *takes));
    let takers = takers.into_iter().map(|(basic, _)| basic).collect();
    made.passwords = store.map(|store| PasswordService::new(store.passwords, takers));
    if let Some(options) = &settings.identity.tokens
        && let Some(store) = super::tokens::open(settings, options)?
    {
        let tokens = Arc::new(TokenProvider::new(store, options.options.clone(), lookups, clock.now()));
        // Before the others: none of them knows these.
        made.asked.insert(0, Arc::clone(&tokens) as _);
        made.tokens = Some(tokens);
    }
    Ok(made)
}

fn basic(
    name: String,
    settings: &BasicSettings,
    passwords: Option<Arc<dyn Passwords>>,
    unknown_users: bool,
) -> Result<BasicProvider, Box<dyn std::error::Error>> {
    let BasicSettings { htpasswd, bundle, store: _, at_once, queue, cache_ms } = settings.clone();
    let htpasswd = htpasswd.map(Htpasswd::open).transpose()?;
    let options = PasswordOptions { at_once, queue, cache_ms, bundle, unknown_users, ..PasswordOptions::default() };
    Ok(BasicProvider::new(name, options, htpasswd, passwords)?)
}
