//! The OpenAPI document against the program: it has every route, and everything in it is answered as it says. What a real
//! cluster makes the program answer is in `tests/e2e/api.rs`.

use std::{collections::BTreeSet, fs};

use reqwest::Method;
use testkit::{Home, OpenApi, Response};

use crate::rig::{TOKEN, client, home, root};

/// The paths that `routes.rs` serves, as they are written there.
fn routes() -> BTreeSet<String> {
    let source = fs::read_to_string(root().join("src/adapters/http/routes.rs")).unwrap();
    let mut routes: BTreeSet<_> =
        source.split("at(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    assert!(source.contains("at(&site.options.telemetry_path)"));
    routes.insert("/metrics".to_owned());
    routes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_has_every_route_and_every_answer_is_as_it_says() {
    let home = home();
    let mut flags = Home::nowhere();
    flags.push(home.flag("--web.bearer-token-file", "token"));
    let defragd = home.serve(&flags).await.unwrap();
    let api = OpenApi::of(&defragd).await.unwrap();
    let operations = api.operations().unwrap();
    assert_eq!(operations.iter().map(|(path, _)| path.clone()).collect::<BTreeSet<_>>(), routes());

    // It is strict, or the rest would show nothing.
    for (status, body) in [(200, r#"{"runs": [], "more": 1}"#), (200, r#"{"runs": 1}"#), (418, "{}")] {
        let answer = Response { status, body: body.to_owned() };
        assert!(api.allows("get", "/api/v1/runs", &answer).is_err(), "{status} {body}");
    }

    let client = client(None).build().unwrap();
    let mut wrong = Vec::new();
    for (template, methods) in &operations {
        for (name, id) in [("demo", "1"), ("other", "one"), ("%ff", "-1")] {
            let path = template.replace("{name}", name).replace("{id}", id);
            for (body, token) in
                [("{}", Some(TOKEN)), ("{}", None), ("[]", Some(TOKEN)), (r#"{"reason": "x"}"#, Some(TOKEN))]
            {
                for method in ["get", "post", "put", "delete", "patch"] {
                    let url = format!("{}{path}", defragd.url());
                    let name: Method = method.to_uppercase().parse().unwrap();
                    let mut request = client.request(name, url).header("content-type", "application/json").body(body);
                    if let Some(token) = token {
                        request = request.bearer_auth(token);
                    }
                    let answer = request.send().await.unwrap();
                    let answer = Response { status: answer.status().as_u16(), body: answer.text().await.unwrap() };
                    if !methods.iter().any(|known| known == method) {
                        assert_eq!(answer.status, 405, "{method} {path} is not in the document");
                    } else if let Err(error) = api.allows(method, &path, &answer) {
                        wrong.push(format!("{path} {body}: {error:#}"));
                    }
                }
            }
        }
    }
    for path in
        ["/api/v1/runs?limit=x", "/api/v1/runs?limit=4294967296", "/api/v1/clusters/demo/plan?as_manual=perhaps"]
    {
        let answer = defragd.get(path).await.unwrap();
        assert_eq!(answer.status, 400, "{path}");
        if let Err(error) = api.allows("get", path.split('?').next().unwrap(), &answer) {
            wrong.push(format!("{path}: {error:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
