//! defragd itself as a child process, as its users run it.

use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::process::Process;
use crate::{Exposition, Host, Response, http, until};

const READY: Duration = Duration::from_mins(1);
/// A scrape of members that hang takes 9.5 s by itself; ten thousand alerts take seconds on a busy machine.
const ANSWERS: Duration = Duration::from_mins(1);
/// The address that lets the system choose the port; the "listening" line says which.
const ANY_PORT: &str = "127.0.0.1:0";

/// A running `defragd serve`. Dropping it kills it.
#[derive(Debug)]
pub struct Defragd {
    url: String,
    http: reqwest::Client,
    process: Process,
}

impl Defragd {
    /// Starts `BINARY serve ARGS`, logging to a file, and waits until it says that it listens.
    ///
    /// Without a `--web.listen-address` among the arguments it listens on a port that the system chooses.
    pub async fn start(binary: &Path, args: &[String], log: &Path) -> Result<Self> {
        Self::start_at(&Host::LOOPBACK, binary, args, log).await
    }

    /// The same on a machine of its own, on whose address it must listen.
    pub async fn start_at(host: &Host, binary: &Path, args: &[String], log: &Path) -> Result<Self> {
        let mut all = vec!["serve".to_owned()];
        all.extend(args.iter().cloned());
        if !args.iter().any(|arg| arg.starts_with("--web.listen-address")) {
            all.push(format!("--web.listen-address={ANY_PORT}"));
        }
        // A log that an earlier start wrote holds that one's address.
        let before = fs::metadata(log).map_or(0, |meta| meta.len());
        let process = match host.network_of {
            None => Process::spawn("defragd", binary, &all, &[], log)?,
            Some(pid) => {
                let mut inside =
                    vec![format!("--net=/proc/{pid}/ns/net"), "--".to_owned(), binary.display().to_string()];
                inside.append(&mut all);
                Process::spawn("defragd", Path::new("nsenter"), &inside, &[], log)?
            }
        };
        let address = process
            .ready(READY, || async {
                let text = fs::read_to_string(log)?;
                let new = text.get(usize::try_from(before)?..).unwrap_or_default();
                // The end of a line may not be written yet, and with it a part of the address.
                let whole = new.rfind('\n').map_or("", |end| &new[..end]);
                whole.lines().find_map(listening).context("it has not said that it listens")
            })
            .await?;
        Ok(Self { url: format!("http://{address}"), http: http::patient_client(None, ANSWERS)?, process })
    }

    /// Where it serves.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address without the scheme, as Prometheus' configuration needs it.
    pub fn target(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Gets a page, whatever its status.
    pub async fn get(&self, path: &str) -> Result<Response> {
        http::send(self.http.get(format!("{}{path}", self.url))).await
    }

    /// Gets a JSON page that must be answered with 200.
    pub async fn json(&self, path: &str) -> Result<serde_json::Value> {
        let text = http::get(&self.http, &format!("{}{path}", self.url)).await?;
        serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Result<Exposition> {
        Ok(Exposition::new(http::get(&self.http, &format!("{}/metrics", self.url)).await?))
    }

    /// Posts a webhook's body as it is, with a bearer token if given.
    pub async fn post_raw(&self, body: impl Into<String>, token: Option<&str>) -> Result<Response> {
        self.post("/api/v1/alerts", body, token).await
    }

    /// Posts JSON to any path, with a bearer token if given.
    pub async fn post(&self, path: &str, body: impl Into<String>, token: Option<&str>) -> Result<Response> {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.post(url).header("content-type", "application/json").body(body.into());
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        http::send(request).await
    }

    /// Posts a webhook as Alertmanager does, with a bearer token if given.
    pub async fn post_alerts(&self, webhook: &serde_json::Value, token: Option<&str>) -> Result<Response> {
        self.post_raw(webhook.to_string(), token).await
    }

    /// Everything it has logged.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.process.log_path())?)
    }

    /// Its log file.
    pub fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// Fails with the end of its log if it has ended.
    pub fn ensure_running(&self) -> Result<()> {
        self.process.ensure_running()
    }

    /// Asks it to end (SIGTERM) without waiting.
    pub fn signal_term(&self) -> Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Asks it to re-read its configuration (SIGHUP).
    pub fn signal_hup(&self) -> Result<()> {
        self.process.signal(Signal::HUP)
    }

    /// Stops it (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Resumes a stopped one (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Asks it to end (SIGTERM) and waits for it.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        self.signal_term()?;
        self.ended(limit).await
    }

    /// Waits until it has ended.
    pub async fn ended(&self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit).await
    }

    /// Waits until its log contains this text.
    pub async fn logs(&self, text: &str, limit: Duration) -> Result<()> {
        until(&format!("the log to contain {text:?}"), limit, || async {
            ensure!(self.log()?.contains(text), "the end of the log:\n{}", self.process.tail(10));
            Ok(())
        })
        .await
    }

    /// Ends it without warning (SIGKILL).
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }
}

/// The address in a line `… msg="listening" address=127.0.0.1:9379`, in logfmt or JSON.
fn listening(line: &str) -> Option<String> {
    let says = ["msg=\"listening\"", "msg=listening", "message=listening", "message=\"listening\"", "\"listening\""];
    if !says.iter().any(|text| line.contains(text)) {
        return None;
    }
    let (_, rest) = line.split_once("address")?;
    let address: String = rest
        .trim_start_matches(['"', ':', '=', ' '])
        .chars()
        .take_while(|c| !c.is_whitespace() && !matches!(c, '"' | ',' | '}'))
        .collect();
    (!address.is_empty()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_listening_line() {
        let logfmt = "ts=2026-01-01T00:00:00Z level=info msg=\"listening\" address=127.0.0.1:41000 x=1";
        assert_eq!(listening(logfmt).as_deref(), Some("127.0.0.1:41000"));
        let json = r#"{"level":"INFO","message":"listening","address":"127.0.0.1:41000"}"#;
        assert_eq!(listening(json).as_deref(), Some("127.0.0.1:41000"));
        assert_eq!(listening("msg=\"starting\" address=127.0.0.1:0"), None);
    }
}
