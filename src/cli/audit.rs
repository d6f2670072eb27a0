//! `aims audit`

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, say};
use crate::{
    config::Config,
    domain::audit::hex,
    service::audit,
    store::{Db, Mode},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Walk the whole chain; exit code 1 and the first bad record when it does not hold. May run beside the service.
    Verify(Arguments),
}

#[derive(Args)]
pub(super) struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(Command::Verify(arguments): Command, config: Config) -> Result<ExitCode, Failure> {
    let db = Db::open(&config.database, Mode::Read).await?;
    let found = audit::verify(&db).await?;
    let hash = hex(&found.head.hash);
    if arguments.json {
        let broken = found.broken.map(|broken| json!({ "seq": broken.seq, "reason": broken.reason }));
        let verdict = json!({
            "valid": found.broken.is_none(), "records": found.head.seq, "head_hash": hash, "first_bad": broken,
        });
        say(verdict)?;
    }
    match found.broken {
        None => {
            if !arguments.json {
                say(format_args!("The audit log holds: {} records, head {hash}", found.head.seq))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(broken) => Err(format!("the audit log does not hold at seq {}: {}", broken.seq, broken.reason).into()),
    }
}
