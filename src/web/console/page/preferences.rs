//! How a browser wants the console to look.

use axum::response::Response;
use http::{HeaderValue, header::SET_COOKIE};

use super::{
    error::is_own_path,
    form::Form,
    frame::{THEME_COOKIE, see_other},
};

/// Keeps the chosen colours in a cookie, so that the first byte of a page has them.
pub(in crate::web::console) async fn theme(form: Form) -> Response {
    let (theme, life) = match form.get("theme") {
        "light" => ("light", 31_536_000),
        "dark" => ("dark", 31_536_000),
        _ => ("", 0),
    };
    let back = form.get("back");
    let mut response = see_other(if is_own_path(back) { back } else { "/console" });
    let cookie = format!("{THEME_COOKIE}={theme}; Path=/console; Max-Age={life}; SameSite=Lax; HttpOnly");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
