//! A server that looks like PostgreSQL but responds to some statements like another engine.

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::mpsc,
};
use url::Url;

use super::Database;

/// How to respond to a statement instead of PostgreSQL.
#[derive(Clone, Copy)]
pub enum Reply {
    /// With an error: its SQLSTATE and message.
    Error(&'static str, &'static str),
    /// With one row of text.
    Row(&'static [(&'static str, &'static str)]),
    /// With success, without doing anything.
    Nothing,
}

/// Statements that contain the text get the reply. The first that matches decides.
pub type Replies = &'static [(&'static str, Reply)];

/// Relays to the real server everything else.
pub struct Impostor;

impl Impostor {
    /// Starts an impostor in front of a PostgreSQL database; returns its URL.
    pub async fn in_front_of(db: &Database, replies: Replies) -> Database {
        let options: PgConnectOptions = db.url.parse().unwrap();
        let server = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut url = Url::parse(&db.url).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        url.set_query(Some("sslmode=disable"));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server.clone(), replies));
            }
        });
        Database { url: url.to_string(), folder: TempDir::new().unwrap() }
    }
}

/// Relays until one side closes the connection.
async fn relay(client: TcpStream, server: (String, u16), replies: Replies) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = TcpStream::connect(server).await.unwrap().into_split();
    let (respond, responses) = mpsc::unbounded_channel();
    let requests = tokio::spawn(async move { forward(from_client, to_server, replies, respond).await });
    let _ = answer(from_server, to_client, responses).await;
    requests.abort();
}

/// Forwards the client's messages, except for statements that have a reply.
async fn forward(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    replies: Replies,
    respond: mpsc::UnboundedSender<Vec<u8>>,
) -> io::Result<()> {
    // The first message has no type.
    let length = client.read_u32().await?;
    let mut start = vec![0; usize::try_from(length).unwrap() - 4];
    client.read_exact(&mut start).await?;
    server.write_all(&[&length.to_be_bytes()[..], &start].concat()).await?;
    loop {
        let kind = client.read_u8().await?;
        let length = client.read_u32().await?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        client.read_exact(&mut body).await?;
        let text = String::from_utf8_lossy(&body);
        match replies.iter().find(|(part, _)| kind == b'Q' && text.contains(part)) {
            Some((_, reply)) => respond.send(reply.messages()).unwrap(),
            None => server.write_all(&[&[kind], &length.to_be_bytes()[..], &body].concat()).await?,
        }
    }
}

/// Forwards the server's bytes and the replies. They never mix: the client waits for each response.
async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    mut replies: mpsc::UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    let mut bytes = [0; 8192];
    loop {
        tokio::select! {
            read = server.read(&mut bytes) => match read? {
                0 => return Ok(()),
                many => client.write_all(&bytes[..many]).await?,
            },
            Some(reply) = replies.recv() => client.write_all(&reply).await?,
        }
    }
}

impl Reply {
    /// The messages of the PostgreSQL protocol.
    fn messages(self) -> Vec<u8> {
        let response = match self {
            Self::Error(code, message) => {
                let fields = [("S", "ERROR"), ("V", "ERROR"), ("C", code), ("M", message)];
                let fields = fields.map(|(field, value)| format!("{field}{value}\0")).concat();
                message_of(b'E', format!("{fields}\0").as_bytes())
            }
            Self::Row(columns) => {
                let count = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
                let (mut names, mut values) = (count.clone(), count);
                for (name, value) in columns {
                    /// The type `text`, of any length, in text format.
                    const TEXT: [u8; 18] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
                    names.extend(format!("{name}\0").as_bytes());
                    names.extend(TEXT);
                    values.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                    values.extend(value.as_bytes());
                }
                [message_of(b'T', &names), message_of(b'D', &values), message_of(b'C', b"SELECT 1\0")].concat()
            }
            Self::Nothing => message_of(b'C', b"LISTEN\0"),
        };
        [response, message_of(b'Z', b"I")].concat()
    }
}

fn message_of(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], body].concat()
}
