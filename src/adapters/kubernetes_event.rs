//! Notifications of runs as Events of Kubernetes (`events.k8s.io/v1`): `kubectl events` shows them, and what collects Events
//! of other controllers collects these.
//!
//! All attempts to record one use the same name, so a lost answer makes no second Event.

use axum::http::Method;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    adapters::gates::kubernetes::{ApiError, Connection, answer, micro_time},
    core::story,
    ports::notifier::{End, EventObject, Notice, Notifier, NotifyEvent, Undelivered},
};

/// The API server refuses longer notes.
const MAX_NOTE_BYTES: usize = 1_024;
/// A name has at most 253 characters, and ours ends with the run and a time.
const MAX_NAME_PREFIX: usize = 200;
/// An Event is returned as it was written, with some metadata.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// What `kubectl describe` shows under "From".
const CONTROLLER: &str = "defragd";

#[derive(Debug)]
pub struct EventTarget {
    name: String,
    settings: NotifyEvent,
    pod: Pod,
}

/// The pod that defragd runs in, by the downward API.
#[derive(Clone, Debug, Default)]
struct Pod {
    /// Without `$POD_NAME`, the host name, which is the pod's name unless it uses the node's network.
    name: Option<String>,
    /// Without it, the namespace of the service account.
    namespace: Option<String>,
    /// Without it, `kubectl describe pod` does not show the Events.
    uid: Option<String>,
}

impl Pod {
    fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            name: variable("POD_NAME").or_else(|| variable("HOSTNAME")),
            namespace: variable("POD_NAMESPACE"),
            uid: variable("POD_UID"),
        }
    }
}

impl EventTarget {
    /// Nothing is read or sent before the first notification.
    pub fn new(name: String, settings: &NotifyEvent) -> Result<Self, &'static str> {
        Self::of(name, settings, Pod::of_environment())
    }

    fn of(name: String, settings: &NotifyEvent, pod: Pod) -> Result<Self, &'static str> {
        if settings.regarding.is_none() && pod.name.is_none() {
            return Err("the pod's name is unknown: set POD_NAME with the downward API, or `regarding`");
        }
        Ok(Self { name, settings: settings.clone(), pod })
    }

    async fn record(&self, notice: &Notice) -> Result<(), ApiError> {
        let NotifyEvent { kubeconfig, context, timeout, .. } = &self.settings;
        // A new one for each: a service account's token is replaced regularly.
        let connection = Connection::open(kubeconfig.as_deref(), context.as_deref(), *timeout).await?;
        let event = event(notice, self.settings.regarding.as_ref(), &self.pod, connection.client.default_namespace());
        let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        match connection.send_json(Method::POST, &path, Some(&event), MAX_ANSWER_BYTES, "an Event").await? {
            // 409: an earlier attempt recorded it, and its answer was lost.
            (200 | 201 | 409, _) => Ok(()),
            (code, body) => {
                Err(answer(code, &body, &connection, &format!("create events in the namespace {namespace}")))
            }
        }
    }

    async fn attempt(&self, notice: &Notice) -> Result<(), Undelivered> {
        let limit = self.settings.timeout;
        let recorded = timeout(limit, self.record(notice)).await.unwrap_or_else(|_| {
            let (server, task) = ("of the cluster".to_owned(), "record the Event".to_owned());
            Err(ApiError::TimedOut { server, task, after: limit })
        });
        recorded.map_err(|error| Undelivered {
            may_pass: match &error {
                ApiError::Refused { code, .. } => matches!(code, 408 | 429 | 500..),
                ApiError::Denied { .. } | ApiError::NotUnderstood { .. } | ApiError::TooMany { .. } => false,
                // 401, too: while its etcd does not answer, the API server cannot check a service account's token.
                _ => true,
            },
            detail: error.to_string(),
        })
    }
}

impl Notifier for EventTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, _: &Notice) -> bool {
        true
    }

    fn deliver<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(self.attempt(notice))
    }
}

