//! `aims completions`

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, Failure, write_out};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The shell that completes the commands.
    shell: clap_complete::Shell,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "aims", &mut script);
    write_out(&script)?;
    Ok(ExitCode::SUCCESS)
}
