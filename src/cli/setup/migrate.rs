//! `aims migrate`

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{Failure, log, say};
use crate::{
    config::Config,
    store::{
        Db, Mode,
        db::{Schema, Step},
    },
};

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Change nothing: list the migrations, and exit with 1 if one is pending or the database is newer than this version.
    #[arg(long)]
    check: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) async fn run(Arguments { check, json }: Arguments, config: Config) -> Result<ExitCode, Failure> {
    let before = Db::schema(&config.database).await?;
    if check {
        say(if json { described(&before).to_string() } else { listed(&before) })?;
        before.require_current()?;
        return Ok(ExitCode::SUCCESS);
    }
    log::start(&config)?;
    // The migrations run in this mode only, and only when no other process serves the file.
    Db::open(&config.database, Mode::Write).await?.close().await;
    let after = Db::schema(&config.database).await?;
    let (old, new) = (before.version(), after.version());
    say(match (json, before.pending().count()) {
        (true, _) => json!({ "schema": new, "before": old }).to_string(),
        (false, 0) => format!("The database is up to date: schema {new}"),
        (false, 1) => format!("The database has schema {new} now (before: {old}); 1 migration was applied"),
        (false, many) => format!("The database has schema {new} now (before: {old}); {many} migrations were applied"),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn listed(schema: &Schema) -> String {
    let state = |step: &Step| if step.is_applied { "applied" } else { "pending" };
    let width = schema.steps().iter().map(|step| step.name.len()).max().unwrap_or_default();
    let line = |step: &Step| format!("{:04}  {:width$}  {}", step.version, step.name, state(step));
    schema.steps().iter().map(line).collect::<Vec<_>>().join("\n")
}

fn described(schema: &Schema) -> Value {
    let step = |step: &Step| json!({ "version": step.version, "name": step.name, "applied": step.is_applied });
    json!({
        "schema": schema.version(),
        "pending": schema.pending().map(|step| step.version).collect::<Vec<_>>(),
        "migrations": schema.steps().iter().map(step).collect::<Vec<_>>(),
    })
}
