//! Questions of callers without the role of a gateway: such a caller may ask only about itself, and may hold nothing.

use std::sync::Arc;

use super::app::App;
use super::caller::{self, Admitted, Peer};
use super::errors::{ApiError, ErrorCode};
use super::options::Silence;
use super::wire::{Asked, Asking};
use crate::gate;
use crate::model::{ADMINISTRATOR, EntityUid, GATEWAY, Identity, RefusalReason, Request};
use crate::policy::Snapshot;

/// The meaning of an absent `reserve`: a caller that may not hold only checks.
pub(super) fn silence(app: &App, admitted: &Admitted) -> Silence {
    if matches!(admitted, Admitted::Itself(_)) { Silence::Checks } else { app.silence }
}

/// The question as `admitted` may ask it: a caller that may only ask about itself is the one that its own credential
/// proved, with all that it is narrowed to.
///
/// # Errors
/// 403 where it asks about another one, or wants to hold something.
pub(super) async fn checked(app: &App, admitted: &Admitted, peer: &Peer, asked: Asked) -> Result<Asked, ApiError> {
    let Admitted::Itself(identity) = admitted else { return Ok(asked) };
    if asked.holds() {
        let message = format!("{} may check but not hold: a hold needs the role `{GATEWAY}`", identity.principal);
        return Err(refused("reserve", message));
    }
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    match asked {
        Asked::Named(mut question) => {
            match &mut question.asking {
                Asking::One(request) => itself(&snapshot, identity, &mut request.principal, &mut request.identity)?,
                Asking::Candidates(request, _) => {
                    itself(&snapshot, identity, &mut request.principal, &mut request.identity)?;
                }
            }
            Ok(Asked::Named(question))
        }
        Asked::Unproved(credential, parts) => {
            let mut presented = caller::presented(&credential, &parts, &snapshot)?;
            // A caller without the role of a gateway cannot set the source address of a guess.
            presented.source = peer.address;
            let proved = caller::identify(app, &snapshot, &presented, app.engine.facts().now).await;
            let own = gate::person(&snapshot, identity);
            match proved {
                Ok(proved) if gate::person(&snapshot, &proved) == own => Ok(Asked::Named(parts.proved(&proved))),
                // These refusals are temporary and say nothing about the credential itself.
                Err(refusal)
                    if matches!(
                        refusal.reason,
                        RefusalReason::ProviderUnavailable | RefusalReason::TooManyFailures
                    ) =>
                {
                    Err(caller::refused(&refusal, &credential))
                }
                _ => Err(another("credential", identity)),
            }
        }
    }
}

/// Like [`checked`], for a question in the form of cedar-agent.
pub(super) fn checked_request(
    snapshot: &Arc<Snapshot>,
    admitted: &Admitted,
    mut request: Request,
) -> Result<Request, ApiError> {
    if let Admitted::Itself(identity) = admitted {
        itself(snapshot, identity, &mut request.principal, &mut request.identity)?;
    }
    Ok(request)
}

/// Puts the proved caller where its name, or the name of its owner, stands.
fn itself(
    snapshot: &Snapshot,
    identity: &Arc<Identity>,
    principal: &mut EntityUid,
    proved: &mut Option<Arc<Identity>>,
) -> Result<(), ApiError> {
    if *principal != identity.principal && *principal != gate::person(snapshot, identity) {
        return Err(another("principal", identity));
    }
    principal.clone_from(&identity.principal);
    *proved = Some(Arc::clone(identity));
    Ok(())
}

fn another(param: &str, identity: &Identity) -> ApiError {
    let message = format!(
        "{} may ask only about itself: a question about others needs the role `{GATEWAY}` or `{ADMINISTRATOR}`, and a \
         key that is not narrowed",
        identity.principal
    );
    refused(param, message)
}

fn refused(param: &str, message: String) -> ApiError {
    ApiError { param: param.to_owned(), ..ApiError::new(ErrorCode::Forbidden, message) }
}
