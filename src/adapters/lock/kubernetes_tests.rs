//! Against a server that stores one Lease like the real one: with `resourceVersion` and conflicts.
//! `tests/e2e/lock_stores.rs` checks the same against a real API server, if there is one.

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::*;

#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    /// The next write comes second.
    interfere: bool,
    denies: bool,
}

type Shared = Arc<SyncMutex<Server>>;

async fn answer(State(server): State<Shared>, method: Method, body: String) -> Response {
    let mut server = server.lock();
    let status = |code: u16, message: &str| {
        let body =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message});
        (StatusCode::from_u16(code).expect("a code"), Json(body)).into_response()
    };
    if server.denies {
        return status(403, "leases.coordination.k8s.io is forbidden");
    }
    if method != Method::GET && std::mem::take(&mut server.interfere) {
        server.version += 1;
        let version = server.version.to_string();
        if let Some(lease) = &mut server.lease {
            lease["metadata"]["resourceVersion"] = json!(version);
        }
    }
    let sent: Value = serde_json::from_str(&body).unwrap_or_default();
    match (method, &server.lease) {
        (Method::GET, Some(lease)) => return Json(lease.clone()).into_response(),
        (Method::GET | Method::PUT, None) => return status(404, "not found"),
        (Method::POST, Some(_)) => return status(409, "already exists"),
        (Method::PUT, Some(lease)) if lease["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] => {
            return status(409, "the object has been modified");
        }
        _ => {}
    }
    server.version += 1;
    let mut lease = sent;
    lease["metadata"]["resourceVersion"] = json!(server.version.to_string());
    server.lease = Some(lease.clone());
    Json(lease).into_response()
}

struct Site {
    server: Shared,
    dir: tempfile::TempDir,
}

impl Site {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = Shared::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&server));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = tempfile::tempdir().expect("a directory");
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{server: '{url}'}}}}], users: [{{name: u, user: {{}}}}]}}"
        );
        std::fs::write(dir.path().join("kubeconfig"), kubeconfig).expect("written");
        Self { server, dir }
    }

    fn replica(&self, name: &str, ttl: Duration) -> KubernetesLock {
        let kubeconfig = Some(self.dir.path().join("kubeconfig"));
        let keys = KubernetesKeys { kubeconfig, namespace: Some("locks".to_owned()), ..KubernetesKeys::default() };
        let me = Holder { name: name.to_owned(), url: Some(format!("https://{name}")) };
        KubernetesLock::new(keys, LockCandidate { cluster: "a".to_owned(), me, ttl })
    }

    fn act(&self) -> parking_lot::MutexGuard<'_, Server> {
        self.server.lock()
    }
}

fn term(standing: &LockAnswer) -> Option<u64> {
    match standing {
        LockAnswer::Held { term, .. } => Some(term.0),
        LockAnswer::Elsewhere { .. } => None,
    }
}

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn of_two_that_write_at_once_one_gets_a_conflict_and_no_lock() {
    let site = Site::start().await;
    let (one, two) = (site.replica("one", TTL), site.replica("two", TTL));
    assert_eq!(term(&one.renew_candidacy().await.expect("made")), Some(1));
    site.act().interfere = true;
    let conflict = one.renew_candidacy().await.expect_err("it was changed between the read and the write");
    assert!(conflict.detail.contains("another replica has changed the Lease"), "{conflict:?}");
    assert_eq!(term(&one.renew_candidacy().await.expect("renewed")), Some(1));
    let LockAnswer::Elsewhere { holder } = two.renew_candidacy().await.expect("seen") else { panic!("one holds it") };
    assert_eq!((holder.name.as_str(), holder.url.as_deref()), ("one", Some("https://one")));
    site.act().interfere = true;
    assert!(one.write_note(Term(1), "x").await.is_err());
    one.write_note(Term(1), "paused").await.expect("left");
    assert_eq!(two.read_note().await.expect("read").as_deref(), Some("paused"));
    one.release().await;
    assert_eq!(term(&two.renew_candidacy().await.expect("free")), Some(2));
    assert_eq!(two.read_note().await.expect("read").as_deref(), Some("paused"), "a takeover keeps the note");
    assert!(one.write_note(Term(1), "late").await.is_err());
}

#[tokio::test]
async fn only_a_record_that_we_have_seen_unchanged_for_its_whole_duration_is_expired() {
    let site = Site::start().await;
    let (one, two) = (site.replica("one", Duration::from_secs(2)), site.replica("two", Duration::from_secs(2)));
    one.renew_candidacy().await.expect("made");
    // The times in the record are for people: a clock that is wrong by years changes nothing.
    if let Some(lease) = &mut site.act().lease {
        lease["spec"]["renewTime"] = json!("2001-01-01T00:00:00.000000Z");
    }
    let begun = Instant::now();
    let mut renewals = 0;
    // Twice the duration, and on a slow machine longer.
    while begun.elapsed() < Duration::from_secs(4) || renewals < 5 {
        assert_eq!(term(&two.renew_candidacy().await.expect("seen")), None, "{:?}", begun.elapsed());
        one.renew_candidacy().await.expect("renewed");
        renewals += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let last = Instant::now();
    while term(&two.renew_candidacy().await.expect("seen")).is_none() {
        assert!(last.elapsed() < Duration::from_mins(1), "never acquired");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(last.elapsed() >= Duration::from_secs(2), "{:?}", last.elapsed());
    assert_eq!(term(&one.renew_candidacy().await.expect("seen")), None);
}

#[tokio::test]
async fn a_denial_says_so_and_a_name_that_kubernetes_would_not_take_is_made_fit() {
    let site = Site::start().await;
    let mut one = site.replica("one", TTL);
    site.act().denies = true;
    let denied = one.renew_candidacy().await.expect_err("denied");
    assert_eq!(denied.kind, UnknownKind::Denied);
    assert!(denied.detail.contains("leases.coordination.k8s.io is forbidden"), "{denied:?}");
    assert_eq!(one.name(), "defragd-a");
    one.candidate.cluster = "Prod A".to_owned();
    let first = one.name();
    one.candidate.cluster = "prod a".to_owned();
    assert_ne!(first, one.name(), "two clusters have two Leases");
    assert!(first.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{first}");
}
