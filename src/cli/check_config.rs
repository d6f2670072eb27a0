//! `aims check-config`

use std::process::ExitCode;

use crate::config::Config;

pub(super) fn run(config: &Config) -> ExitCode {
    let settings = config.describe();
    let width = settings.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in settings {
        println!("{name:width$}  {value}");
    }
    ExitCode::SUCCESS
}
