//! Display preferences of a browser.

use axum::response::Response;
use http::{HeaderValue, header::SET_COOKIE};

use super::{
    error::is_own_path,
    form::Form,
    frame::{THEME_COOKIE, see_other},
};

/// Stores the theme in a cookie, so that pages are rendered with it.
pub(in crate::web::console) async fn theme(form: Form) -> Response {
    let (theme, max_age) = match form.get("theme") {
        "light" => ("light", 31_536_000),
        "dark" => ("dark", 31_536_000),
        _ => ("", 0),
    };
    let back = form.get("back");
    let mut response = see_other(if is_own_path(back) { back } else { "/console" });
    let cookie = format!("{THEME_COOKIE}={theme}; Path=/console; Max-Age={max_age}; SameSite=Lax; HttpOnly");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
