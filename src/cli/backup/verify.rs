//! `aims backup verify`

use std::{env::temp_dir, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::secrets::Key;
use crate::{
    cli::{Failure, say},
    clock::Environment,
    domain::audit::hex,
    service::backup::{Source, restore},
};

#[derive(Args)]
pub(super) struct Arguments {
    /// Backup to verify.
    file: PathBuf,
    #[command(flatten)]
    key: Key,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let source = Source::open(&arguments.file, &arguments.key.read()?)?;
    let verified = restore::verify(source, &temp_dir(), &Environment::system()).await?;
    let (header, rows) = (&verified.header, &verified.rows);
    let head = hex(&header.head.hash);
    if arguments.json {
        say(json!({
            "valid": true, "made_at": header.made_at, "aims": header.aims, "schema": header.schema,
            "public_url": header.public_url, "head_seq": header.head.seq, "head_hash": head,
            "master_key": header.master_key.is_some(), "rows": rows, "sha256": verified.sha256,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let count = |table: &str| rows.get(table).copied().unwrap_or_default();
    say(format_args!(
        "The backup is valid: made at {} by AIMS {}, schema {}, {} agents, {} API keys, audit log up to seq {}, head {head}, \
         SHA-256 of the content {}",
        header.made_at,
        header.aims,
        header.schema,
        count("agents"),
        count("api_keys"),
        header.head.seq,
        verified.sha256
    ))?;
    Ok(ExitCode::SUCCESS)
}
