//! `aims healthcheck`, as a container runs it.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    both,
    support::{Aims, Database, Exit, Server, TestClock, open},
};

both!(a_ready_service_is_healthy, a_service_that_is_not_ready_is_unhealthy);

/// Runs the command in a folder of its own, where it must not create anything.
async fn check(settings: &[(&str, &str)], arguments: &[&str]) -> Exit {
    let empty = Database::sqlite();
    let aims = settings.iter().fold(Aims::new(&empty), |aims, (name, value)| aims.with(name, value));
    let exit = aims.run(&[&["healthcheck"], arguments].concat()).await;
    assert_eq!(std::fs::read_dir(empty.folder.path()).unwrap().count(), 0, "{exit:?}");
    exit
}

/// Asserts that the service is healthy, which is not worth a word.
fn is_healthy(exit: &Exit) {
    assert_eq!((exit.code, exit.stdout.as_str(), exit.stderr.as_str()), (Some(0), "", ""));
}

async fn a_ready_service_is_healthy(db: Database) {
    let app = open(&db, &TestClock::new(), &[]).await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(app.serve(listener, std::future::pending()));
    for listen_addr in [format!("0.0.0.0:{port}"), format!("[::]:{port}"), format!("127.0.0.1:{port}")] {
        is_healthy(&check(&[("LISTEN_ADDR", &listen_addr)], &[]).await);
    }
    for url in [format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}/")] {
        is_healthy(&check(&[], &["--url", &url]).await);
    }
}

async fn a_service_that_is_not_ready_is_unhealthy(db: Database) {
    let server = Server::start(db).await;
    server.db.break_audit().await;
    let exit = check(&[], &["--url", &server.url]).await;
    exit.fails_with("aims: not ready: audit_log (");
    assert!(exit.stderr.contains("broken"), "{exit:?}");
}

#[tokio::test]
async fn an_absent_service_is_unhealthy() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    check(&[("LISTEN_ADDR", &closed)], &[]).await.fails_with("the service does not respond");
    check(&[], &["--url", &format!("http://{closed}")]).await.fails_with("the service does not respond");
    check(&[("LISTEN_ADDR", "8000")], &[]).await.reports_error("LISTEN_ADDR must");
    assert_eq!(check(&[], &["--url", "nonsense"]).await.code, Some(2));
}

#[tokio::test]
async fn another_service_is_unhealthy() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/readyz\r\nContent-Length: 0\r\n\r\n";
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nokay";
    let failing = "HTTP/1.1 503 X\r\nContent-Length: 55\r\n\r\n{\"status\":\"failing\",\"checks\":\"\\u001b[2J canary canary\"}\n";
    for (response, why) in [(redirect, "status 302"), (page, "status 200"), (failing, "not ready: ")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let responding = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let read = connection.read(&mut request).await.unwrap();
            assert!(
                request[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"),
                "{:?}",
                String::from_utf8_lossy(&request)
            );
            connection.write_all(response.as_bytes()).await.unwrap();
            connection.read_to_end(&mut Vec::new()).await.ok();
        };
        let arguments = ["--url", &url];
        let (exit, ()) = tokio::join!(check(&[], &arguments), responding);
        exit.fails_with(why);
        assert!(!exit.stderr.contains("canary"), "{exit:?}");
    }
}

#[tokio::test]
async fn a_service_that_hangs_is_unhealthy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let began = Instant::now();
    check(&[], &["--url", &url]).await.fails_with("the service does not respond");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
