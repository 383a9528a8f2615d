//! An OpenAPI document as a judge of answers.

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::{Defragd, Response};

/// What defragd says of its own API, read strictly: a field that it does not name is wrong.
#[derive(Debug)]
pub struct OpenApi {
    document: Value,
}

impl OpenApi {
    /// The document that this defragd serves.
    pub async fn of(defragd: &Defragd) -> Result<Self> {
        let mut document = defragd.json("/api/v1/openapi.json").await?;
        close(&mut document["components"]["schemas"]);
        Ok(Self { document })
    }

    /// Each path with its methods in lower case.
    pub fn operations(&self) -> Result<Vec<(String, Vec<String>)>> {
        let paths = self.document["paths"].as_object().context("no paths")?;
        let methods = |item: &Value| -> Vec<String> {
            let keys = item.as_object().into_iter().flat_map(serde_json::Map::keys);
            keys.filter(|key| *key != "parameters").cloned().collect()
        };
        Ok(paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect())
    }

    /// Fails unless the document allows this answer to a request for a path without its query.
    pub fn allows(&self, method: &str, path: &str, answer: &Response) -> Result<()> {
        let paths = self.document["paths"].as_object().context("no paths")?;
        let (template, item) = paths.iter().find(|(template, _)| fits(template, path)).context("no such path")?;
        let mut response = &item[method]["responses"][answer.status.to_string()];
        ensure!(response.is_object(), "{method} {template} may not answer {}: {}", answer.status, answer.body);
        if let Some(reference) = response["$ref"].as_str() {
            response = self.document.pointer(reference.trim_start_matches('#')).context("a broken reference")?;
        }
        let schema = &response["content"]["application/json"]["schema"];
        if schema.is_null() {
            return Ok(());
        }
        let mut resource = self.document.clone();
        resource["$ref"] = schema["$ref"].clone();
        if resource["$ref"].is_null() {
            resource = schema.clone();
        }
        let body: Value = serde_json::from_str(&answer.body).with_context(|| format!("not JSON: {}", answer.body))?;
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.enable_format_assertions();
        compiler.add_resource("api.json", resource).map_err(|error| anyhow!("{error}"))?;
        let compiled = compiler.compile("api.json", &mut schemas).map_err(|error| anyhow!("{error:#}"))?;
        schemas.validate(&body, compiled).map_err(|error| anyhow!("{method} {template}: {error}\n{body:#}"))
    }
}

/// Whether a path is one of `/clusters/{name}`.
fn fits(template: &str, path: &str) -> bool {
    let (wanted, given): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    wanted.len() == given.len()
        && wanted.iter().zip(given).all(|(wanted, given)| wanted.starts_with('{') || *wanted == given)
}

/// Structures have no fields but those that are named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".to_owned(), false.into());
            }
            object.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
