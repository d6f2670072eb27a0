//! Routes of the console, and what each one demands of the caller.

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{MethodRouter, any, on},
};
use http::Method;

use super::{
    agents::{self, tokens},
    audit::{self},
    capabilities::{self, removal},
    credentials::{federated_identities, keys, public_keys, signing_keys},
    guard, overview,
    page::{
        error::{self, FormAddress},
        frame::Frame,
        palette, preferences,
    },
    people::{account, administrators, factors, invitations, passkeys, setup, sign_in},
    resources,
};
use crate::{
    domain::Error,
    service::{Action, Services},
    web::{
        demand::{Demand, Limited, Listed, Origins},
        failure::Failure,
        routes::RateLimits,
    },
};

struct Entry {
    method: Method,
    path: &'static str,
    demand: Demand,
    limited: Limited,
    handler: MethodRouter<Arc<Services>>,
}

fn get<T: 'static>(path: &'static str, action: Action, handler: impl Handler<T, Arc<Services>>) -> Entry {
    let handler = axum::routing::get(handler);
    Entry { method: Method::GET, path, demand: Demand::Action(action), limited: Limited::Never, handler }
}

fn post<T: 'static>(path: &'static str, action: Action, handler: impl Handler<T, Arc<Services>>) -> Entry {
    let handler = axum::routing::post(handler);
    Entry { method: Method::POST, path, demand: Demand::Action(action), limited: Limited::Never, handler }
}

/// A page that requires no session, with a rate limit.
fn open<T: 'static>(
    method: Method,
    path: &'static str,
    limited: Limited,
    handler: impl Handler<T, Arc<Services>>,
) -> Entry {
    let filter =
        if method == Method::GET { axum::routing::MethodFilter::GET } else { axum::routing::MethodFilter::POST };
    Entry { method, path, demand: Demand::Nothing, limited, handler: on(filter, handler) }
}