/// `None` if it is unknown what the Event is about. `own_namespace` is that of the service account.
fn event(notice: &Notice, regarding: Option<&EventObject>, pod: &Pod, own_namespace: &str) -> Value {
    let (regarding, name, namespace) = match regarding {
        Some(EventObject { api_version, kind, name, namespace }) => {
            let object = json!({"apiVersion": api_version, "kind": kind, "name": name, "namespace": namespace});
            (object, name.as_str(), namespace.as_deref().unwrap_or("default"))
        }
        None => {
            let (name, namespace) =
                (pod.name.as_deref().unwrap_or_default(), pod.namespace.as_deref().unwrap_or(own_namespace));
            let uid = &pod.uid;
            let object = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace, "uid": uid});
            (object, name, namespace)
        }
    };
    let at = notice.end.as_ref().map_or(notice.started_at, |end| end.finished_at);
    let (reason, severity) = match &notice.end {
        None => ("RunStarted", "Normal"),
        Some(end) if matches!(end.outcome, "succeeded" | "nothing_to_do" | "observed" | "stopped") => {
            ("RunFinished", "Normal")
        }
        Some(_) => ("RunFailed", "Warning"),
    };
    let prefix: String = name.chars().take(MAX_NAME_PREFIX).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.run-{}.{:x}", prefix.trim_end_matches(['.', '-']), notice.run, at.as_nanosecond()),
            "namespace": namespace,
        },
        "eventTime": micro_time(at),
        "reportingController": CONTROLLER,
        "reportingInstance": pod.name.as_deref().unwrap_or(CONTROLLER).chars().take(128).collect::<String>(),
        "action": "Defragment",
        "reason": reason,
        "type": severity,
        "regarding": regarding,
        "note": note(notice),
    })
}

/// A sentence or two with the run's number, and the link to its page.
fn note(notice: &Notice) -> String {
    let what = match &notice.end {
        None => format!("started, requested by {}.", story::requester(notice.trigger)),
        Some(end) => ended(end),
    };
    let mut text = format!("Run {} of the cluster {} {what}", notice.run, notice.cluster);
    let link = notice.link.as_ref().map_or_else(String::new, |link| format!(" {link}"));
    text.truncate(text.floor_char_boundary(MAX_NOTE_BYTES.saturating_sub(link.len())));
    text + &link
}

