//! etcdctl's environment variables and flags that defragd does not use: what to do instead.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Used unless there is a configuration file.
const USED: [&str; 8] = [
    "ETCDCTL_ENDPOINTS",
    "ETCDCTL_DISCOVERY_SRV",
    "ETCDCTL_DISCOVERY_SRV_NAME",
    "ETCDCTL_INSECURE_DISCOVERY",
    "ETCDCTL_CACERT",
    "ETCDCTL_CERT",
    "ETCDCTL_KEY",
    "ETCDCTL_USER",
];
/// Our own: etcdctl has no such flag.
const OURS: &str = "ETCDCTL_PASSWORD_FILE";
/// What they ask for is so anyway, or concerns only etcdctl's own output and connections.
const WITHOUT_EFFECT: [&str; 7] = [
    "ETCDCTL_API",
    "ETCDCTL_DEBUG",
    "ETCDCTL_HEX",
    "ETCDCTL_INSECURE_TRANSPORT",
    "ETCDCTL_KEEPALIVE_TIME",
    "ETCDCTL_KEEPALIVE_TIMEOUT",
    "ETCDCTL_MAX_RECV_BYTES",
];

/// One line for each variable that is set and not used. Values are not shown: some are secret.
pub(super) fn ignored(variables: impl Iterator<Item = (OsString, OsString)>, with_file: bool) -> Vec<String> {
    let (mut unused, mut lines) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("ETCDCTL_")).map(str::to_owned) else { continue };
        if value.is_empty() || WITHOUT_EFFECT.contains(&name.as_str()) {
            continue;
        }
        if USED.contains(&name.as_str()) || name == OURS {
            if with_file {
                unused.push(name);
            }
            continue;
        }
        // A table is the default.
        if name == "ETCDCTL_WRITE_OUT" && value == "table" {
            continue;
        }
        let instead = match name.as_str() {
            "ETCDCTL_PASSWORD" if with_file => "the configuration file says how to connect",
            "ETCDCTL_WRITE_OUT" => "pass -w json, -w wide or -w table",
            name => instead(name).unwrap_or("defragd does not know it"),
        };
        lines.push(format!("{name} is ignored: {instead}"));
    }
    if !unused.is_empty() {
        unused.sort_unstable();
        lines.push(format!("{} ignored: the configuration file says how to connect", is_or_are(&unused)));
    }
    lines.sort_unstable();
    lines
}

/// What to do instead of setting this variable or passing its flag, if etcdctl has it.
fn instead(variable: &str) -> Option<&'static str> {
    Some(match variable {
        "ETCDCTL_PASSWORD" => "write the password to a file, and set ETCDCTL_PASSWORD_FILE or pass --password-file",
        "ETCDCTL_INSECURE_SKIP_TLS_VERIFY" => "pass --insecure-skip-tls-verify to `defragd status` or `defragd plan`",
        "ETCDCTL_DIAL_TIMEOUT" | "ETCDCTL_COMMAND_TIMEOUT" => "defragd has its own time limits",
        _ => return None,
    })
}

/// The same error, with what to write instead if it is about a flag of etcdctl that defragd does not have.
pub(super) fn explained(mut error: clap::Error) -> clap::Error {
    let flag = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => flag.trim_start_matches('-'),
        _ => return error,
    };
    let variable = format!("ETCDCTL_{}", flag.replace('-', "_").to_uppercase());
    let has_no_effect = WITHOUT_EFFECT.contains(&variable.as_str());
    let Some(instead) = instead(&variable).or_else(|| has_no_effect.then_some("leave it out")) else { return error };
    let tip = format!("defragd does not have this flag of etcdctl: {instead}");
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

fn is_or_are(names: &[String]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(variables: &[(&str, &str)], with_file: bool) -> Vec<String> {
        ignored(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())), with_file)
    }

    #[test]
    fn a_variable_without_effect_is_named_with_what_to_do_instead_and_without_its_value() {
        let set = [
            ("ETCDCTL_API", "3"),
            ("ETCDCTL_ENDPOINTS", "a:1"),
            ("ETCDCTL_USER", "root:s3cret"),
            ("ETCDCTL_PASSWORD", "s3cret"),
            ("ETCDCTL_WRITE_OUT", "fields"),
            ("ETCDCTL_NEW", "s3cret"),
            ("PATH", "/bin"),
        ];
        let found = lines(&set, false);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "ETCDCTL_NEW is ignored: defragd does not know it");
        assert!(found[1].starts_with("ETCDCTL_PASSWORD is ignored: ") && found[1].contains("--password-file"));
        assert!(found[2].contains("-w json"), "{found:?}");
        assert!(!found.concat().contains("s3cret"), "{found:?}");

        let found = lines(&set, true);
        assert!(found.contains(
            &"ETCDCTL_ENDPOINTS, ETCDCTL_USER are ignored: the configuration file says how to connect".to_owned()
        ));
        assert_eq!(lines(&[("ETCDCTL_WRITE_OUT", "table"), ("ETCDCTL_CERT", "")], true), [""; 0]);
    }
}
