//! Chromium, driven through its own driver: `WebDriver` over HTTP, and for what that does not support (colour scheme, width,
//! scripts off) the driver's access to the browser's debugging protocol.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::{Tools, http, skipped, until};

/// A browser takes seconds to start where many things run at once.
const READY: Duration = Duration::from_mins(1);
/// For one command; a page that loads is waited for.
const COMMAND: Duration = Duration::from_mins(4);
/// For a script, such as axe's on a long page: the driver's own limit of half a minute is too short on a busy machine.
const SCRIPT_MILLISECONDS: u32 = 180_000;
/// How often an element is looked for again that the page has replaced meanwhile.
const STALE: usize = 20;
/// The key under which `WebDriver` names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A running browser with one window. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    http: reqwest::Client,
    /// With the session in it.
    url: String,
    axe: PathBuf,
    // Ends the driver, and with the pipe between them the browser.
    _driver: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts it; `None`, with a line that says so, where it is not installed.
    pub async fn start(tools: &Tools, width: u32) -> Result<Option<Self>> {
        let Some([chromium, driver, axe]) = tools.browser() else {
            skipped("no Chromium, driver or axe-core here; `make tools-browser` gets them");
            return Ok(None);
        };
        http::use_tls();
        let profile = tempfile::tempdir()?;
        let log = profile.path().join("driver.log");
        let process = Process::spawn("chromedriver", &driver, &["--port=0".to_owned()], &[], &log)?;
        let port = process
            .ready(READY, || async {
                let text = fs::read_to_string(&log)?;
                let (_, rest) = text.split_once("successfully on port ").context("it has not said its port")?;
                // The number ends with a full stop, which may not be written yet.
                rest.split_once('.').and_then(|(port, _)| port.parse::<u16>().ok()).context("no port")
            })
            .await?;
        let http = reqwest::Client::builder().timeout(COMMAND).no_proxy().tls_certs_only([]).build()?;
        let base = format!("http://127.0.0.1:{port}/session");
        let arguments = [
            "--headless=new".to_owned(),
            // It opens only our own pages, and its sandbox does not work in containers.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            // The browser ends with the driver, however that ends.
            "--remote-debugging-pipe".to_owned(),
            format!("--user-data-dir={}", profile.path().join("profile").display()),
            format!("--window-size={width},900"),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": SCRIPT_MILLISECONDS},
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
        }}});
        let session = call(http.post(&base).json(&wanted)).await.context("failed to start Chromium")?;
        let id = session["sessionId"].as_str().context("a session has an id")?;
        let url = format!("{base}/{id}");
        Ok(Some(Self { http, url, axe, _driver: process, _profile: profile }))
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        call(self.http.post(format!("{}/{path}", self.url)).json(&body)).await.with_context(|| path.to_owned())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        call(self.http.get(format!("{}/{path}", self.url))).await.with_context(|| path.to_owned())
    }

    /// A command of the debugging protocol.
    async fn debug(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Opens an address and waits until it is loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("url", json!({ "url": url })).await.map(drop)
    }

    /// Where it is.
    pub async fn address(&self) -> Result<String> {
        Ok(self.get("url").await?.as_str().unwrap_or_default().to_owned())
    }

    /// What the page's owner sees of its text.
    pub async fn text(&self) -> Result<String> {
        self.text_of("body").await
    }

    /// The same of the first element that a CSS selector finds.
    pub async fn text_of(&self, selector: &str) -> Result<String> {
        let text = self.on(selector, async |element| self.get(&format!("{element}/text")).await).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page's text has this in it.
    pub async fn wait_for(&self, text: &str, limit: Duration) -> Result<()> {
        until(&format!("the page to say {text:?}"), limit, || async {
            let shown = self.text().await?;
            ensure!(shown.contains(text), "it says {shown}");
            Ok(())
        })
        .await
    }

    /// Does something to the first element that a CSS selector finds. A page that updates itself may replace it before
    /// the driver gets to it: then nothing has been done, and its successor is looked for.
    async fn on(&self, selector: &str, act: impl AsyncFn(String) -> Result<Value>) -> Result<Value> {
        let mut tries = 0;
        loop {
            let found = self.post("element", json!({"using": "css selector", "value": selector})).await?;
            let element = found[ELEMENT].as_str().context("an element has a name")?;
            tries += 1;
            match act(format!("element/{element}")).await {
                Err(error) if tries < STALE && format!("{error:#}").contains("stale element reference") => {}
                done => return done,
            }
        }
    }

    /// Clicks on it.
    pub async fn click(&self, selector: &str) -> Result<()> {
        self.on(selector, async |element| self.post(&format!("{element}/click"), json!({})).await).await.map(drop)
    }

    /// Types into it; in a list, chooses the entry that begins so.
    pub async fn enter(&self, selector: &str, text: &str) -> Result<()> {
        let typed =
            self.on(selector, async |element| self.post(&format!("{element}/value"), json!({ "text": text })).await);
        typed.await.map(drop)
    }

    /// Presses a key, as a person without a mouse does.
    pub async fn press(&self, key: &str) -> Result<()> {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.post("actions", actions).await.map(drop)
    }

    /// Runs a function's body in the page.
    pub async fn script(&self, body: &str) -> Result<Value> {
        self.post("execute/sync", json!({"script": body, "args": []})).await
    }

    /// The cookies, as the browser keeps them.
    pub async fn cookies(&self) -> Result<Value> {
        self.get("cookie").await
    }

    /// What the browser itself complained of since the last time: blocked by a policy, not found, errors of scripts.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let log = self.post("se/log", json!({"type": "browser"})).await?;
        let entries = log.as_array().cloned().unwrap_or_default();
        Ok(entries.iter().map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect())
    }

    /// Dark or light, as the reader's system says.
    pub async fn scheme(&self, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.debug("Emulation.setEmulatedMedia", json!({ "features": features })).await.map(drop)
    }

    /// As wide as a phone, or anything else, in CSS pixels.
    pub async fn width(&self, width: u32) -> Result<()> {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.debug("Emulation.setDeviceMetricsOverride", metrics).await.map(drop)
    }

    /// Whether pages may run scripts, from the next one on.
    pub async fn scripts(&self, allowed: bool) -> Result<()> {
        self.debug("Emulation.setScriptExecutionDisabled", json!({ "value": !allowed })).await.map(drop)
    }

    /// The whole page as a picture: PNG, or WebP if the name ends so.
    pub async fn picture(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let is_webp = path.extension().is_some_and(|extension| extension == "webp");
        let parameters = if is_webp {
            json!({"captureBeyondViewport": true, "format": "webp", "quality": 60})
        } else {
            json!({"captureBeyondViewport": true})
        };
        let taken = self.debug("Page.captureScreenshot", parameters).await?;
        let data = taken["data"].as_str().context("a picture has data")?;
        fs::write(path, STANDARD.decode(data)?).with_context(|| path.display().to_string())
    }

    /// How much wider the page is than the window: above 0, readers must scroll sideways.
    pub async fn overflow(&self) -> Result<i64> {
        let wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        Ok(self.script(wider).await?.as_i64().unwrap_or(i64::MAX))
    }

    /// What axe says is not accessible: rule, and the elements.
    pub async fn barriers(&self) -> Result<Vec<String>> {
        let checker = fs::read_to_string(&self.axe)?;
        self.script(&checker).await?;
        let run = "const done = arguments[arguments.length - 1]; axe.run().then(done, (e) => done({error: String(e)}))";
        let found = self.post("execute/async", json!({"script": run, "args": []})).await?;
        // A run that checked nothing found nothing.
        ensure!(found["passes"].as_array().is_some_and(|passes| passes.len() > 5), "axe did not run: {found}");
        let violations = found["violations"].as_array().cloned().unwrap_or_default();
        let line = |violation: &Value| {
            let nodes = violation["nodes"].as_array().cloned().unwrap_or_default();
            let nodes: Vec<_> =
                nodes.iter().map(|node| format!("{} {}", node["html"], node["failureSummary"])).collect();
            format!("{}: {}: {}", violation["id"], violation["help"], nodes.join(" | "))
        };
        Ok(violations.iter().map(line).collect())
    }
}

async fn call(request: reqwest::RequestBuilder) -> Result<Value> {
    let answer = request.send().await?;
    let good = answer.status().is_success();
    let body: Value = answer.json().await?;
    let value = body["value"].clone();
    ensure!(good, "{}: {}", value["error"], value["message"]);
    Ok(value)
}
