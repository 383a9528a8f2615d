//! The status page through the real router, over fakes at the ports: who may act, what is refused, and what foreign
//! text can do to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, Response, header},
};
use testkit::until;
use tower::util::ServiceExt;

use crate::{
    adapters::http::AccessPolicy,
    app::{
        cluster::tests::key,
        fake_site::{FakeApp, site},
    },
    core::{
        history::{Entry, Outcome, Request as Wish, Trigger},
        policy::Mode,
        reason::Reason,
    },
    ports::{
        journal::Journal,
        service::{Command, Service},
    },
};

mod decisions;
mod events;
mod own_problems;
mod running;

const TOKEN: &str = "0123456789abcdef";
const ADMIN: &str = "fedcba9876543210";
const EVIL: &str = "<script>alert(1)</script>\"'";

struct Site {
    app: Arc<FakeApp>,
    router: Router,
}

fn site_of(names: &[&str], access: AccessPolicy) -> Site {
    let (app, router) = site(names, Mode::Approve, access);
    Site { app, router }
}

fn guarded() -> Site {
    site_of(&["a"], AccessPolicy::tokens(Some(TOKEN.to_owned()), Some(ADMIN.to_owned())))
}

fn open() -> Site {
    site_of(&["a"], AccessPolicy::tokens(None, None))
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// The value of the session's cookie, as a browser would send it back.
    fn cookie(&self) -> Option<String> {
        let cookie = self.headers.get(header::SET_COOKIE)?.to_str().expect("text");
        Some(cookie.split(';').next().expect("a pair").to_owned())
    }

    /// The token of the page's forms.
    fn form(&self) -> String {
        let (_, rest) = self.body.split_once("name=\"form\" value=\"").expect("the page has a form");
        rest.split('"').next().expect("quoted").to_owned()
    }
}

impl Site {
    async fn send(&self, request: Request<Body>) -> Answer {
        let answer: Response<Body> = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a body");
        let body = String::from_utf8(body.to_vec()).expect("text");
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        let request = Request::get(path).header(header::HOST, "127.0.0.1:9379").header(header::COOKIE, cookie);
        self.send(request.body(Body::empty()).expect("a request")).await
    }

    /// As our own page in a browser sends it, except for what `change` does to the headers.
    async fn post_with(&self, path: &str, cookie: &str, body: &str, change: impl FnOnce(&mut HeaderMap)) -> Answer {
        let mut request = Request::post(path)
            .header(header::HOST, "127.0.0.1:9379")
            .header(header::ORIGIN, "http://127.0.0.1:9379")
            .header("sec-fetch-site", "same-origin")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::COOKIE, cookie)
            .body(Body::from(body.to_owned()))
            .expect("a request");
        change(request.headers_mut());
        self.send(request).await
    }

    async fn post(&self, path: &str, cookie: &str, body: &str) -> Answer {
        self.post_with(path, cookie, body, |_| {}).await
    }

    fn is_paused(&self) -> bool {
        self.app.clusters()[0].paused.is_some()
    }

    async fn log_in(&self) -> String {
        let answer = self.post("/login", "", &format!("token={ADMIN}")).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        answer.cookie().expect("a session")
    }
}

fn set(name: &'static str, value: &'static str) -> impl FnOnce(&mut HeaderMap) {
    move |headers| drop(headers.insert(name, value.parse().expect("a header")))
}

#[tokio::test]
async fn a_stranger_reads_the_page_and_is_offered_no_order() {
    let site = guarded();
    for path in ["/", "/clusters/a"] {
        let page = site.get(path, "").await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("/login") && !page.body.contains("name=\"form\""), "{}", page.body);
        assert_eq!(page.cookie(), None, "visitors who only look get no cookie");
    }
    let of_cluster = ["pause", "resume", "run", "cancel"].map(|action| format!("/clusters/a/{action}"));
    for path in of_cluster.iter().map(String::as_str).chain(["/runs/1/approve", "/runs/1/reject", "/logout"]) {
        assert_eq!(site.post(path, "", "by=eve&reason=x&form=0").await.status, 401, "{path}");
        assert_eq!(site.get(path, "").await.status, 405, "{path}");
    }
    assert!(!site.is_paused());
}