fn ended(end: &End) -> String {
    let what = match end.outcome {
        "nothing_to_do" => "finished: no member needs defragmenting",
        "observed" => "finished: the mode is observe, and nothing was changed",
        "refused" => "was refused, and nothing was changed",
        "stopped" => "was stopped",
        "interrupted" => "was interrupted",
        "mismatched" => "failed",
        outcome => outcome,
    };
    let why = end.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let reclaimed = (!end.members.is_empty()).then(|| {
        let size = story::size(bytesize::ByteSize(end.reclaimed_bytes));
        format!("{size} reclaimed; attempted: {}.", end.members.join(", "))
    });
    let sentences = [Some(format!("{what}{why}.")), reclaimed, end.advice.map(str::to_owned)];
    sentences.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;
    use crate::core::history::{RunId, Trigger};

    fn notice(end: Option<End>) -> Notice {
        Notice {
            event: "run_started",
            cluster: "prod".to_owned(),
            run: RunId(7),
            trigger: Trigger::Alert,
            alerts: Vec::new(),
            started_at: "2026-11-24T10:00:00Z".parse().expect("a time"),
            link: Some("https://x/runs/7".to_owned()),
            end,
        }
    }

    fn end(outcome: &'static str, reason: Option<&str>) -> End {
        End {
            finished_at: "2026-11-24T10:01:00.123456789Z".parse().expect("a time"),
            outcome,
            reason_code: None,
            reason: reason.map(str::to_owned),
            advice: reason.map(|_| "Free space."),
            reclaimed_bytes: 3 << 20,
            members: vec!["m1".to_owned(), "m2".to_owned()],
        }
    }

    fn pod() -> Pod {
        Pod { name: Some("defragd-0".to_owned()), namespace: None, uid: Some("u".to_owned()) }
    }

    #[test]
    fn without_an_object_it_is_about_the_pod_in_the_namespace_of_its_account() {
        let event = event(&notice(None), None, &pod(), "ops");
        let regarding = json!({"apiVersion": "v1", "kind": "Pod", "name": "defragd-0", "namespace": "ops", "uid": "u"});
        assert_eq!((&event["regarding"], &event["metadata"]["namespace"]), (&regarding, &json!("ops")));
        assert_eq!(event["metadata"]["name"], "defragd-0.run-7.18eaf2d571194000");
        assert_eq!((&event["reason"], &event["type"]), (&json!("RunStarted"), &json!("Normal")));
        assert_eq!(event["note"], "Run 7 of the cluster prod started, requested by an alert. https://x/runs/7");
        let settings = serde_json::from_value(json!({})).expect("all have defaults");
        assert!(EventTarget::of("events".to_owned(), &settings, Pod::default()).is_err(), "nobody knows the pod");
    }

    #[test]
    fn an_object_without_a_namespace_has_its_events_in_default() {
        let node = EventObject {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: "n1".to_owned(),
            namespace: None,
        };
        let event = event(&notice(None), Some(&node), &pod(), "ops");
        assert_eq!((&event["metadata"]["namespace"], &event["regarding"]["name"]), (&json!("default"), &json!("n1")));
    }

    #[test]
    fn only_a_run_that_did_what_it_should_is_normal() {
        let table = [
            ("succeeded", None, "RunFinished", "succeeded. 3.0 MiB reclaimed; attempted: m1, m2."),
            ("stopped", Some("anna cancelled it"), "RunFinished", "was stopped: anna cancelled it. 3.0 MiB"),
            (
                "failed",
                Some("no space"),
                "RunFailed",
                "failed: no space. 3.0 MiB reclaimed; attempted: m1, m2. Free space.",
            ),
            ("refused", Some("m3 is down"), "RunFailed", "was refused, and nothing was changed: m3 is down."),
            ("mismatched", Some("m3 differs"), "RunFailed", "failed: m3 differs."),
            ("interrupted", Some("it was killed"), "RunFailed", "was interrupted: it was killed."),
        ];
        for (outcome, why, reason, words) in table {
            let event = event(&notice(Some(end(outcome, why))), None, &pod(), "ops");
            let severity = if reason == "RunFailed" { "Warning" } else { "Normal" };
            assert_eq!((&event["reason"], &event["type"]), (&json!(reason), &json!(severity)), "{outcome}");
            let note = event["note"].as_str().expect("a note");
            assert!(note.starts_with(&format!("Run 7 of the cluster prod {words}")), "{note}");
            assert_eq!(event["eventTime"], "2026-11-24T10:01:00.123456Z");
        }
    }

    /// A target whose API server answers with this status; with none, it does not answer.
    async fn answering(status: Option<u16>) -> (EventTarget, tempfile::TempDir) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = axum::Router::new().fallback(async move || match status {
            None => std::future::pending().await,
            Some(status) => (StatusCode::from_u16(status).expect("a status"), r#"{"message": "because"}"#),
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = tempfile::tempdir().expect("a directory");
        let kubeconfig = dir.path().join("kubeconfig");
        let text = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}]});
        std::fs::write(&kubeconfig, text.to_string()).expect("written");
        let timeout = if status.is_some() { "30s" } else { "200ms" };
        let settings = serde_json::from_value(json!({"kubeconfig": kubeconfig, "timeout": timeout})).expect("its keys");
        (EventTarget { name: "events".to_owned(), settings, pod: pod() }, dir)
    }

    #[tokio::test]
    async fn what_a_busy_api_server_answers_may_pass_and_an_event_that_is_there_is_delivered() {
        let table = [
            (Some(201), None),
            (Some(409), None),
            (Some(401), Some(true)),
            (Some(403), Some(false)),
            (Some(404), Some(false)),
            (Some(422), Some(false)),
            (Some(429), Some(true)),
            (Some(500), Some(true)),
            (Some(503), Some(true)),
            (None, Some(true)),
        ];
        for (status, may_pass) in table {
            let (target, _dir) = answering(status).await;
            let result = target.deliver(&notice(None)).await;
            assert_eq!(result.as_ref().err().map(|error| error.may_pass), may_pass, "{status:?}: {result:?}");
        }
        let (target, _dir) = answering(None).await;
        let hangs = target.deliver(&notice(None)).await.expect_err("no answer");
        assert!(hangs.detail.ends_with("did not record the Event within 0.2 s"), "{hangs:?}");
    }

    #[test]
    fn a_note_is_short_enough_and_keeps_its_link() {
        let note = note(&notice(Some(end("failed", Some(&"ü".repeat(2_000))))));
        assert!(note.len() <= MAX_NOTE_BYTES && note.ends_with("ü https://x/runs/7"), "{note}");
    }
}
