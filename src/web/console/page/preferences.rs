//! Display preferences of a browser.

use axum::response::Response;
use http::{HeaderValue, header::SET_COOKIE};

use super::{
    back::back,
    form::Form,
    frame::{THEME_COOKIE, TIMES_COOKIE, see_other},
};

/// Stores the theme in a cookie, so that pages are rendered with it.
pub(in crate::web::console) async fn theme(form: Form) -> Response {
    let theme = Some(form.get("theme")).filter(|theme| ["light", "dark"].contains(theme));
    remember(&form, THEME_COOKIE, theme)
}

/// Stores in a cookie whether exact times are shown in local time. UTC is the default.
pub(in crate::web::console) async fn times(form: Form) -> Response {
    remember(&form, TIMES_COOKIE, Some(form.get("times")).filter(|times| *times == "local"))
}

/// Sets or removes a cookie, and returns to the page.
fn remember(form: &Form, name: &str, value: Option<&str>) -> Response {
    let (value, max_age) = value.map_or(("", 0), |value| (value, 31_536_000));
    let mut response = see_other(back(form, "/console"));
    let cookie = format!("{name}={value}; Path=/console; Max-Age={max_age}; SameSite=Lax; HttpOnly");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}
