//! `--web.config.file` against the running program, key by key, from a client's side; that changed files are loaded
//! without a restart and broken ones are not; content negotiation of `/metrics`; `/-/reload`; and what the port withstands.

mod access;
mod crowd;
mod reload;
mod requests;
mod scrapes;
mod tls;

use anyhow::Result;
use reqwest::{Client, ClientBuilder, Identity, StatusCode};
use testkit::{Defragd, Home, Pki};

use crate::rig;

/// Of `correct horse`, at the lowest cost.
fn hash() -> String {
    bcrypt::hash("correct horse", 4).unwrap()
}

/// A folder with certificates, tokens and a web configuration, and the program on them.
struct Site {
    home: Home,
    pki: Pki,
}

impl Site {
    fn new() -> Self {
        let home = rig::home();
        let pki = Pki::create(&home.path("pki")).unwrap();
        Self { home, pki }
    }

    fn path(&self, name: &str) -> String {
        self.home.path(name).display().to_string()
    }

    /// With the server's certificate and these lines under `tls_server_config`.
    fn tls(lines: &str) -> String {
        let own = ["tls_server_config:", "cert_file: pki/server.crt", "key_file: pki/server.key"];
        own.into_iter().chain(lines.lines()).collect::<Vec<_>>().join("\n  ") + "\n"
    }

    fn write(&self, config: &str) {
        self.home.write("web.yml", config).unwrap();
    }

    async fn try_start(&self, config: &str, extra: &[&str]) -> Result<Defragd> {
        self.write(config);
        let mut flags = vec![self.home.flag("--web.config.file", "web.yml")];
        if !extra.iter().any(|flag| flag.starts_with("--config=")) {
            flags.extend(Home::nowhere());
        }
        flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
        self.home.serve(&flags).await
    }

    async fn start(&self, config: &str, extra: &[&str]) -> Defragd {
        self.try_start(config, extra).await.unwrap()
    }

    fn client(&self) -> ClientBuilder {
        rig::client(Some(&self.pki))
    }

    fn identity(identity: &testkit::Identity) -> Identity {
        Identity::from_pem(identity.pem().unwrap().as_bytes()).unwrap()
    }
}

async fn status(client: &Client, url: &str) -> Option<StatusCode> {
    client.get(url).send().await.ok().map(|answer| answer.status())
}

fn https(defragd: &Defragd, path: &str) -> String {
    format!("https://{}{path}", defragd.target())
}