#[tokio::test]
async fn only_the_admin_token_opens_a_session_and_signing_out_ends_it() {
    let site = guarded();
    for wrong in [TOKEN, "", "x", "fedcba987654321"] {
        let answer = site.post("/login", "", &format!("token={wrong}")).await;
        assert_eq!((answer.status, answer.cookie()), (401, None), "{wrong}");
    }
    let cookie = site.log_in().await;
    let page = site.get("/clusters/a", &cookie).await;
    let body = format!("by=ann&reason=upgrade&for=4h&form={}", page.form());
    assert_eq!(site.post("/clusters/a/pause", &cookie, &body).await.status, 303);
    assert!(site.is_paused());
    assert_eq!(site.post("/logout", &cookie, &format!("form={}", page.form())).await.status, 303);
    let resume = format!("by=ann&form={}", page.form());
    assert_eq!(site.post("/clusters/a/resume", &cookie, &resume).await.status, 401, "the session has ended");
    assert!(site.is_paused());
}

#[tokio::test]
async fn a_cookie_from_before_signing_in_opens_nothing_afterwards_and_signing_out_is_final() {
    let site = guarded();
    // As another program on this host could plant it.
    let planted = format!("defragd={}", "5a".repeat(32));
    let answer = site.post("/login", &planted, &format!("token={ADMIN}")).await;
    let cookie = answer.cookie().expect("a session");
    assert_ne!(cookie, planted, "a session has a number of its own");
    assert!(site.get("/clusters/a", &planted).await.body.contains("/login"), "fixation");
    let form = site.get("/clusters/a", &cookie).await.form();
    let out = site.post("/logout", &cookie, &format!("form={form}")).await;
    let cleared = out.headers[header::SET_COOKIE].to_str().expect("text").to_owned();
    assert!(cleared.starts_with("defragd=;") && cleared.contains("Max-Age=0"), "{cleared}");
    for replayed in [&cookie, &planted] {
        assert!(site.get("/clusters/a", replayed).await.body.contains("/login"), "the copy of a cookie");
        let again = site.post("/clusters/a/pause", replayed, &format!("by=eve&reason=x&form={form}")).await;
        assert_eq!(again.status, 401);
    }
    assert_ne!(site.log_in().await, cookie, "a number is never used twice");
}

/// Replicas share no sessions and no count of tries: each allows as many as one alone.
#[tokio::test]
async fn each_replica_allows_its_own_tries_and_no_more() {
    let replicas = [guarded(), guarded(), guarded()];
    let mut tried = [0; 3];
    for (site, tried) in replicas.iter().zip(&mut tried) {
        while *tried < 100 && site.post("/login", "", "token=wrong-wrong-wrong").await.status == 401 {
            *tried += 1;
        }
    }
    // One more each second.
    assert!(tried.iter().all(|tried| (10..100).contains(tried)), "{tried:?}");
}

#[tokio::test]
async fn a_session_never_stands_in_for_another_process_or_another_cookie() {
    let (one, other) = (guarded(), guarded());
    let cookie = one.log_in().await;
    assert!(other.get("/clusters/a", &cookie).await.body.contains("/login"), "the key is the process's own");
    let second = one.log_in().await;
    let form = one.get("/clusters/a", &second).await.form();
    let mixed = one.post("/clusters/a/pause", &cookie, &format!("by=eve&reason=x&form={form}")).await;
    assert_eq!(mixed.status, 403, "the form of one session with the cookie of another");
    assert!(!one.is_paused());
}

