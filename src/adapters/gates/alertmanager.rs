//! Alerts that fire, are neither silenced nor inhibited, and that all matchers match: none must.

use std::{collections::BTreeSet, time::Instant};

use futures_util::future::{BoxFuture, FutureExt};
use url::Url;

use super::{Tries, failure, millis};
use crate::{
    adapters::outgoing::{Alertmanager, CallError, ClientSettings, detail, excerpt, shown},
    ports::gate::{CheckContext, GateProbe, Reading},
};

/// Enough to know where to look.
const MAX_SHOWN_NAMES: usize = 10;

/// Which alerts are looked for, and where.
#[derive(Clone, Debug)]
pub struct AlertmanagerCheck {
    /// The base, without query.
    pub url: Url,
    /// In Alertmanager's syntax.
    pub matchers: Vec<String>,
    /// Names of alerts that are no failure.
    pub ignore: BTreeSet<String>,
    pub access: ClientSettings,
    pub tries: Tries,
}

#[derive(Clone, Debug)]
pub struct AlertmanagerProbe {
    server: Alertmanager,
    url: String,
    matchers: Vec<String>,
    ignore: BTreeSet<String>,
    tries: Tries,
}

impl AlertmanagerProbe {
    /// Looks whether its files can be used.
    pub fn new(check: AlertmanagerCheck) -> Result<Self, CallError> {
        check.access.try_files(&check.url)?;
        let AlertmanagerCheck { url, matchers, ignore, access, tries } = check;
        Ok(Self { server: Alertmanager::checked(url.as_str(), access)?, url: shown(&url), matchers, ignore, tries })
    }

    async fn once(&self) -> Reading {
        let began = Instant::now();
        let (alerts, secrets) = match self.server.active(&self.matchers).await {
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
            Reading::fail(format!("{count} active alert(s) match {matchers}: {names}{more}")).with("alerts", shown)
        };
        let reading = reading.with("url", self.url.as_str()).with("latency_ms", millis(began.elapsed()));
        reading.with("active_alerts", count)
    }
}

impl GateProbe for AlertmanagerProbe {
    fn check<'a>(&'a self, _: CheckContext<'a>) -> BoxFuture<'a, Reading> {
        self.tries.run(|| self.once()).boxed()
    }
}