#[expect(clippy::too_many_lines, reason = "one row for each route")]
fn table() -> Vec<Entry> {
    use Action as A;
    use Limited::{Api, Auth, Never};
    let (get_method, post_method) = (Method::GET, Method::POST);
    vec![
        open(get_method.clone(), "/console/sign-in", Api, sign_in::page),
        open(post_method.clone(), "/console/sign-in", Auth, sign_in::submit),
        open(post_method.clone(), "/console/sign-in/code", Auth, sign_in::submit_code),
        open(post_method.clone(), "/console/sign-in/passkey/options", Auth, passkeys::sign_in_options),
        open(post_method.clone(), "/console/sign-in/passkey", Auth, passkeys::sign_in),
        open(get_method.clone(), "/console/setup", Api, setup::page),
        open(post_method.clone(), "/console/setup", Auth, setup::submit),
        open(post_method.clone(), "/console/theme", Never, preferences::theme),
        open(post_method.clone(), "/console/times", Never, preferences::times),
        open(get_method, "/console/invitation", Api, invitations::page),
        open(post_method, "/console/invitation", Auth, invitations::accept),
        post("/console/sign-out", A::ManageAccount, sign_in::sign_out),
        Entry { limited: Auth, ..post("/console/confirm", A::ManageAccount, sign_in::confirm) },
        post("/console/confirm/passkey/options", A::ManageAccount, passkeys::confirm_options),
        Entry { limited: Auth, ..post("/console/confirm/passkey", A::ManageAccount, passkeys::confirm) },
        get("/console", A::ReadAudit, overview::page),
        post("/console/overview/dismiss", A::ManageAccount, overview::dismiss),
        post("/console/overview/restore", A::ManageAccount, overview::restore),
        get("/console/palette", A::ManageAccount, palette::list),
        get("/console/search", A::ManageAccount, palette::page),
        post("/console/search", A::ManageAccount, palette::submit),
        get("/console/agents", A::ListAgents, agents::list::page),
        get("/console/agents/new", A::CreateAgent, agents::create::page),
        post("/console/agents", A::CreateAgent, agents::create::submit),
        post("/console/agents/bulk", A::SuspendAgent, agents::bulk::confirm),
        post("/console/agents/bulk/apply", A::SuspendAgent, agents::bulk::apply),
        post("/console/agents/bulk/undo", A::SuspendAgent, agents::bulk::undo),
        get("/console/agents/export", A::ListAgents, agents::export::download),
        get("/console/agents/owners", A::ListAgents, agents::list::owners),
        get("/console/agents/{id}", A::ReadAgent, agents::show::overview),
        get("/console/agents/{id}/timeline", A::ReadAudit, agents::show::timeline),
        get("/console/agents/{id}/connect", A::ReadAgent, agents::show::connect),
        get("/console/agents/{id}/edit", A::UpdateAgent, agents::edit::page),
        post("/console/agents/{id}", A::UpdateAgent, agents::edit::update),
        get("/console/agents/{id}/suspend", A::SuspendAgent, agents::stop::suspend_page),
        post("/console/agents/{id}/suspend", A::SuspendAgent, agents::stop::suspend),
        post("/console/agents/{id}/reactivate", A::ReactivateAgent, agents::stop::reactivate),
        get("/console/agents/{id}/revoke", A::RevokeAgent, agents::stop::revoke_page),
        post("/console/agents/{id}/revoke", A::RevokeAgent, agents::stop::revoke),
        get("/console/agents/{id}/delete", A::DeleteAgent, agents::stop::delete_page),
        post("/console/agents/{id}/delete", A::DeleteAgent, agents::stop::delete),
        get("/console/agents/{id}/keys", A::ListKeys, keys::of_agent),
        get("/console/agents/{id}/keys/new", A::CreateKey, keys::new_page),
        post("/console/agents/{id}/keys", A::CreateKey, keys::create),
        get("/console/agents/{id}/keys/{key}", A::ListKeys, keys::page),
        get("/console/agents/{id}/keys/{key}/watch", A::ListKeys, keys::watch),
        get("/console/agents/{id}/keys/{key}/rotate", A::RotateKey, keys::rotate_page),
        post("/console/agents/{id}/keys/{key}/rotate", A::RotateKey, keys::rotate),
        get("/console/agents/{id}/keys/{key}/revoke", A::RevokeKey, keys::revoke_page),
        post("/console/agents/{id}/keys/{key}/revoke", A::RevokeKey, keys::revoke),
        get("/console/agents/{id}/keys/{key}/first-use", A::ListKeys, keys::first_use),
        get("/console/keys", A::ListKeys, keys::list),
        post("/console/keys/find", A::ListKeys, keys::find_leaked),
        post("/console/keys/bulk", A::RevokeKey, keys::confirm),
        post("/console/keys/bulk/revoke", A::RevokeKey, keys::revoke_all),
        post("/console/keys/bulk/rotate", A::RotateKey, keys::rotate_all),
        get("/console/agents/{id}/grants", A::ListGrants, capabilities::of_agent),
        post("/console/agents/{id}/grants", A::GrantCapability, capabilities::grant),
        get("/console/agents/{id}/grants/{capability}/remove", A::UngrantCapability, agents::grants::remove_page),
        post("/console/agents/{id}/grants/{capability}/remove", A::UngrantCapability, capabilities::ungrant),
        get("/console/capabilities", A::ListCapabilities, capabilities::list::page),
        get("/console/capabilities/new", A::CreateCapability, capabilities::new_page),
        post("/console/capabilities", A::CreateCapability, capabilities::create),
        get("/console/capabilities/{id}", A::ListGrants, capabilities::show::page),
        post("/console/capabilities/{id}", A::UpdateCapability, capabilities::show::describe),
        get("/console/capabilities/{id}/export", A::ListGrants, capabilities::show::export),
        post("/console/capabilities/{id}/holders", A::GrantCapability, capabilities::show::grant),
        get("/console/capabilities/{id}/holders/{key}/remove", A::UngrantCapability, removal::revoke_page),
        post("/console/capabilities/{id}/holders/{key}/remove", A::UngrantCapability, removal::revoke),
        get("/console/capabilities/{id}/grants", A::GrantCapability, capabilities::grants::choose),
        post("/console/capabilities/{id}/grants", A::GrantCapability, capabilities::grants::confirm),
        post("/console/capabilities/{id}/grants/apply", A::GrantCapability, capabilities::grants::grant),
        get("/console/capabilities/{id}/impact", A::ListGrants, removal::impact),
        post("/console/capabilities/{id}/delete", A::DeleteCapability, removal::delete),
        get("/console/agents/{id}/public-keys/new", A::CreateKey, public_keys::new_page),
        post("/console/agents/{id}/public-keys", A::CreateKey, public_keys::register),
        get("/console/agents/{id}/public-keys/{key}/remove", A::RevokeKey, public_keys::revoke_page),
        post("/console/agents/{id}/public-keys/{key}/remove", A::RevokeKey, public_keys::revoke),
        get("/console/agents/{id}/federated-identities/new", A::CreateKey, federated_identities::new_page),
        post("/console/agents/{id}/federated-identities", A::CreateKey, federated_identities::add),
        get("/console/agents/{id}/federated-identities/{key}/remove", A::RevokeKey, federated_identities::revoke_page),
        post("/console/agents/{id}/federated-identities/{key}/remove", A::RevokeKey, federated_identities::revoke),
        get("/console/agents/{id}/tokens", A::ListTokens, tokens::of_agent),
        get("/console/agents/{id}/tokens/end", A::RevokeTokens, tokens::revoke_all_page),
        post("/console/agents/{id}/tokens/end", A::RevokeTokens, tokens::revoke_all),
        post("/console/agents/{id}/delegates", A::AddDelegate, tokens::add_delegate),
        get("/console/agents/{id}/delegates/{key}/remove", A::RemoveDelegate, tokens::remove_delegate_page),
        post("/console/agents/{id}/delegates/{key}/remove", A::RemoveDelegate, tokens::remove_delegate),
        get("/console/resources", A::ListResources, resources::list),
        get("/console/resources/new", A::ManageResources, resources::new_page),
        post("/console/resources", A::ManageResources, resources::create),
        get("/console/resources/{id}", A::ListResources, resources::show),
        post("/console/resources/{id}", A::ManageResources, resources::update),
        get("/console/resources/{id}/delete", A::ManageResources, resources::delete_page),
        post("/console/resources/{id}/delete", A::ManageResources, resources::delete),
        get("/console/signing-keys", A::ListSigningKeys, signing_keys::list),
        get("/console/signing-keys/replace", A::RotateSigningKey, signing_keys::replace_page),
        post("/console/signing-keys/rotate", A::RotateSigningKey, signing_keys::rotate),
        get("/console/audit", A::ReadAudit, audit::list),
        get("/console/audit/tail", A::ReadAudit, audit::tail::stream),
        get("/console/audit/export", A::ReadAudit, audit::export::download),
        get("/console/audit/chain", A::ReadAudit, audit::chain),
        post("/console/audit/verify", A::VerifyAudit, audit::verify),
        post("/console/audit/find", A::ReadAudit, audit::find::submit),
        post("/console/audit/views", A::ReadAudit, audit::views::save),
        post("/console/audit/views/{id}/delete", A::ReadAudit, audit::views::delete),
        get("/console/audit/{seq}", A::ReadAudit, audit::record::page),
        get("/console/administrators", A::ListAdministrators, administrators::list),
        get("/console/administrators/new", A::ManageAdministrators, invitations::new_page),
        post("/console/administrators", A::ManageAdministrators, invitations::create),
        post("/console/administrators/invitations/{id}/renew", A::ManageAdministrators, invitations::renew_link),
        get("/console/administrators/invitations/{id}/withdraw", A::ManageAdministrators, invitations::withdraw_page),
        post("/console/administrators/invitations/{id}/withdraw", A::ManageAdministrators, invitations::withdraw),
        get("/console/administrators/{id}", A::ListAdministrators, administrators::show),
        post("/console/administrators/{id}", A::ManageAdministrators, administrators::update),
        get("/console/administrators/{id}/disable", A::ManageAdministrators, administrators::disable_page),
        post("/console/administrators/{id}/disable", A::ManageAdministrators, administrators::disable),
        post("/console/administrators/{id}/enable", A::ManageAdministrators, administrators::enable),
        post("/console/administrators/{id}/password", A::ManageAdministrators, administrators::reset_password),
        get("/console/administrators/{id}/factors/{key}", A::ManageAdministrators, factors::page),
        post("/console/administrators/{id}/factors/{key}", A::ManageAdministrators, factors::reset),
        get("/console/account", A::ManageAccount, account::page),
        post("/console/account/password", A::ManageAccount, account::change_password),
        post("/console/account/sessions", A::ManageAccount, account::end_sessions),
        get("/console/account/authenticator", A::ManageFactors, account::authenticator_page),
        post("/console/account/authenticator", A::ManageFactors, account::enable_authenticator),
        post("/console/account/authenticator/remove", A::ManageFactors, account::disable_authenticator),
        get("/console/account/passkeys", A::ManageFactors, passkeys::ready),
        post("/console/account/passkeys/options", A::ManageFactors, passkeys::register_options),
        post("/console/account/passkeys", A::ManageFactors, passkeys::register),
        post("/console/account/passkeys/{id}/remove", A::ManageFactors, passkeys::delete),
        post("/console/account/recovery-codes", A::ManageFactors, account::renew_recovery_codes),
    ]
}

