//! `docs/reference/api.md`: the OpenAPI document, for people; and `docs/reference/limits.md`.

use std::fmt::Write;

use defragd::{
    adapters::http::{limits, openapi},
    telemetry::log_limit,
};
use serde_json::{Map, Value};

use crate::held;

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What a value is, with a link if it is a structure of its own.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    let words: Vec<_> = items(&schema["enum"]).filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    if schema["anyOf"].is_array() {
        return items(&schema["anyOf"]).map(kind).collect::<Vec<_>>().join(" or ");
    }
    let of = |inner: &Value| if inner.is_object() { format!(" of {}", kind(inner)) } else { String::new() };
    let one = |name: &str| match (name, text(schema, "format")) {
        ("array", _) => format!("array{}", of(&schema["items"])),
        ("object", _) => format!("object{}", of(&schema["additionalProperties"])),
        ("string", "date-time") => "time".to_owned(),
        (name, _) => name.to_owned(),
    };
    match &schema["type"] {
        Value::String(name) => one(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(one).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

fn fields(page: &mut String, schema: &Value) {
    *page += "\n| field | type | |\n|---|---|---|\n";
    let required: Vec<_> = items(&schema["required"]).filter_map(Value::as_str).collect();
    for (name, field) in entries(&schema["properties"]) {
        let always = if required.contains(&name.as_str()) { "always there. " } else { "" };
        let says = format!("{always}{}", text(field, "description"));
        writeln!(page, "| `{name}` | {} | {} |", kind(field), says.trim()).unwrap();
    }
}

fn operation(page: &mut String, document: &Value, path: &str, method: &str, item: &Value) {
    let operation = &item[method];
    write!(page, "\n### {} {path}\n\n{}.", method.to_uppercase(), text(operation, "summary")).unwrap();
    let description = text(operation, "description");
    writeln!(page, "{}{description}", if description.is_empty() { "" } else { " " }).unwrap();
    let resolved = |value: &Value| {
        let path = value["$ref"].as_str().map(|path| path.trim_start_matches('#'));
        path.and_then(|path| document.pointer(path)).unwrap_or(value).clone()
    };
    let parameters: Vec<_> = items(&item["parameters"]).chain(items(&operation["parameters"])).map(resolved).collect();
    if !parameters.is_empty() {
        *page += "\n| parameter | in | type | |\n|---|---|---|---|\n";
        for parameter in parameters {
            let (name, place) = (text(&parameter, "name"), text(&parameter, "in"));
            let says = text(&parameter, "description");
            writeln!(page, "| `{name}` | {place} | {} | {says} |", kind(&parameter["schema"])).unwrap();
        }
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if body.is_object() {
        writeln!(page, "\nBody: {}.", kind(body)).unwrap();
    }
    *page += "\n| status | answer | |\n|---|---|---|\n";
    let mut rows: Vec<(&Value, Vec<&str>)> = Vec::new();
    for (status, response) in entries(&operation["responses"]) {
        match rows.iter_mut().find(|(other, _)| *other == response) {
            Some((_, statuses)) => statuses.push(status),
            None => rows.push((response, vec![status])),
        }
    }
    for (response, statuses) in rows {
        let (response, status) = (resolved(response), statuses.join(", "));
        let schema = &response["content"]["application/json"]["schema"];
        let kind = if schema.is_object() { kind(schema) } else { "text".to_owned() };
        writeln!(page, "| {status} | {kind} | {} |", text(&response, "description")).unwrap();
    }
}

#[test]
fn the_page_of_the_api_is_current() {
    let document = openapi("", "/metrics");
    let mut page = format!(
        "# The API\n\n<!-- Written by `UPDATE=1 cargo test --test docs`: do not edit. -->\n\n{} `/api/v1/openapi.json` serves \
         this page as an OpenAPI document. Times are RFC 3339, sizes bytes, durations seconds. [HTTP](../http.md) says who \
         may do what.\n\n## Requests\n",
        text(&document["info"], "description")
    );
    for (path, item) in entries(&document["paths"]) {
        for (method, _) in entries(item).filter(|(key, _)| *key != "parameters") {
            operation(&mut page, &document, path, method, item);
        }
    }
    page += "\n## Structures\n";
    for (name, schema) in entries(&document["components"]["schemas"]) {
        let description = text(schema, "description");
        let gap = if description.is_empty() { "" } else { "\n\n" };
        write!(page, "\n### {name}{gap}{description}\n").unwrap();
        if schema["properties"].is_object() {
            fields(&mut page, schema);
        } else {
            writeln!(page, "\n{}.", kind(schema)).unwrap();
        }
    }
    held("docs/reference/api.md", &page);
}

#[test]
fn the_page_of_limits_is_current() {
    let mut page = "\
# Limits of the HTTP side

<!-- Written by `UPDATE=1 cargo test --test docs`: do not edit. -->

They hold for HTTP/1 and HTTP/2. `--web.max-requests` and the `rate_limit` of `--web.config.file` are set by the operator.

| what | at most | beyond it |
|---|---|---|
"
    .to_owned();
    for limit in limits() {
        writeln!(page, "| {} | {} | {} |", limit.what, limit.most, limit.beyond).unwrap();
    }
    page.push_str(
        "
## The log

A client that may not send alerts or actions cannot fill the log. Lines about runs, members and decisions are never left out.

| what | at most | beyond it |
|---|---|---|
",
    );
    let minutes = log_limit::WINDOW.as_secs() / 60;
    for (what, most, beyond) in [
        ("of one kind for one client's address", log_limit::MAX_LINES_PER_PEER, "counted, and reported afterwards"),
        ("of one kind for all clients", log_limit::MAX_LINES_PER_KIND, "counted, and reported afterwards"),
    ] {
        writeln!(page, "| Lines {what}, within {minutes} min | {most} | {beyond} |").unwrap();
    }
    for (what, most) in
        [("that a client can cause", log_limit::MAX_FIELD_CHARS), ("of any other kind", log_limit::MAX_OWN_FIELD_CHARS)]
    {
        writeln!(page, "| Characters of a field in a line {what} | {most} | cut |").unwrap();
    }
    held("docs/reference/limits.md", &page);
}
