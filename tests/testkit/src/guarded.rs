//! A real Prometheus behind its own `--web.config.file`: mutual TLS and a password.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::process::Process;
use crate::prometheus::backfill;
use crate::{Pki, Port, Tools, http};

const READY: Duration = Duration::from_secs(30);

/// A running Prometheus that requires a client certificate and a password. Dropping it kills it.
#[derive(Debug)]
pub struct GuardedPrometheus {
    url: String,
    _process: Process,
    _dir: TempDir,
}

impl GuardedPrometheus {
    /// Starts it with this past, the server's certificate of that authority, and one user with a bcrypt hash.
    pub async fn start(
        tools: &Tools,
        open_metrics: &str,
        pki: &Pki,
        (user, password, hash): (&str, &str, &str),
        log: &Path,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("defragd-prometheus-").tempdir()?;
        backfill(tools, open_metrics, dir.path()).await?;
        let (config, web) = (dir.path().join("prometheus.yml"), dir.path().join("web.yml"));
        fs::write(&config, "scrape_configs: []\n")?;
        let server = pki.server();
        fs::write(
            &web,
            format!(
                "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  \
                 client_auth_type: RequireAndVerifyClientCert\nbasic_auth_users:\n  {user}: '{hash}'\n",
                server.cert.display(),
                server.key.display(),
                pki.ca().display(),
            ),
        )?;
        let mut port = Port::reserve()?;
        let args = [
            format!("--config.file={}", config.display()),
            format!("--web.config.file={}", web.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={}", port.address()),
            "--storage.tsdb.retention.time=400d".to_owned(),
        ];
        let url = format!("https://{}", port.address());
        port.release();
        let process = Process::spawn("prometheus", &tools.prometheus(), &args, &[], log)?;
        let http = http::client(Some(pki))?;
        process
            .ready(READY, || async {
                let ready = format!("{url}/-/ready");
                let answer = http::send(http.get(ready).basic_auth(user, Some(password))).await?;
                ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
                Ok(())
            })
            .await?;
        Ok(Self { url, _process: process, _dir: dir })
    }

    /// Where it serves: `https://…`.
    pub fn url(&self) -> &str {
        &self.url
    }
}
