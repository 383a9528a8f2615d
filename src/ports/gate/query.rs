//! Variables in PromQL queries.

/// Replaced by the cluster's name in a query.
pub(super) const CLUSTER_VARIABLE: &str = "$etcd_cluster";

pub(super) fn filled(query: &str, cluster: &str) -> String {
    query.replace(CLUSTER_VARIABLE, &escaped(cluster))
}

/// The name in a form that is valid within any of PromQL's quotes, without ending them.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        match c {
            '\\' => text.push_str(r"\\"),
            '"' => text.push_str(r"\x22"),
            '\'' => text.push_str(r"\x27"),
            '`' => text.push_str(r"\x60"),
            '\n' => text.push_str(r"\n"),
            c => text.push(c),
        }
    }
    text
}

/// The first `$word` or `${word}` in a query.
pub(super) fn variable(query: &str) -> Option<&str> {
    query.match_indices('$').find_map(|(start, _)| {
        let rest = &query[start + 1..];
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_{}:".contains(c))).unwrap_or(rest.len());
        (length > 0 && !rest.starts_with(|c: char| c.is_ascii_digit() || c == '}'))
            .then(|| &query[start..=start + length])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_name_cannot_end_the_quotes_around_it() {
        assert_eq!(escaped("prod-a"), "prod-a");
        assert_eq!(escaped("a\"} or vector(1) #'`\\\n"), r"a\x22} or vector(1) #\x27\x60\\\n");
        assert_eq!(variable(r#"x{a=~"b$"}"#), None);
        assert_eq!(variable(r#"label_replace(x, "a", "$1", "b", "(.*)")"#), None);
        assert_eq!(variable(r#"x{a="$name"}"#), Some("$name"));
    }
}
