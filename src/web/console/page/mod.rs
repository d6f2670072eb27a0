//! The parts that every page shares: frame, forms, errors, sessions and assets.

pub mod assets;
pub(super) mod back;
pub(super) mod chart;
pub(super) mod csv;
pub(super) mod error;
pub(super) mod form;
pub(super) mod frame;
pub(super) mod live;
pub(super) mod palette;
pub(super) mod preferences;
pub(super) mod query;
pub(super) mod range;
pub(super) mod session;

/// Formats a count with a comma between thousands.
pub(super) fn grouped(count: impl std::fmt::Display) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
