//! Sends notifications of runs: to Grafana, as annotations, and as JSON to any URL.

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use super::{CallError, ClientSettings, Secrets, UrlSource, excerpt, shown};
use crate::{
    core::story,
    ports::notifier::{End, Notice, Notifier, NotifyAccess, NotifyFormat, Undelivered},
};

/// Of an answer, for the error alone.
const MAX_ANSWER_BYTES: usize = 1_024;

#[derive(Debug)]
pub struct NotifyTarget {
    name: String,
    format: NotifyFormat,
    url: UrlSource,
    access: ClientSettings,
}

impl NotifyTarget {
    /// Checks that its files are usable. Blocks meanwhile. The URL is Grafana's base or the webhook itself.
    pub fn new(name: String, format: NotifyFormat, settings: &NotifyAccess) -> Result<Self, CallError> {
        let access = ClientSettings::new(settings.credentials(), settings.tls.clone(), settings.timeout);
        let url = UrlSource::new(settings.url.as_ref(), settings.url_file.as_ref(), &settings.tls);
        let target = Self { name, format, url, access };
        target.access.try_files(&target.endpoint(target.url.read()?))?;
        Ok(target)
    }

    /// Grafana's API, or the webhook itself.
    fn endpoint(&self, mut url: Url) -> Url {
        if self.format == NotifyFormat::Grafana {
            url.set_path(&format!("{}/api/annotations", url.path().trim_end_matches('/')));
        }
        url
    }

    async fn send(&self, notice: &Notice) -> Result<(), Undelivered> {
        let body = match (self.format, &notice.end) {
            (NotifyFormat::Grafana, Some(end)) => annotation(notice, end),
            (NotifyFormat::Grafana, None) => return Ok(()),
            (NotifyFormat::Webhook, _) => serde_json::to_value(notice)
                .map_err(|error| Undelivered { detail: error.to_string(), may_pass: false })?,
        };
        let asked = async {
            let url = self.endpoint(self.url.current(self.access.timeout).await?);
            let answer = self.access.ask(Method::POST, &url, Some(&body), MAX_ANSWER_BYTES).await?;
            Ok((url, answer))
        };
        let (url, answer) = asked.await.map_err(|error: CallError| Undelivered {
            may_pass: matches!(error, CallError::Unreachable { .. } | CallError::File { .. }),
            detail: error.to_string(),
        })?;
        if (200..300).contains(&answer.status) {
            return Ok(());
        }
        let said = Secrets::of_url(&url).mask(&answer.secrets.mask(&String::from_utf8_lossy(&answer.body)));
        Err(Undelivered {
            detail: format!("{} answered {}: {}", shown(&url), answer.status, excerpt(&said)),
            may_pass: matches!(answer.status, 408 | 429 | 500..),
        })
    }
}

impl Notifier for NotifyTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.format == NotifyFormat::Webhook || notice.end.is_some()
    }

    fn deliver<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(self.send(notice))
    }
}

/// A region from the run's beginning to its end.
fn annotation(notice: &Notice, end: &End) -> Value {
    let reclaimed = story::size(bytesize::ByteSize(end.reclaimed_bytes));
    let mut text = format!("defragd: run {} of {}: {}", notice.run, notice.cluster, end.outcome.replace('_', " "));
    if let Some(reason) = &end.reason {
        text = format!("{text}: {reason}");
    }
    text = format!("{text} ({reclaimed} reclaimed)");
    if let Some(link) = &notice.link {
        text = format!("{text} {link}");
    }
    json!({
        "time": notice.started_at.as_millisecond(),
        "timeEnd": end.finished_at.as_millisecond(),
        "tags": ["defragd", format!("etcd_cluster:{}", notice.cluster), format!("outcome:{}", end.outcome)],
        "text": text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::{RunId, Trigger};

    #[test]
    fn an_annotation_spans_the_run_in_milliseconds_and_says_how_it_ended() {
        let at = |text: &str| text.parse().expect("a time");
        let end = End {
            finished_at: at("2026-11-24T10:01:00Z"),
            outcome: "failed",
            reason_code: Some("disk_full"),
            reason: Some("no space".to_owned()),
            advice: Some("Free space."),
            reclaimed_bytes: 3 << 20,
            members: vec!["m1".to_owned()],
        };
        let notice = Notice {
            event: "run_finished",
            cluster: "prod".to_owned(),
            run: RunId(7),
            trigger: Trigger::Alert,
            alerts: Vec::new(),
            started_at: at("2026-11-24T10:00:00Z"),
            link: Some("https://x/runs/7".to_owned()),
            end: Some(end.clone()),
        };
        let json = annotation(&notice, &end);
        assert_eq!((&json["time"], &json["timeEnd"]), (&json!(1_795_514_400_000_i64), &json!(1_795_514_460_000_i64)));
        assert_eq!(json["tags"], json!(["defragd", "etcd_cluster:prod", "outcome:failed"]));
        assert_eq!(json["text"], "defragd: run 7 of prod: failed: no space (3.0 MiB reclaimed) https://x/runs/7");
    }
}
