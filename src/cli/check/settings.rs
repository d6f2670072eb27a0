//! `aims check-config`

use std::process::ExitCode;

use crate::cli::{Failure, say};
use crate::config::Config;

pub(in crate::cli) fn run(config: &Config) -> Result<ExitCode, Failure> {
    let settings = config.describe();
    let width = settings.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in settings {
        say(format_args!("{name:width$}  {value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
