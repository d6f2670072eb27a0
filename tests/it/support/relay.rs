//! A relay between the service and its database that can simulate network failures.

use std::{future, pin::pin};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use url::Url;

use super::Database;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Whole,
    Silent,
    Cut,
    Moved,
}

pub struct Relay {
    network: watch::Sender<Network>,
    connection_abandoned: mpsc::UnboundedReceiver<()>,
}

impl Relay {
    /// Starts a relay in front of a PostgreSQL database; returns it and the database's URL through it.
    pub async fn in_front_of(db: &Database) -> (Self, Database) {
        let options: PgConnectOptions = db.url.parse().unwrap();
        let address = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut url = Url::parse(&db.url).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (network, seen) = watch::channel(Network::Whole);
        let (lost, connection_abandoned) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (address, seen, lost) = (address.clone(), seen.clone(), lost.clone());
                tokio::spawn(async move {
                    if relay(client, address, seen).await.is_none() {
                        lost.send(()).ok();
                    }
                });
            }
        });
        (Self { network, connection_abandoned }, Database { url: url.to_string(), folder: TempDir::new().unwrap() })
    }

    /// Drops every connection silently, and lets new ones hang.
    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    /// Keeps every connection open but forwards nothing.
    pub fn silence(&self) {
        self.network.send_replace(Network::Silent);
    }

    /// Forgets every connection without closing it, as if the database had moved to another host.
    pub fn forget(&self) {
        self.network.send_replace(Network::Moved);
    }

    /// Returns once a client gave up on a hanging connection.
    pub async fn connection_abandoned(&mut self) {
        self.connection_abandoned.recv().await.unwrap();
    }

    /// Restores the network, including hanging connections.
    pub fn restore(&self) {
        self.network.send_replace(Network::Whole);
    }
}

/// Relays until either side or a cut closes the connection; returns `None` if connecting failed.
async fn relay(mut client: TcpStream, server: (String, u16), mut network: watch::Receiver<Network>) -> Option<()> {
    let is_open = |now: &Network| matches!(now, Network::Whole | Network::Moved);
    let mut waiting = Vec::new();
    let since = loop {
        tokio::select! {
            biased;
            open = network.wait_for(is_open) => break *open.ok()?,
            read = client.read_buf(&mut waiting) => if read.unwrap_or(0) == 0 { return None },
        }
    };
    let mut server = TcpStream::connect(server).await.unwrap();
    server.write_all(&waiting).await.unwrap();
    let mut copying = pin!(io::copy_bidirectional(&mut client, &mut server));
    loop {
        tokio::select! {
            changed = network.wait_for(|now| *now != since) => drop(changed.ok()?),
            _ = &mut copying => return Some(()),
        }
        let now = *network.wait_for(|now| *now != Network::Silent).await.ok()?;
        match now {
            Network::Cut => return Some(()),
            Network::Moved => future::pending().await,
            _ => {}
        }
    }
}
