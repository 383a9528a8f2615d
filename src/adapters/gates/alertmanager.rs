//! Active alerts, neither silenced nor inhibited, that all matchers match: there must be none.

use std::{collections::BTreeSet, time::Instant};

use futures_util::future::{BoxFuture, FutureExt};

use super::{failure, millis};
use crate::{
    adapters::outgoing::{Alertmanager, CallError, ClientSettings, UrlSource, detail, excerpt, shown},
    core::story,
    ports::gate::{AlertmanagerGate, CheckContext, GateProbe, Reading, Tries},
};

/// Enough to know where to look.
const MAX_SHOWN_NAMES: usize = 10;

#[derive(Clone, Debug)]
pub(super) struct AlertmanagerProbe {
    url: UrlSource,
    server: Alertmanager,
    matchers: Vec<String>,
    ignore: Vec<String>,
    tries: Tries,
}

impl AlertmanagerProbe {
    /// Checks that its files are usable.
    pub(super) fn new(check: AlertmanagerGate) -> Result<Self, CallError> {
        let tries = check.tries();
        let access = ClientSettings::new(check.credentials(), check.tls.clone(), check.timeout);
        let source = UrlSource::new(check.url.as_ref(), check.url_file.as_ref(), &check.tls);
        let url = source.read()?;
        access.try_files(&url)?;
        let AlertmanagerGate { matchers, ignore, .. } = check;
        Ok(Self { url: source, server: Alertmanager::checked(url.as_str(), access)?, matchers, ignore, tries })
    }

    async fn once(&self) -> Reading {
        let began = Instant::now();
        let asked = async {
            let url = self.url.current(self.tries.timeout).await?;
            let (alerts, secrets) = self.server.at_secret(url.clone()).active(&self.matchers).await?;
            Ok((shown(&url), alerts, secrets))
        };
        let (url, alerts, secrets) = match asked.await {
            Ok(found) => found,
            Err(error) => return failure(&error, began),
        };
        let name = |labels: &crate::core::alert::Labels| labels.get("alertname").cloned().unwrap_or_default();
        let names: Vec<_> =
            alerts.iter().map(|alert| name(&alert.labels)).filter(|name| !self.ignore.contains(name)).collect();
        let (count, different) = (names.len(), names.iter().collect::<BTreeSet<_>>());
        let shown: Vec<_> = different.iter().take(MAX_SHOWN_NAMES).map(|name| excerpt(&secrets.mask(name))).collect();
        let matchers = self.matchers.join(", ");
        let reading = if count == 0 {
            Reading::pass(format!("no active alert matches {matchers}"))
        } else {
            let more = if different.len() > shown.len() { ", …" } else { "" };
            let names = detail(&shown.join(", "));
            Reading::fail(format!("{} matching {matchers}: {names}{more}", story::count(count, "active alert")))
                .with("alerts", shown)
        };
        let reading = reading.with("url", url).with("latency_ms", millis(began.elapsed()));
        reading.with("active_alerts", count)
    }
}

impl GateProbe for AlertmanagerProbe {
    fn check<'a>(&'a self, _: CheckContext<'a>) -> BoxFuture<'a, Reading> {
        self.tries.run(|| self.once()).boxed()
    }
}
