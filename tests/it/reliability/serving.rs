//! Clients that are slow, silent or too many, and a process that is asked to end.

use std::{
    thread::available_parallelism,
    time::{Duration, Instant},
};

use futures_util::future::{join_all, select_all};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    both,
    support::{Aims, Database, Process, Server},
};

/// How long the tests wait for what must happen soon.
const SOON: Duration = Duration::from_secs(20);
/// Bytes of a body that is not waited for before its request is taken up.
const LARGE: usize = 64 * 1_024;
const WHOLE: &str = "GET /_health HTTP/1.1\r\nHost: aims\r\n\r\n";

#[tokio::test]
async fn what_is_under_way_finishes_before_the_end() {
    let (db, process, key) = serving(&[]).await;
    let admin = process.client().login(&key).await;
    let body = json!({ "name": "slow", "owner": "o" }).to_string();
    let head = format!(
        "POST /agents HTTP/1.1\r\nHost: aims\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        admin.token(),
        body.len()
    );
    let mut slow = Connection::open(&process).await;
    slow.send(&head).await;
    // The service asks for the body: from here on the request is under way.
    slow.read_until("100 Continue\r\n\r\n").await;
    slow.send(&body[..5]).await;
    let mut idle = Connection::open(&process).await;
    idle.send(WHOLE).await;
    idle.read_until("\"ok\"").await;

    let asked = Instant::now();
    process.terminate().await;
    idle.read_to_end().await;
    // Polled with a deadline: the listener closes at some moment after the signal arrived.
    let refused = async {
        while TcpStream::connect(process.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, refused).await.expect("new connections are refused");
    slow.send(&body[5..]).await;
    let answer = slow.read_to_end().await;
    assert!(answer.contains("HTTP/1.1 201 Created") && answer.contains("\"name\":\"slow\""), "{answer}");

    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(db.count("SELECT COUNT(*) FROM agents WHERE name = 'slow'").await, 1);
}

#[tokio::test]
async fn a_second_request_to_end_cuts_nothing() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("INT", "TERM")] {
        let (_db, process, key) = serving(&[]).await;
        let admin = process.client().login(&key).await;
        let mut slow = Connection::open(&process).await;
        slow.begin_large_post(admin.token()).await;
        process.signal(first).await;
        timeout(SOON, async {
            while !process.log().contains("finishing the requests") {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it begins to end");
        process.signal(second).await;
        slow.end_large_post().await;
        let ended = process.ended().await;
        assert_eq!(ended.code, Some(0), "{first}, {second}: {ended:?}");
        assert!(!ended.stderr.contains("cut off requests"), "{first}, {second}: {ended:?}");
    }
}

#[tokio::test]
async fn other_signals_end_nothing() {
    let (_db, process, key) = serving(&[]).await;
    let admin = process.client().login(&key).await;
    let mut slow = Connection::open(&process).await;
    slow.begin_large_post(admin.token()).await;
    for signal in ["USR1", "USR2", "HUP"] {
        process.signal(signal).await;
    }
    // Polled: the line is written at some moment after the signal arrived.
    let told = async {
        while !process.log().contains("SIGHUP") {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, told).await.expect("it says what SIGHUP does");
    slow.end_large_post().await;
    admin.get("/agents").await.expect(200);
    // While it ends, too.
    slow.begin_large_post(admin.token()).await;
    process.terminate().await;
    for signal in ["USR1", "USR2", "HUP"] {
        process.signal(signal).await;
    }
    slow.end_large_post().await;
    let ended = process.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told: Vec<_> = ended.stderr.lines().filter(|line| line.contains("SIGHUP")).collect();
    assert!((1..=2).contains(&told.len()) && told.iter().all(|line| line.contains("INFO")), "{ended:?}");
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever() {
    let (_db, process, key) = serving(&[("DRAIN_SECONDS", "1")]).await;
    let admin = process.client().login(&key).await;
    let mut stuck = Connection::open(&process).await;
    stuck.begin_post(admin.token()).await;
    let asked = Instant::now();
    let ended = process.stop().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(ended.stderr.contains("cut off requests"), "{ended:?}");
}

#[tokio::test]
async fn silent_connections_are_closed() {
    let (_db, process, _key) = serving(&[("HEADER_TIMEOUT_SECONDS", "1")]).await;
    for sent in ["", "GET /_health HTTP/1.1\r\nHost: ai", "GET /_hea", WHOLE] {
        let mut connection = Connection::open(&process).await;
        connection.send(sent).await;
        let began = Instant::now();
        let answer = connection.read_to_end().await;
        let served = answer.contains("200 OK");
        assert_eq!(served, sent == WHOLE, "{sent:?}: {answer}");
        assert!(began.elapsed() < Duration::from_secs(5), "{sent:?}: {:?}", began.elapsed());
    }
    // Bytes that trickle in do not buy more time.
    let mut connection = Connection::open(&process).await;
    let trickle = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            if connection.stream.write_all(b"G").await.is_err() {
                return;
            }
        }
    };
    timeout(SOON, trickle).await.expect("a connection that only trickles is closed");
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn too_many_connections_wait_their_turn() {
    let (_db, process, key) = serving(&[("MAX_CONNECTIONS", "3")]).await;
    let admin = process.client().login(&key).await;
    let token = admin.token().to_owned();
    drop(admin);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(&process).await;
        connection.begin_large_post(&token).await;
        open.push(connection);
    }
    let mut late = Connection::open(&process).await;
    late.send(WHOLE).await;
    // Longer than a connection is left alone that is not at work.
    let early = timeout(Duration::from_millis(1_500), late.read_until("\"ok\"")).await;
    assert!(early.is_err(), "it was served beside the three");
    open.pop();
    late.read_until("\"ok\"").await;
    for connection in &mut open {
        connection.end_large_post().await;
    }
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn connections_that_nobody_uses_keep_nobody_out() {
    let settings = [("MAX_CONNECTIONS", "6"), ("HEADER_TIMEOUT_SECONDS", "600"), ("REQUEST_TIMEOUT_SECONDS", "600")];
    let (_db, process, _key) = serving(&settings).await;
    let mut modest = Connection::open_from([127, 0, 0, 2], &process).await;
    modest.send(WHOLE).await;
    modest.read_until("\"ok\"").await;
    let mut greedy = Vec::new();
    for _ in 0..5 {
        greedy.push(Connection::open(&process).await);
    }
    greedy[1].send("GET /_health HTTP/1.1\r\nHost: ai").await;
    greedy[2].send(WHOLE).await;
    greedy[2].read_until("\"ok\"").await;
    greedy[3].begin_grant().await;
    greedy[4].begin_form().await;
    let mut late = Vec::new();
    for number in 3..8 {
        let mut connection = Connection::open_from([127, 0, 0, number], &process).await;
        connection.send(WHOLE).await;
        connection.read_until("\"ok\"").await;
        late.push(connection);
        // Whoever has few keeps them, though they waited longest.
        if number == 6 {
            modest.send(WHOLE).await;
            modest.read_until("\"ok\"").await;
        }
    }
    for connection in &mut greedy {
        assert_eq!(connection.read_to_end().await, "");
    }
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn as_many_connections_as_allowed_are_served_whatever_the_shell_allows() {
    let db = Database::sqlite();
    let aims = Aims::new(&db).with("MAX_CONNECTIONS", "300").with_open_files(64);
    aims.bootstrap().await;
    let process = aims.serve().await;
    let mut open = Vec::new();
    for _ in 0..300 {
        let mut connection = Connection::open(&process).await;
        connection.send(WHOLE).await;
        timeout(SOON, connection.read_until("\"ok\"")).await.expect("it is served beside the others");
        open.push(connection);
    }
    drop(open);
    assert_eq!(process.stop().await.code, Some(0));
}

both!(with_few_open_files_idle_connections_give_way);

async fn with_few_open_files_idle_connections_give_way(db: Database) {
    const IDLE: usize = 100;
    // Idle connections do not end by themselves.
    let settings = [("HEADER_TIMEOUT_SECONDS", "600"), ("REQUEST_TIMEOUT_SECONDS", "600")];
    let aims = settings.iter().fold(Aims::new(&db), |aims, (name, value)| aims.with(name, value));
    let aims = aims.with_open_files_at_most(64);
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(Connection::open(&process).await);
    }
    let mut late = Connection::open(&process).await;
    late.send(WHOLE).await;
    late.read_until("\"ok\"").await;
    // The database has the files that it needs, however many requests come at once.
    let admin = process.client().login(&key).await;
    let answers =
        timeout(SOON, join_all((0..IDLE).map(|_| admin.get("/agents")))).await.expect("everybody is answered");
    for answer in answers {
        answer.expect(200);
    }
    admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
    drop((idle, late));
    let ended = process.stop().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let warnings: Vec<_> =
        ended.stderr.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    let [warning] = &*warnings else { panic!("{warnings:#?}") };
    let (_, connections) = warning.split_once("open_files=64 max_connections=").expect("the limits");
    assert!((10..64).contains(&connections.parse::<usize>().unwrap()), "{warning}");
    let serving = ended.stderr.lines().find(|line| line.contains(" serving ")).unwrap();
    assert!(serving.ends_with(&format!("max_connections={connections}")), "{serving}");
}

#[tokio::test]
async fn with_too_few_open_files_nothing_is_served() {
    let db = Database::sqlite();
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    aims.with_open_files_at_most(30)
        .run(&["serve"])
        .await
        .failed("the open file limit is 30, but the service needs at least");
}

#[tokio::test]
async fn a_body_that_never_arrives_is_given_up() {
    let (db, process, key) = serving(&[("REQUEST_TIMEOUT_SECONDS", "1")]).await;
    let admin = process.client().login(&key).await;
    let mut agent = Connection::open(&process).await;
    agent.begin_post(admin.token()).await;
    let mut browser = Connection::open(&process).await;
    browser.begin_form().await;
    let mut client = Connection::open(&process).await;
    client.begin_grant().await;
    for (mut connection, is_oauth) in [(agent, false), (browser, false), (client, true)] {
        // The connection is of no use any more, and is closed rather than kept.
        let answer = timeout(SOON, connection.read_to_end()).await.expect("it is given up");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
        assert_eq!(
            answer.contains("{\"error\":\"temporarily_unavailable\",\"error_description\":\""),
            is_oauth,
            "{answer}"
        );
    }
    admin.get("/agents").await.expect(200);
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 1);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn bodies_that_do_not_arrive_keep_nobody_out() {
    let (db, process, key) = serving(&[("MAX_REQUESTS", "1")]).await;
    let admin = process.client().login(&key).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        for _ in 0..3 {
            open.push(Connection::open(&process).await);
        }
        let [.., agent, browser, client] = &mut *open else { unreachable!() };
        agent.begin_post(admin.token()).await;
        browser.begin_form().await;
        client.begin_grant().await;
    }
    admin.post("/agents", json!({ "name": "a", "owner": "o" })).await.expect(201);
    process.client().login(&key).await;
    // What was begun goes on.
    let [agent, ..] = &mut *open else { unreachable!() };
    let rest = "me\": \"b\", \"owner\": \"o\"";
    agent.send(&format!("{rest:<95}}}")).await;
    let answer = agent.read_until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 3);
    drop(open);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn large_bodies_take_few_of_the_places_while_they_arrive() {
    let (_db, process, key) = serving(&[("MAX_REQUESTS", "32")]).await;
    let admin = process.client().login(&key).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(&process).await;
        connection.begin_large_post(admin.token()).await;
        open.push(connection);
    }
    // One of them, whichever arrived last, as far as it did.
    let answers = open.iter_mut().map(|connection| Box::pin(connection.read_until("\r\n\r\n")));
    let (answer, turned_away, _) = select_all(answers).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    open.remove(turned_away);
    admin.post("/agents", json!({ "name": "small", "owner": "o" })).await.expect(201);
    open.pop().unwrap().end_large_post().await;
    let mut fourth = Connection::open(&process).await;
    fourth.begin_large_post(admin.token()).await;
    fourth.end_large_post().await;
    drop(open);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn who_comes_while_too_many_are_under_way_is_told_when_to_come_back() {
    let (db, process, key) = serving(&[("MAX_REQUESTS", "1")]).await;
    let admin = process.client().login(&key).await;
    let [mut agent, mut late] = [Connection::open(&process).await, Connection::open(&process).await];
    agent.begin_large_post(admin.token()).await;
    // Polled: it is under way at some moment after it was sent.
    let under_way = async { while process.client().get("/agents").await.status != 503 {} };
    timeout(SOON, under_way).await.expect("there is one place");
    for (path, media_type) in [
        ("/agents", "application/json"),
        ("/api/v1/agents", "application/json"),
        ("/.well-known/jwks.json", "application/json"),
        ("/oauth/token", "application/json"),
        ("/", "text/html; charset=utf-8"),
        ("/console/sign-in", "text/html; charset=utf-8"),
    ] {
        late.send(&format!("GET {path} HTTP/1.1\r\nHost: aims\r\nOrigin: https://app.example\r\n\r\n")).await;
        let answer = late.read_until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{path}: {answer}");
        // A script can read when to come back, wherever it can read an answer.
        let may_be_read = answer.contains("\r\naccess-control-allow-origin: *\r\n");
        assert_eq!(may_be_read, ["/.well-known/jwks.json", "/oauth/token"].contains(&path), "{path}: {answer}");
        let content_type = format!("content-type: {media_type}");
        for header in [&*content_type, "retry-after: 1", "cache-control: no-store", "x-content-type-options: nosniff"] {
            assert!(answer.contains(&format!("\r\n{header}\r\n")), "{path}: {header} is not in {answer}");
        }
        assert!(answer.contains("\r\nx-request-id: "), "{path}: {answer}");
        assert!(answer.contains("\r\ncontent-security-policy: default-src 'none'; "), "{path}: {answer}");
    }
    // Busy is not broken.
    late.send(WHOLE).await;
    late.read_until("\"ok\"").await;
    let unavailable = "The service is temporarily unavailable";
    process.client().exchange(&key).await.refused(503, unavailable);
    for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
        let anybody = process.client();
        let answer = anybody.send(anybody.request(Method::POST, path).form(&[("token", "junk")])).await;
        let body = json!({ "error": "temporarily_unavailable", "error_description": unavailable });
        assert_eq!((answer.status.as_u16(), answer.json()), (503, body), "{path}");
    }
    drop(agent);
    // Polled: the service notices at some moment after the connection ended.
    let served = async { while process.client().get("/agents").await.status == 503 {} };
    timeout(SOON, served).await.expect("places are given back");
    admin.get("/agents").await.expect(200);
    assert_eq!(db.count("SELECT COUNT(*) FROM agents").await, 1);
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn however_many_sign_in_at_once_few_are_kept_waiting() {
    let (_db, process, key) = serving(&[("PUBLIC_URL", "http://aims.test")]).await;
    let form = "username=nobody&password=a+guess+among+many";
    let request = format!(
        "POST /console/sign-in HTTP/1.1\r\nHost: aims\r\nOrigin: http://aims.test\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    let attempts = 100 * available_parallelism().unwrap().get();
    let mut open = Vec::new();
    for _ in 0..attempts {
        open.push(Connection::open(&process).await);
    }
    for connection in &mut open {
        connection.send(&request).await;
    }
    process.client().login(&key).await;
    let mut turned_away = 0;
    for mut connection in open {
        let answer = timeout(SOON, connection.read_to_end()).await.expect("everybody hears something");
        match &answer[..12] {
            // Too many others sign in.
            "HTTP/1.1 503" => turned_away += usize::from(answer.contains("\r\nretry-after: 1\r\n")),
            // Too many guesses came before; the page says how long to wait.
            "HTTP/1.1 429" => turned_away += 1,
            "HTTP/1.1 401" => {}
            _ => panic!("{answer}"),
        }
    }
    assert!(turned_away > attempts / 2, "{turned_away} of {attempts}");
    assert_eq!(process.stop().await.code, Some(0));
}

/// What was changed behind the service's back shows whom it remembered.
#[tokio::test]
async fn as_many_agents_as_allowed_are_remembered() {
    const AGENTS: usize = 2_500;
    for (allowed, remembers_all) in [("1024", false), ("16384", true)] {
        let server = Server::with(Database::sqlite(), &[("AGENTS_IN_MEMORY", allowed)]).await;
        let create = |number| server.admin.post("/agents", json!({ "name": format!("agent-{number}"), "owner": "o" }));
        let mut paths = Vec::new();
        for numbers in (0..AGENTS).collect::<Vec<_>>().chunks(100) {
            let created = join_all(numbers.iter().map(create)).await.into_iter().map(|answer| answer.expect(201));
            paths.extend(created.map(|agent| format!("/agents/{}", agent["id"].as_str().unwrap())));
        }
        let mut as_before = 0;
        for round in 0..2 {
            for path in &paths {
                let agent = server.admin.get(path).await.expect(200);
                as_before += usize::from(round == 1 && agent["description"] != "changed");
            }
            server.db.execute("UPDATE agents SET description = 'changed'").await;
        }
        assert_eq!(as_before == AGENTS, remembers_all, "{as_before} with {allowed}");
        assert!(as_before > 0);
    }
}

async fn serving(settings: &[(&str, &str)]) -> (Database, Process, String) {
    let db = Database::sqlite();
    let aims = settings.iter().fold(Aims::new(&db), |aims, (name, value)| aims.with(name, value));
    let key = aims.bootstrap().await;
    let process = aims.serve().await;
    (db, process, key)
}

/// A connection whose every byte the test decides on.
struct Connection {
    stream: TcpStream,
    read: String,
}

impl Connection {
    async fn open(process: &Process) -> Self {
        Self { stream: TcpStream::connect(process.address()).await.unwrap(), read: String::new() }
    }

    /// As if it came from another machine.
    async fn open_from(address: [u8; 4], process: &Process) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        Self { stream: socket.connect(process.address().parse().unwrap()).await.unwrap(), read: String::new() }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The head of a request, and, once the service asks for it, the beginning of its body.
    async fn begin_post(&mut self, token: &str) {
        let head = format!(
            "POST /agents HTTP/1.1\r\nHost: aims\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        );
        self.send(&head).await;
        self.read_until("100 Continue\r\n\r\n").await;
        self.send("{\"na").await;
    }

    /// As much of a larger body that the request is under way while the rest arrives.
    async fn begin_large_post(&mut self, token: &str) {
        let begin = "{\"name\": \"\"";
        let head = format!(
            "POST /agents HTTP/1.1\r\nHost: aims\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {LARGE}\r\nExpect: 100-continue\r\n\r\n"
        );
        self.send(&head).await;
        self.read_until("100 Continue\r\n\r\n").await;
        self.send(&format!("{begin:<width$}", width = LARGE - 1)).await;
    }

    /// The rest of it: the body is read, and refused.
    async fn end_large_post(&mut self) {
        self.send("}").await;
        let answer = self.read_until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    }

    /// As little of a form of the console, which anybody may send.
    async fn begin_form(&mut self) {
        let head = "POST /console/sign-in HTTP/1.1\r\nHost: aims\r\nOrigin: http://localhost:8000\r\nContent-Length: 100\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n";
        self.send(head).await;
        self.read_until("100 Continue\r\n\r\n").await;
        self.send("userna").await;
    }

    /// The same of a request for a token.
    async fn begin_grant(&mut self) {
        let head = "POST /oauth/token HTTP/1.1\r\nHost: aims\r\nContent-Length: 100\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n";
        self.send(head).await;
        self.read_until("100 Continue\r\n\r\n").await;
        self.send("grant_").await;
    }

    /// Reads until `end` has been read; gives what was read, and forgets it.
    async fn read_until(&mut self, end: &str) -> String {
        while !self.read.contains(end) {
            assert!(self.read_more().await > 0, "closed after {:?}", self.read);
        }
        std::mem::take(&mut self.read)
    }

    /// Reads until the service closes the connection.
    async fn read_to_end(&mut self) -> String {
        while self.read_more().await > 0 {}
        std::mem::take(&mut self.read)
    }

    async fn read_more(&mut self) -> usize {
        let mut buffer = [0; 4_096];
        let read = timeout(SOON, self.stream.read(&mut buffer)).await.expect("the service says something");
        // A reset is an end too.
        let read = read.unwrap_or(0);
        self.read.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        read
    }
}
