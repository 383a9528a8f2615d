use std::time::Duration;

use strum::IntoEnumIterator;

use super::*;

#[test]
fn every_reason_is_in_the_section_of_its_kind_and_says_what_to_do() {
    let kinds: Vec<_> = Code::iter().map(Code::kind).collect();
    let mut runs = kinds.clone();
    runs.dedup();
    assert_eq!(runs, Kind::ALL, "the variants of one kind stand together, in this order");
    for code in Code::iter() {
        assert!(code.meaning().ends_with('.') && code.advice().ends_with('.'), "{code:?}");
        let acts = !code.advice().starts_with("Nothing");
        assert!(acts || code.severity() != Severity::Operator, "{code:?} needs an operator who does nothing");
    }
}

/// Metrics and JSON show the same code.
#[test]
fn the_code_is_the_same_in_metrics_and_json() {
    let reason = Reason::LockSettling { left: Duration::ZERO };
    let json = serde_json::to_value(&reason).expect("serializes");
    assert_eq!(json["code"], reason.label());
    for code in Code::iter() {
        assert_eq!(code.label().parse(), Ok(code));
        // Fields are missing, but the code is known to serde.
        let error = serde_json::from_value::<Reason>(serde_json::json!({ "code": code.label() })).err();
        assert!(error.is_none_or(|error| error.to_string().starts_with("missing field")), "{code:?}");
    }
}

#[test]
fn a_time_that_is_no_whole_number_of_hours_is_not_rounded() {
    for (minutes, text) in [(30, "30m"), (90, "1h 30m"), (1_440, "24h")] {
        let reason = Reason::ApprovalExpired { waited: Duration::from_mins(minutes) };
        assert_eq!(reason.to_string(), format!("no operator approved the run within {text} (approval_timeout)"));
    }
}

#[test]
fn an_advice_can_be_copied_into_a_shell() {
    let pause = Reason::Paused { by: "ann".to_owned(), reason: "upgrade".to_owned(), until: None };
    for (cluster, word) in [("prod-a", "prod-a"), ("a b's; rm", "'a b'\\''s; rm'")] {
        let advice = pause.to_do_for(cluster).expect("there is something to do");
        assert!(advice.starts_with(&format!("`defragd resume --cluster {word}`, or")), "{advice}");
    }
}