#[tokio::test]
async fn after_too_many_wrong_tokens_the_answer_does_not_show_whether_one_was_right() {
    loop {
        let (site, begun, mut last) = (guarded(), Instant::now(), 0);
        for _ in 0..12 {
            last = site.post("/login", "", "token=wrong-wrong-wrong").await.status;
        }
        let right = site.post("/login", "", &format!("token={ADMIN}")).await;
        // One more is allowed each second: a machine that took longer tries again.
        if begun.elapsed() < Duration::from_secs(1) {
            assert_eq!((last, right.status, right.cookie()), (429, 429, None));
            return;
        }
    }
}

#[tokio::test]
async fn a_form_is_taken_only_with_its_token_from_our_own_page() {
    for site in [guarded(), open()] {
        let is_open = site.get("/login", "").await.status == 303;
        let cookie =
            if is_open { site.get("/clusters/a", "").await.cookie().expect("a cookie") } else { site.log_in().await };
        let form = site.get("/clusters/a", &cookie).await.form();
        let (path, body) = ("/clusters/a/pause", format!("by=eve&reason=x&form={form}"));
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "http://127.0.0.1:8080"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let refused = site.post_with(path, &cookie, &body, set(name, value)).await;
            assert_eq!(refused.status, 403, "{name}: {value}");
        }
        let silent = |headers: &mut HeaderMap| {
            headers.remove("origin");
            headers.remove("sec-fetch-site");
        };
        assert_eq!(site.post_with(path, &cookie, &body, silent).await.status, 403, "no browser");
        for body in ["by=eve&reason=x", "by=eve&reason=x&form=", &format!("by=eve&reason=x&form={form}0")] {
            assert_eq!(site.post(path, &cookie, body).await.status, 403, "{body}");
        }
        assert_eq!(site.post(path, "", &body).await.status, if is_open { 403 } else { 401 }, "no cookie");
        let json = site.post_with(path, &cookie, "{}", set("content-type", "application/json")).await;
        assert_eq!(json.status, 415);
        assert!(!site.is_paused());
        assert_eq!(site.post(path, &cookie, &body).await.status, 303);
        assert!(site.is_paused());
    }
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_opens_neither_the_page_nor_the_api() {
    let site = open();
    let cookie = site.get("/clusters/a", "").await.cookie().expect("a cookie");
    let form = site.get("/clusters/a", &cookie).await.form();
    let rebound = |headers: &mut HeaderMap| {
        headers.insert("host", "evil.example:9379".parse().expect("a header"));
        headers.insert("origin", "http://evil.example:9379".parse().expect("a header"));
    };
    let body = format!("by=eve&reason=x&form={form}");
    assert_eq!(site.post_with("/clusters/a/pause", &cookie, &body, rebound).await.status, 403);
    let api = |headers: &mut HeaderMap| {
        rebound(headers);
        headers.insert("content-type", "application/json".parse().expect("a header"));
    };
    for path in ["/api/v1/clusters/a/pause", "/api/v1/alerts", "/-/reload"] {
        let refused = site.post_with(path, "", r#"{"reason": "x"}"#, api).await;
        assert_eq!(refused.status, 403, "{path}: {}", refused.body);
    }
    assert!(!site.is_paused());
    // Any other program, which a page cannot imitate: as before.
    let program = Request::post("/api/v1/clusters/a/pause").header(header::HOST, "defragd.internal:9379");
    let program = program.header(header::CONTENT_TYPE, "application/json").body(Body::from(r#"{"reason": "x"}"#));
    assert_eq!(site.send(program.expect("a request")).await.status, 200);
}

#[tokio::test]
async fn where_there_is_no_receiver_there_are_no_orders() {
    let site = site_of(&["a"], AccessPolicy::exporter_only(None, None, &[]).expect("no files"));
    let page = site.get("/clusters/a", "").await;
    assert!(page.body.contains("there are no actions") && !page.body.contains("name=\"form\""), "{}", page.body);
    assert_eq!(site.post("/clusters/a/pause", "", "by=a&reason=x&form=0").await.status, 403);
}

#[tokio::test]
async fn other_peoples_text_stays_text() {
    let site = site_of(&[EVIL], AccessPolicy::tokens(None, None));
    let name = "%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27";
    let pause = Command::Pause { reason: EVIL.to_owned(), lasts: None };
    site.app.command(EVIL, EVIL.to_owned(), pause, false).await.expect("paused");
    let cluster = Arc::clone(&site.app.fleet().all()[0]);
    let journal = &cluster.shared.journal;
    let wish = Wish { cluster: EVIL.to_owned(), trigger: Trigger::Alert, alerts: key(EVIL), members: Vec::new() };
    let run = journal.accept(wish).await.expect("accepted");
    let reason = Reason::ClusterUnreachable { detail: EVIL.to_owned() };
    journal.append(run, Entry::approved(EVIL.to_owned())).await.expect("written");
    journal.append(run, Entry::Finished(Outcome::Failed { reason })).await.expect("written");
    site.app.fleet().all()[0].ledger().await.expect("read");
    let query = format!("/?q={name}&state={name}&show={name}&page={name}");
    let of_cluster = format!("/clusters/{name}");
    for path in ["/", &query, &of_cluster, &format!("{of_cluster}?done={name}"), "/runs/1", "/clusters/%3Cscript%3E"] {
        let page = site.get(path, "").await.body;
        assert!(!page.contains("<script>") && !page.contains("alert(1)</script>"), "{path}: {page}");
        assert!(!page.contains("\"'\""), "{path}: {page}");
    }
    assert!(site.get(&of_cluster, "").await.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[tokio::test]
async fn every_page_forbids_what_it_does_not_need() {
    let site = guarded();
    for path in ["/", "/clusters/a", "/clusters/none", "/runs/7", "/login"] {
        let page = site.get(path, "").await;
        let header = |name: &str| page.headers.get(name).map_or("", |value| value.to_str().expect("text"));
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!((header("x-content-type-options"), header("cache-control")), ("nosniff", "no-store"), "{path}");
        // What the policy would block is not there in the first place.
        assert!(!page.body.contains(" style=\"") && !page.body.contains(" onclick"), "{path}");
        for (at, _) in page.body.match_indices("http") {
            let rest = &page.body[at..page.body.len().min(at + 30)];
            assert!(!rest.starts_with("http:") && !rest.starts_with("https:") || rest.contains("www.w3.org"), "{rest}");
        }
    }
    let page = site.get("/", "").await.body;
    let (_, rest) = page.split_once("href=\"/assets/").expect("a style");
    let style = rest.split('"').next().expect("quoted");
    let asset = site.get(&format!("/assets/{style}"), "").await;
    assert_eq!(asset.status, 200);
    assert!(asset.headers["cache-control"].to_str().expect("text").contains("immutable"));
    assert_eq!(site.get("/assets/page-0.css", "").await.status, 404);
}

#[tokio::test]
async fn a_thousand_clusters_make_a_page_that_a_phone_can_load() {
    let names: Vec<_> = (0..1_000).map(|number| format!("cluster-{number:04}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let site = site_of(&names, AccessPolicy::tokens(None, None));
    site.app.fleet().all()[777].target.etcd().arm_no_space();
    // The first view knows nothing yet and observes the fleet.
    let page = until("the cluster in trouble is first", Duration::from_mins(1), || async {
        let page = site.get("/", "").await.body;
        let first = page.find("/clusters/cluster-").expect("a cluster");
        anyhow::ensure!(page[first..].starts_with("/clusters/cluster-0777"), "{}", &page[first..first + 40]);
        Ok(page)
    })
    .await
    .expect("trouble first");
    assert!(page.len() < 150_000, "{} bytes", page.len());
    assert!(page.contains("1,000 of 1,000 clusters, page 1 of 20") && page.contains("role=\"search\""), "{page}");
    let found = site.get("/?q=CLUSTER-004&state=fragmented&page=1", "").await.body;
    assert_eq!(found.matches("<article class=\"card\"").count(), 10, "{found}");
}
