//! The JSON schemas of the configuration files, made of the very structures that read them: [`super::Settings`]
//! and [`super::web`]. Editors check and complete with them, and `docs/reference/configuration.md` is made of them.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::Value;

use super::{Settings, web};

/// Of the configuration file. Beside the standard keywords, keys have `x-default` (words in place of a default), `x-range`
/// (least and most, of durations and sizes) and `x-restart` (true, or in which case).
pub fn file() -> Value {
    of::<Settings>()
}

/// Of `--web.config.file`.
pub fn web_file() -> Value {
    of::<web::File>()
}

fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.with_transform(tidy).into_generator().into_root_schema_for::<T>().to_value()
}

/// Takes out what only comes from how the structures are made: `null` beside the type of what may be left out, and
/// defaults that are empty.
fn tidy(schema: &mut Schema) {
    schemars::transform::transform_subschemas(&mut tidy, schema);
    let is_null = |value: &Value| value.is_null() || value["type"] == "null";
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            schema.insert("type".to_owned(), kind);
        }
    }
    for list in ["anyOf", "enum"] {
        if let Some(Value::Array(items)) = schema.get_mut(list) {
            items.retain(|item| !is_null(item));
        }
    }
    if let Some([Value::Object(only)]) = schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        let only = only.clone();
        schema.remove("anyOf");
        for (key, value) in only {
            schema.ensure_object().entry(key).or_insert(value);
        }
    }
    let is_empty = |default: &Value| match default {
        Value::Null | Value::Object(_) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if schema.get("default").is_some_and(is_empty) {
        schema.remove("default");
    }
}
