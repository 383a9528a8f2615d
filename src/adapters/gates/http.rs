//! The answer of a URL: its status, and the content of its body.

use std::time::Instant;

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::Method;

use super::{failure, millis};
use crate::{
    adapters::outgoing::{CallError, ClientSettings, Secrets, UrlSource, excerpt, redirect_target, shown},
    ports::gate::{CheckContext, GateProbe, HttpGate, Reading},
};

/// Health pages are shorter; what follows is not checked.
const MAX_BODY_BYTES: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(super) struct HttpProbe {
    check: HttpGate,
    url: UrlSource,
    method: Method,
    access: ClientSettings,
}

impl HttpProbe {
    /// Checks that its files are usable.
    pub(super) fn new(check: HttpGate) -> Result<Self, CallError> {
        let access = ClientSettings {
            follow_redirects: check.follow_redirects,
            ..ClientSettings::new(check.credentials(), check.tls.clone(), check.timeout)
        };
        let source = UrlSource::new(check.url.as_ref(), check.url_file.as_ref(), &check.tls);
        let url = source.read()?;
        let bad = |detail: &str| CallError::Url { url: shown(&url), detail: detail.to_owned() };
        let method = check.method.parse().map_err(|_| bad("invalid method"))?;
        access.try_files(&url)?;
        Ok(Self { check, url: source, method, access })
    }

    async fn once(&self) -> Reading {
        let (check, began) = (&self.check, Instant::now());
        let asked = async {
            let url = self.url.current(check.timeout).await?;
            let answer = self.access.ask(self.method.clone(), &url, None, MAX_BODY_BYTES).await?;
            Ok((url, answer))
        };
        let (asked, answer) = match asked.await {
            Ok(answered) => answered,
            Err(error) => return failure(&error, began),
        };
        let asked = &asked;
        let (url, status, method) = (shown(asked), answer.status, &self.method);
        let text = String::from_utf8_lossy(&answer.body);
        let clean = |text: &str| excerpt(&Secrets::of_url(asked).mask(&answer.secrets.mask(text)));
        let body = clean(&text);
        let latency = millis(began.elapsed());
        let sentence = format!("{method} {url} answered {status} in {latency} ms");
        let location = answer.location.map(|location| match asked.join(&location) {
            Ok(target) => clean(&redirect_target(&target)),
            Err(_) => "nowhere".to_owned(),
        });
        let found = check.expect_body.as_ref().is_none_or(|pattern| pattern.is_in(&text));
        let mut reading = if !check.expect_status.contains(status) {
            let to = location.as_ref().map_or(String::new(), |to| format!(", a redirect to {to}"));
            Reading::fail(format!("{sentence}{to}, but expected {}", check.expect_status))
        } else if let (false, Some(pattern)) = (found, &check.expect_body) {
            let part = if answer.is_cut {
                format!("the first {MAX_BODY_BYTES} bytes of its body")
            } else {
                "its body".to_owned()
            };
            Reading::fail(format!("{sentence}, but {part} does not match {pattern:?}", pattern = pattern.to_string()))
        } else {
            Reading::pass(sentence)
        };
        reading =
            reading.with("url", url).with("status", status).with("latency_ms", latency).with("body_excerpt", body);
        if answer.is_cut {
            reading = reading.with("body_is_cut", true);
        }
        if let Some(location) = location {
            reading = reading.with("location", location);
        }
        if check.tls.insecure_skip_verify {
            reading = reading.with("tls_verified", false);
        }
        reading
    }
}

impl GateProbe for HttpProbe {
    fn check<'a>(&'a self, _: CheckContext<'a>) -> BoxFuture<'a, Reading> {
        self.check.tries().run(|| self.once()).boxed()
    }
}
