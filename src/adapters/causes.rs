//! The text of an error with its causes: that of tonic, reqwest and kube often ends before the helpful one.

use std::error::Error;

/// Each text once: some errors repeat that of the error that they wrap.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}
