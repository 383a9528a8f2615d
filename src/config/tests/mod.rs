mod gates;
mod metrics;
mod notify;
mod policy;

use std::path::Path;

use serde_json::{Value, json};

use super::{Overrides, Settings, Source};

fn read(text: &str) -> Result<Settings, String> {
    Settings::from_text(text).map_err(|error| error.to_string())
}

/// Calls `with` with a copy of the value for each value within it, which is replaced by `wrong`; and with its path.
fn each_replaced(value: &Value, wrong: &Value, with: &mut impl FnMut(&str, Value)) {
    fn visit(whole: &Value, at: &str, here: &Value, wrong: &Value, with: &mut impl FnMut(&str, Value)) {
        let mut inner = |name: String, inner| visit(whole, &format!("{at}/{name}"), inner, wrong, with);
        match here {
            Value::Object(map) => {
                for (name, value) in map {
                    inner(name.replace('~', "~0").replace('/', "~1"), value);
                }
            }
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    inner(index.to_string(), value);
                }
            }
            _ => {}
        }
        if !at.is_empty() {
            let mut changed = whole.clone();
            *changed.pointer_mut(at).expect("it is there") = wrong.clone();
            with(at, changed);
        }
    }
    visit(value, "", value, wrong, with);
}

#[test]
fn a_wrong_value_of_any_key_hides_no_other_problem() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/config.yaml");
    let whole = Settings::from_file(&file).expect("valid").redacted;
    let mut tried = 0;
    let mut hiding = Vec::new();
    for wrong in [json!("\u{a7}"), json!(-1), json!([]), json!(["\u{a7}", {}]), json!({}), json!({ "\u{a7}": 1 })] {
        each_replaced(&whole, &wrong, &mut |at, mut changed| {
            tried += 1;
            // One is found while the file is read, the other one afterwards.
            changed["zzz"] = 1.into();
            changed["shards"] = json!({ "ordinal": 3, "total": 2 });
            let error = Settings::from_source(&mut Source::from_flags(&changed), &Overrides::default());
            let error = error.expect_err("two problems at least").to_string();
            if !error.contains("zzz: is unknown") || !at.starts_with("/shards") && !error.contains("shards.") {
                hiding.push(format!("{at} = {wrong}: {error}"));
            }
        });
    }
    assert!(tried > 500, "{tried}");
    assert!(hiding.is_empty(), "{} of {tried}:\n{}", hiding.len(), hiding.join("\n\n"));
}
