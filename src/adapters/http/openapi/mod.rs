//! The OpenAPI document, written by hand in the two files beside this one: the answers' types are shared with the
//! journal, whose forms of times, sizes and reasons no generator knows. Tests hold it against routes and answers.

use std::sync::LazyLock;

use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let parsed = |text| serde_saphyr::from_str::<Value>(text).unwrap_or_default();
    let mut document = parsed(include_str!("paths.yaml"));
    document["components"]["schemas"] = parsed(include_str!("schemas.yaml"));
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
});

/// For clients that find the routes under this prefix, with the metrics at this path.
pub fn document(prefix: &str, telemetry_path: &str) -> Value {
    let mut document = DOCUMENT.clone();
    document["servers"] = json!([{ "url": if prefix.is_empty() { "/" } else { prefix } }]);
    if let Some(paths) = document["paths"].as_object_mut()
        && let Some(metrics) = paths.remove("/metrics")
    {
        paths.insert(telemetry_path.to_owned(), metrics);
    }
    document
}
