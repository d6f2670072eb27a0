//! `aims openapi`

use std::process::ExitCode;

use crate::cli::{Failure, say};

pub(in crate::cli) fn run() -> Result<ExitCode, Failure> {
    say(crate::web::docs::description().to_pretty_json()?)?;
    Ok(ExitCode::SUCCESS)
}
