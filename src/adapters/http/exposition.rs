//! The format of the metrics: OpenMetrics for whoever asks for it, the old text format for everybody else.

/// OpenMetrics, as the registry writes it.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What every scraper since 2014 understands.
pub(super) const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether an `Accept` header asks for OpenMetrics at all. Prometheus puts it first when it can read it.
pub(super) fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_open_metrics =
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
        let refused =
            parts.any(|parameter| matches!(parameter.strip_prefix("q="), Some("0" | "0.0" | "0.00" | "0.000")));
        is_open_metrics && !refused
    })
}

/// Rewrites OpenMetrics to the text format 0.0.4: the families of counters are named with `_total`, units
/// and the end mark are left out, `unknown` is `untyped`. Samples are the same in both.
pub(super) fn to_plain_text(open_metrics: &str) -> String {
    let types: std::collections::HashMap<&str, &str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut plain = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            plain.push_str(line);
            plain.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(keyword @ ("HELP" | "TYPE")), Some(name), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let suffix = match types.get(name) {
            Some(&"counter") => "_total",
            Some(&"info") => "_info",
            _ => "",
        };
        let rest = match (keyword, rest) {
            ("TYPE", "unknown") => "untyped",
            ("TYPE", "info" | "stateset") => "gauge",
            (_, rest) => rest,
        };
        for part in ["# ", keyword, " ", name, suffix, " ", rest, "\n"] {
            plain.push_str(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_format_has_the_same_samples_under_its_own_names() {
        let open = "# HELP a_bytes Size.\n# TYPE a_bytes gauge\n# UNIT a_bytes bytes\na_bytes{x=\"# TYPE y\"} 1.0\n\
                    # HELP b Count.\n# TYPE b counter\nb_total 2\n# HELP c C.\n# TYPE c unknown\nc 3\n# EOF\n";
        let plain = "# HELP a_bytes Size.\n# TYPE a_bytes gauge\na_bytes{x=\"# TYPE y\"} 1.0\n\
                     # HELP b_total Count.\n# TYPE b_total counter\nb_total 2\n# HELP c C.\n# TYPE c untyped\nc 3\n";
        assert_eq!(to_plain_text(open), plain);
    }

    #[test]
    fn prometheus_gets_open_metrics_and_curl_does_not() {
        assert!(wants_open_metrics(
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(!wants_open_metrics("*/*"));
        assert!(!wants_open_metrics(""));
        assert!(!wants_open_metrics("application/openmetrics-text;q=0"));
        assert!(!wants_open_metrics("text/plain;version=0.0.4"));
    }
}
