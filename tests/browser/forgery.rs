//! Foreign pages, opened in an operator's browser, cannot act on a cluster.

use axum::{Router, response::Html, routing::get};
use serde_json::Value;
use testkit::Home;

use crate::rig::{MINUTE, browser, home};

/// A foreign page that sends a pause as soon as it is opened. Another port is another origin, yet the same
/// site, so that the browser sends our cookie along.
async fn evil(target: String) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = move |token: &str| {
        Html(format!(
            "<!doctype html><form method=post action=\"{target}/clusters/demo/pause\">\
             <input name=by value=eve><input name=reason value=evil><input name=for value=1h>\
             <input name=form value=\"{token}\"></form><script>document.forms[0].submit()</script>"
        ))
    };
    let router = Router::new().route("/", get(move || async move { page("0") }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_on_another_page_is_refused_whether_or_not_its_reader_is_logged_in() {
    let Some(browser) = browser().await else { return };
    for is_guarded in [false, true] {
        let home = home();
        let mut flags = Home::nowhere();
        if is_guarded {
            flags.extend(home.token_flags());
        }
        let defragd = home.serve(&flags).await.unwrap();
        if is_guarded {
            browser.open(&format!("{}/login", defragd.url())).await.unwrap();
            browser.enter("#token", Home::ADMIN).await.unwrap();
            browser.click("main button").await.unwrap();
            browser.wait_for("Sign out", MINUTE).await.unwrap();
        } else {
            // So that there is a cookie.
            browser.open(&format!("{}/clusters/demo", defragd.url())).await.unwrap();
        }
        assert_eq!(browser.cookies().await.unwrap().as_array().map(Vec::len), Some(1));
        let port = evil(defragd.url().to_owned()).await;
        for host in ["127.0.0.1", "localhost"] {
            browser.open(&format!("http://{host}:{port}/")).await.unwrap();
            browser.wait_for("The request comes from another site", MINUTE).await.unwrap();
        }
        let summary = defragd.json("/api/v1/clusters").await.unwrap();
        assert_eq!(summary["clusters"][0]["paused"], Value::Null, "{summary}");
    }
}
