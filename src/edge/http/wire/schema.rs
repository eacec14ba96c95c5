//! The types of request bodies, for their schemas.

pub(in super::super) use super::authorize::{AuthorizationRequest, BatchRequest};
pub(in super::super) use super::cedar_agent::CedarAgentRequest;
pub(in super::super) use super::keys::{ChangeKeyRequest, NewKeyRequest, RevokeRequest, RotateRequest, WrittenPath};
pub(in super::super) use super::passwords::PasswordRequest;
pub(in super::super) use super::reload::ReloadRequest;
pub(in super::super) use super::spending::{ExtendRequest, ReleaseRequest, SettleRequest, UsageRequestSchema};
pub(in super::super) use super::tokens::TokenRequest;
pub(in super::super) use super::validate::ValidateRequest;
