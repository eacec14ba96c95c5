//! The rights of the clients that call the service: the roles of Tollgate itself, and whose usage a client may read.

use std::net::IpAddr;
use std::sync::Arc;

use super::Pinned;
use super::call::{Authority, AuthorizeCall, Caller};
use super::error::PdpError;
use crate::gate::{self, Manager, VIEW_USAGE};
use crate::model::{ADMINISTRATOR, EntityUid, GATEWAY, Identity, RefusalReason};

/// A client whose credential was accepted.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// Its identity.
    pub identity: &'a Arc<Identity>,
    /// The address that it calls from, if it is known.
    pub address: Option<IpAddr>,
}

impl Pinned<'_> {
    /// Whether a client has one of these roles of Tollgate, and its credential may use them from its address.
    #[must_use]
    pub fn has_role(&self, client: Client<'_>, roles: &[&str]) -> bool {
        gate::has_role(&self.snapshot, client.identity, roles, client.address, self.facts.now)
    }

    /// Whether policy lets a client read the usage and the limits of `principal`. `key_owner` is the owner of `principal`
    /// if that is a key of the server's store.
    #[must_use]
    pub fn may_view_usage(&self, client: Client<'_>, principal: &EntityUid, key_owner: Option<EntityUid>) -> bool {
        let (snapshot, facts) = (&*self.snapshot, &self.facts);
        let Client { identity, address } = client;
        let owner = key_owner.or_else(|| snapshot.owner_of(principal)).unwrap_or_else(|| principal.clone());
        // A restricted key may read its own usage, and that of its owner, whose limits apply to the key.
        let is_own = identity.principal.kind() == "ApiKey" && gate::person(snapshot, identity) == owner;
        let is_own = is_own && gate::is_used_from(snapshot, identity, address) && !identity.replaced;
        if is_own && *principal == identity.principal {
            return true;
        }
        let unrestricted = || Arc::new(Identity { narrowed: None, limits: Arc::default(), ..(**identity).clone() });
        let identity = &if is_own { unrestricted() } else { Arc::clone(identity) };
        let manager = Manager { snapshot, facts, identity, peer: address, session_key_ms: 0 };
        manager.right(VIEW_USAGE, &owner).is_some()
    }

    /// The call as its client may make it. A client that may ask only about itself becomes the caller, with all
    /// restrictions of its own credential.
    ///
    /// # Errors
    /// [`PdpError::NotAllowed`] if the client asks about another principal, or wants to reserve.
    pub(super) async fn restrict(&self, mut call: AuthorizeCall) -> Result<AuthorizeCall, PdpError> {
        let Authority::Itself { identity, address } = &call.authority else { return Ok(call) };
        if call.counts() {
            let message = format!("{} may check but not hold: a hold needs the role `{GATEWAY}`", identity.principal);
            return Err(PdpError::NotAllowed { param: "reserve", message });
        }
        let own = || gate::person(&self.snapshot, identity);
        let proved = match &call.caller {
            Caller::Asserted(principal) => {
                if *principal != identity.principal && *principal != own() {
                    return Err(another("principal", identity));
                }
                Arc::clone(identity)
            }
            Caller::Authenticated(proved) => {
                if gate::person(&self.snapshot, proved) != own() {
                    return Err(another("credential", identity));
                }
                Arc::clone(proved)
            }
            Caller::Forwarded(credential) => {
                let mut presented = self.presented(credential.clone(), &call.action, &call.context)?;
                // A client without the role of a gateway cannot set the source address of a guess.
                presented.source = *address;
                self.prove_itself(&presented, identity).await?
            }
            Caller::Credential(presented) => self.prove_itself(presented, identity).await?,
            Caller::Anonymous => return Err(another("credential", identity)),
        };
        call.caller = Caller::Authenticated(proved);
        Ok(call)
    }

    /// The identity that another credential of the same client proves.
    async fn prove_itself(
        &self,
        presented: &gate::Presented,
        client: &Arc<Identity>,
    ) -> Result<Arc<Identity>, PdpError> {
        match self.authenticate(presented).await {
            Ok(proved) if gate::person(&self.snapshot, &proved) == gate::person(&self.snapshot, client) => Ok(proved),
            // These refusals are temporary and do not reveal anything about the credential itself.
            Err(refusal)
                if matches!(refusal.reason, RefusalReason::ProviderUnavailable | RefusalReason::TooManyFailures) =>
            {
                Err(PdpError::Unauthenticated(refusal))
            }
            _ => Err(another("credential", client)),
        }
    }
}

fn another(param: &'static str, identity: &Identity) -> PdpError {
    let message = format!(
        "{} may ask only about itself: a question about others needs the role `{GATEWAY}` or `{ADMINISTRATOR}`, and a \
         key that is not narrowed",
        identity.principal
    );
    PdpError::NotAllowed { param, message }
}
