//! Managing administrators from the command line, also while the service is running.

use serde_json::json;

use crate::{
    both,
    support::{Aims, Browser, Database, PASSWORD},
};

both!(
    first_start_creates_a_setup_link,
    administrators_can_be_managed_while_the_service_runs,
    password_reset_ends_the_wait_of_a_running_service,
);

async fn first_start_creates_a_setup_link(db: Database) {
    let aims = Aims::new(&db);
    let created = aims.run(&["bootstrap", "--json"]).await.json();
    let first = created["setup_url"].as_str().unwrap().to_owned();
    assert!(first.contains("/console/setup?token="), "{first}");
    let process = aims.serve().await;
    let second = aims.run(&["setup-token", "--json"]).await.json()["setup_url"].as_str().unwrap().to_owned();
    let path = |url: &str| format!("/console/setup?{}", url.split_once('?').unwrap().1);
    let browser = Browser::new(process.url.clone());
    browser.get(&path(&first)).await.expect(403);
    browser.get(&path(&second)).await.expect(200);
    let token = second.split_once("token=").unwrap().1;
    let form = [
        ("token", token),
        ("username", "zoe"),
        ("display_name", "Zoe"),
        ("new_password", PASSWORD),
        ("repeat_password", PASSWORD),
    ];
    browser.post("/console/setup", &form).await.redirects_to("/console");
    browser.get("/console/administrators").await.expect(200);
    let third = aims.run(&["setup-token"]).await;
    assert_eq!((third.code, third.stdout.as_str()), (Some(1), ""), "{third:?}");
    assert!(third.stderr.contains("an administrator already exists"), "{third:?}");
    let exit = process.stop().await;
    assert!(!exit.stdout.contains(token) && !exit.stderr.contains(token), "the log must not contain the setup token");
}

async fn administrators_can_be_managed_while_the_service_runs(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let process = aims.serve().await;
    let sign_in = async |username: &str, password: &str| {
        let browser = Browser::new(process.url.clone());
        let page = browser.post("/console/sign-in", &[("username", username), ("password", password)]).await;
        (page.status.as_u16(), browser)
    };

    let made = aims.run(&["admin", "create", "Zoe", "--role", "owner", "--json"]).await.json();
    let generated = made["password"].as_str().unwrap().to_owned();
    assert_eq!(made["username"], "zoe");
    let (status, browser) = sign_in("zoe", &generated).await;
    assert_eq!(status, 303);
    let arguments = ["admin", "create", "ada", "--name", "Ada L.", "--role", "viewer", "--password-stdin"];
    let created = aims.run_with_input(&arguments, &format!("{PASSWORD}\n")).await;
    assert_eq!(created.code, Some(0), "{created:?}");
    assert!(!created.stdout.contains(PASSWORD) && !created.stderr.contains(PASSWORD));
    assert_eq!(sign_in("ada", PASSWORD).await.0, 303);

    for (arguments, message) in [
        (&["admin", "create", "zoe"][..], "This username is taken"),
        (&["admin", "create", "a b"], "the username is not valid"),
        (&["admin", "create", "bob", "--role", "king"], "the role is not valid"),
        (&["admin", "disable", "nobody"], "no administrator is named nobody"),
        (&["admin", "disable", "zoe"], "last owner"),
    ] {
        let refused = aims.run(arguments).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(message), "{refused:?}");
    }
    let refused = aims.run_with_input(&["admin", "create", "bob", "--password-stdin"], "too short\n").await;
    assert!(refused.code == Some(1) && refused.stderr.contains("at least 15"), "{refused:?}");

    let listed = aims.run(&["admin", "list", "--json"]).await.json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|person| person["username"].clone()).collect();
    assert_eq!(names, [json!("ada"), json!("zoe")]);
    assert!(aims.run(&["admin", "list"]).await.stdout.contains("Ada L."));

    assert_eq!(aims.run(&["admin", "disable", "ada"]).await.code, Some(0));
    assert_eq!(sign_in("ada", PASSWORD).await.0, 401);
    assert_eq!(aims.run(&["admin", "enable", "ada"]).await.code, Some(0));
    assert_eq!(sign_in("ada", PASSWORD).await.0, 303);
    let reset = aims.run(&["admin", "reset-password", "zoe", "--json"]).await.json();
    browser.get("/console/account").await.expect(303);
    assert_eq!(sign_in("zoe", &generated).await.0, 401);
    assert_eq!(sign_in("zoe", reset["password"].as_str().unwrap()).await.0, 303);
    process.stop().await;
    assert_eq!(aims.run(&["audit", "verify"]).await.code, Some(0), "both processes must extend the same chain");
}

async fn password_reset_ends_the_wait_of_a_running_service(db: Database) {
    let aims = Aims::new(&db);
    aims.bootstrap().await;
    let process = aims.serve().await;
    let sign_in = async |password: &str| {
        let form = [("username", "zoe"), ("password", password)];
        Browser::new(process.url.clone()).post("/console/sign-in", &form).await.status.as_u16()
    };
    let create = ["admin", "create", "zoe", "--role", "owner", "--password-stdin"];
    aims.run_with_input(&create, &format!("{PASSWORD}\n")).await;
    assert_eq!(sign_in(PASSWORD).await, 303);
    assert_eq!(sign_in("wrong").await, 401);
    // After this many failures, the wait is longer than this test.
    db.execute("UPDATE sign_in_failures SET failures = 60").await;
    assert_eq!(sign_in(PASSWORD).await, 429);
    let reset = aims.run(&["admin", "reset-password", "zoe", "--json"]).await.json();
    assert_eq!(sign_in(reset["password"].as_str().unwrap()).await, 303);
    process.stop().await;
}
