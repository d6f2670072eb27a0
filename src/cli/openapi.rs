//! `aims openapi`

use std::process::ExitCode;

use super::{Failure, say};

pub(super) fn run() -> Result<ExitCode, Failure> {
    say(crate::web::docs::description().to_pretty_json()?)?;
    Ok(ExitCode::SUCCESS)
}
