//! Copies of the shipped alert rules and Alertmanager configuration, with this run's addresses and shorter waits. If a
//! shipped file no longer has a value that is replaced here, that is an error.

use std::path::Path;

use anyhow::{Result, ensure};

/// How long a condition must last before its alert fires; minutes in the shipped rules.
const FOR: &str = "5s";

/// The rules with every `for:` shortened.
pub(crate) fn rules(shipped: &str) -> Result<String> {
    let mut shortened = 0;
    let mut copy = String::new();
    for line in shipped.lines() {
        let rest = line.trim_start();
        if rest.starts_with("for: ") {
            shortened += 1;
            copy.push_str(&line[..line.len() - rest.len()]);
            copy.push_str("for: ");
            copy.push_str(FOR);
        } else {
            copy.push_str(line);
        }
        copy.push('\n');
    }
    ensure!(shortened > 0, "the shipped alert rules have no `for:`");
    Ok(copy)
}

/// Alertmanager's configuration with defragd's address and token, and short waits.
pub(crate) fn alertmanager(shipped: &str, webhook: &str, token_file: &Path) -> Result<String> {
    let mut copy = shipped.to_owned();
    for (key, value) in [
        ("- url:", webhook),
        ("credentials_file:", &token_file.display().to_string()),
        ("group_wait:", "1s"),
        ("group_interval:", "5s"),
    ] {
        copy = with_values(&copy, key, value)?;
    }
    Ok(copy)
}

/// Replaces the value on every line that sets this key.
fn with_values(text: &str, key: &str, value: &str) -> Result<String> {
    let mut found = false;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let rest = line.trim_start();
            if !rest.starts_with(key) {
                return line.to_owned();
            }
            found = true;
            format!("{}{key} {value}", &line[..line.len() - rest.len()])
        })
        .collect();
    ensure!(found, "the shipped alertmanager.yml sets no `{key}`");
    Ok(lines.join("\n") + "\n")
}

/// A Prometheus that scrapes defragd, evaluates the rules and sends to Alertmanager.
pub(crate) fn prometheus(defragd: &str, alertmanager: &str, rules: &Path) -> String {
    format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}}
rule_files: ['{}']
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}
scrape_configs:
  - job_name: defragd
    static_configs: [{{targets: ['{defragd}']}}]
",
        rules.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(file: &str) -> String {
        std::fs::read_to_string(crate::args::repository().join("alerts").join(file)).unwrap()
    }

    #[test]
    fn the_shipped_alertmanager_configuration_takes_this_runs_address() {
        let copy =
            alertmanager(&shipped("alertmanager.yml"), "http://127.0.0.1:1/api/v1/alerts", Path::new("/t")).unwrap();
        assert!(copy.contains("- url: http://127.0.0.1:1/api/v1/alerts\n"), "{copy}");
        assert!(copy.contains("credentials_file: /t\n"), "{copy}");
        assert!(!copy.contains("9379") && !copy.contains("group_wait: 30s"), "{copy}");
    }

    #[test]
    fn the_shipped_rules_keep_their_expressions_and_lose_their_patience() {
        let shipped = shipped("defragd.rules.yml");
        let copy = rules(&shipped).unwrap();
        assert!(copy.contains("alert: EtcdFragmentationHigh") && copy.contains("for: 5s"));
        assert!(!copy.contains("for: 10m"));
        assert_eq!(copy.lines().count(), shipped.lines().count());
    }

    #[test]
    fn a_configuration_without_the_webhook_is_refused() {
        assert!(alertmanager("route: {}\n", "u", Path::new("/t")).unwrap_err().to_string().contains("- url:"));
    }
}
