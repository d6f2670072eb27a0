//! `PgBouncer` between the service and its database.

use std::{net::TcpListener, os::unix::fs::PermissionsExt, process::Stdio};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::Database;

pub struct Pooler {
    /// Stopped when dropped.
    _child: Child,
    /// The database through `PgBouncer`.
    pub db: Database,
}

impl Pooler {
    /// Starts `PgBouncer` in front of a `PostgreSQL` database, with further settings.
    pub async fn in_front_of(db: &Database, settings: &str) -> Self {
        let options: PgConnectOptions = db.url.parse().unwrap();
        let (host, port, name) = (options.get_host(), options.get_port(), options.get_database().unwrap());
        let user = options.get_username();
        let password = url::Url::parse(&db.url).unwrap().password().map(|it| format!(" password={it}"));
        let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{name} = host={host} port={port} dbname={name} user={user}{}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {own}\nunix_socket_dir =\nauth_type = any\n{settings}\n",
            password.unwrap_or_default()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("pgbouncer");
        // PgBouncer refuses to run as root.
        if std::env::var("USER").is_ok_and(|user| user == "root") || std::fs::read_dir("/root").is_ok() {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
            command.args(["-u", "nobody"]);
        }
        command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().expect("pgbouncer; `tests/run` installs it");
        while TcpStream::connect(("127.0.0.1", own)).await.is_err() {
            assert!(child.try_wait().unwrap().is_none(), "PgBouncer must start");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let url = format!("postgres://{user}@127.0.0.1:{own}/{name}?sslmode=disable");
        Self { _child: child, db: Database { url, folder } }
    }
}
