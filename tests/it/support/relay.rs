//! A network between the service and its database, which a test may cut.

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use url::Url;

use super::Database;

pub struct Relay {
    is_cut: watch::Sender<bool>,
    given_up: mpsc::UnboundedReceiver<()>,
}

impl Relay {
    /// The same database of PostgreSQL, by way of a relay.
    pub async fn before(db: &Database) -> (Self, Database) {
        let options: PgConnectOptions = db.url.parse().unwrap();
        let address = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut url = Url::parse(&db.url).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (is_cut, cut) = watch::channel(false);
        let (lost, given_up) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (address, cut, lost) = (address.clone(), cut.clone(), lost.clone());
                tokio::spawn(async move {
                    if relay(client, address, cut).await.is_none() {
                        lost.send(()).ok();
                    }
                });
            }
        });
        (Self { is_cut, given_up }, Database { url: url.to_string(), folder: TempDir::new().unwrap() })
    }

    /// Closes every connection without a word, and lets new ones wait.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Returns once a new connection has waited for longer than its owner wants to.
    pub async fn given_up(&mut self) {
        self.given_up.recv().await.unwrap();
    }

    /// Lets those through that wait, and those that come.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

/// Returns when either side, or a cut, ends the connection; `None` when it did not come through.
async fn relay(mut client: TcpStream, server: (String, u16), mut cut: watch::Receiver<bool>) -> Option<()> {
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            biased;
            mended = cut.wait_for(|&is_cut| !is_cut) => break drop(mended),
            read = client.read_buf(&mut waiting) => if read.unwrap_or(0) == 0 { return None },
        }
    }
    let mut server = TcpStream::connect(server).await.unwrap();
    server.write_all(&waiting).await.unwrap();
    tokio::select! {
        _ = io::copy_bidirectional(&mut client, &mut server) => {}
        _ = cut.wait_for(|&is_cut| is_cut) => {}
    }
    Some(())
}
