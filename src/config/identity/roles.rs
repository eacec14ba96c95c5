//! Roles that the configuration gives.

use crate::model::{ADMINISTRATOR, GATEWAY, MONITOR, RESERVED_ROLE_PREFIX, check_name};

/// Whether `roles` may be given. One that looks like Tollgate's own and is none would give nothing, silently.
pub(super) fn check<R: AsRef<str>>(roles: &[R]) -> Result<(), String> {
    for role in roles.iter().map(AsRef::as_ref) {
        check_name(role).map_err(|error| format!("`roles`: {error}"))?;
        if role.starts_with(RESERVED_ROLE_PREFIX) && ![ADMINISTRATOR, GATEWAY, MONITOR].contains(&role) {
            let known = format!("`{ADMINISTRATOR}`, `{GATEWAY}`, `{MONITOR}`");
            return Err(format!("`roles`: there is no role `{role}`; Tollgate's own are {known}"));
        }
    }
    Ok(())
}
