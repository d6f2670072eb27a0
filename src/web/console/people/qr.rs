//! QR codes as drawings: no picture has to be loaded, so no secret is in a URL.

use std::fmt::Write;

use qrcodegen::{QrCode, QrCodeEcc};

use crate::domain::{Error, Result};

/// Modules of white around the code (ISO/IEC 18004).
const QUIET: i32 = 4;

/// The path that draws the dark modules, and how many modules a side has.
pub(in crate::web::console) fn path(text: &str) -> Result<(String, i32)> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).map_err(|_| Error::internal("too much for a QR code"))?;
    let side = code.size();
    let modules = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    let dark = modules.filter(|&(x, y)| code.get_module(x, y));
    let mut path = String::new();
    for (x, y) in dark {
        // Writing to a text does not fail.
        let _ = write!(path, "M{} {}h1v1h-1z", x + QUIET, y + QUIET);
    }
    Ok((path, side + 2 * QUIET))
}
