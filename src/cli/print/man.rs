//! `aims man`

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::{Cli, Failure, write_out};

/// At the foot of each page.
const SOURCE: &str = concat!("aims ", env!("CARGO_PKG_VERSION"));

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Write one page for each command to this folder, which is created if it is missing. Existing pages are replaced.
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let Some(folder) = &arguments.to else {
        let mut text = Vec::new();
        page(&root).render(&mut text)?;
        write_out(&text)?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(folder)
        .and_then(|()| write_pages(&root, folder))
        .map_err(|error| format!("cannot write the pages to {}: {error}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn page(command: &Command) -> Man {
    Man::new(command.clone()).source(SOURCE)
}

/// Writes the pages of a command and of all its subcommands.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    page(command).generate_to(folder)?;
    command.get_subcommands().try_for_each(|subcommand| write_pages(subcommand, folder))
}