/// Lists every route and its demand.
#[must_use]
pub fn list() -> Vec<Listed> {
    let listed = |entry: Entry| Listed {
        method: entry.method,
        path: entry.path.to_owned(),
        demand: entry.demand,
        origins: Origins::None,
        is_prefixed: false,
        is_repeatable: false,
        is_versioned: false,
    };
    table().into_iter().map(listed).collect()
}

pub(super) fn router(services: &Arc<Services>, limits: &RateLimits) -> Router {
    let entries = table();
    let forms = form_addresses(&entries);
    let router = entries.into_iter().fold(Router::new(), |router, entry| {
        let handler = entry.handler.route_layer(from_fn_with_state((services.clone(), entry.demand), guard::admit));
        let handler = match entry.limited {
            Limited::Never => handler,
            Limited::Auth => limits.auth.apply(handler),
            Limited::Api => limits.api.apply(handler),
        };
        router.route(entry.path, handler)
    });
    let admit = from_fn_with_state((services.clone(), Demand::Nothing), guard::admit);
    let router = forms.into_iter().fold(router, |router, form| {
        let explain = move |frame: Frame| async move { error::explain_form(frame, &form) };
        router.route(form.path, axum::routing::get(explain).layer(admit.clone()))
    });
    router.route("/console/{*rest}", any(not_found).layer(admit)).with_state(services.clone())
}

/// Returns the addresses that only accept a form. People still open them: from the history of the browser, or by
/// reloading the page that a form showed.
fn form_addresses(entries: &[Entry]) -> Vec<FormAddress> {
    let is_page = |path: &str| entries.iter().any(|entry| entry.method == Method::GET && entry.path == path);
    let forms = entries.iter().filter(|entry| entry.method == Method::POST && !is_page(entry.path));
    let parent = |path: &'static str| {
        let mut cuts = path.rmatch_indices('/').map(|(at, _)| path.get(..at).unwrap_or_default());
        cuts.find(|cut| is_page(cut)).unwrap_or("/console")
    };
    forms.map(|entry| FormAddress { path: entry.path, page: parent(entry.path) }).collect()
}

async fn not_found() -> Failure {
    Failure(Error::NotFound("Page"))
}
