//! `aims openapi`

use std::process::ExitCode;

use super::Failure;

pub(super) fn run() -> Result<ExitCode, Failure> {
    println!("{}", crate::web::docs::description().to_pretty_json()?);
    Ok(ExitCode::SUCCESS)
}
