//! QR codes as inline SVG, so that no URL contains the secret.

use std::fmt::Write;

use qrcodegen::{QrCode, QrCodeEcc};

use crate::domain::{Error, Result};

/// Width of the quiet zone in modules (ISO/IEC 18004).
const QUIET: i32 = 4;

/// Returns an SVG path of the dark modules, and the size in modules.
pub(in crate::web::console) fn path(text: &str) -> Result<(String, i32)> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium)
        .map_err(|_| Error::internal("the text is too long for a QR code"))?;
    let side = code.size();
    let modules = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    let dark = modules.filter(|&(x, y)| code.get_module(x, y));
    let mut path = String::new();
    for (x, y) in dark {
        // Writing to a `String` cannot fail.
        let _ = write!(path, "M{} {}h1v1h-1z", x + QUIET, y + QUIET);
    }
    Ok((path, side + 2 * QUIET))
}
