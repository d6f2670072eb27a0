//! Where an action returns to: the list or page that it was started from, with its filters.

use super::{error::is_own_path, form::Form};

/// Returns the path in the field `back` of a form, if it is a page of this console, and `otherwise` if not.
pub(in crate::web::console) fn back<'f>(form: &'f Form, otherwise: &'f str) -> &'f str {
    Some(form.get("back")).filter(|path| is_own_path(path)).unwrap_or(otherwise)
}
