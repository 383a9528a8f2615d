//! What each reason means for an operator: how severe it is, what to do, and where it is shown.

use serde::{Serialize, Serializer};
use strum::EnumMessage;

use super::reason::{Code, Reason};

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nobody: this is how it should be.
    Nothing,
    /// Nobody now: defragd tries again. An operator acts only if it lasts.
    Passes,
    /// An operator: defragd cannot fix it.
    Operator,
}

impl Severity {
    pub const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing to do",
            Self::Passes => "passes by itself",
            Self::Operator => "needs an operator",
        }
    }
}

/// What a reason keeps from being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    LeftOut,
    Unsafe,
    Failed,
    NotAccepted,
    HeldBack,
    Ended,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::LeftOut, Self::Unsafe, Self::Failed, Self::NotAccepted, Self::HeldBack, Self::Ended];

    pub const fn title(self) -> &'static str {
        match self {
            Self::LeftOut => "A member is left out",
            Self::Unsafe => "It is not safe",
            Self::Failed => "A run failed",
            Self::NotAccepted => "A request is not accepted",
            Self::HeldBack => "A request waits",
            Self::Ended => "A run or a request ended",
        }
    }

    /// Where it is shown, as Markdown.
    pub const fn appears(self) -> &'static str {
        match self {
            Self::LeftOut => {
                "beside the member in `defragd plan` and in the run's log; `defragd_decisions_total{decision=\"skip\"}`"
            }
            Self::Unsafe => {
                "`defragd plan`; what a run waits for (status page, `defragd_cluster_waiting`); the outcome of a run that was refused or stopped for it (`defragd runs`, status page, log, notification)"
            }
            Self::NotAccepted => {
                "the answer to the alert or the command; `defragd_webhook_alerts_total`; for requests that stand, the status page and `defragd_cluster_waiting`"
            }
            Self::HeldBack => {
                "the status page, `request.hold` in `GET /api/v1/clusters`, `defragd_cluster_waiting`, the log"
            }
            Self::Failed | Self::Ended => {
                "the outcome of a run (`defragd run`, `defragd runs`, status page, log, notification); `defragd_decisions_total{decision=\"stop\"}`"
            }
        }
    }
}

impl Reason {
    pub fn code(&self) -> Code {
        self.into()
    }

    /// The code as text, for metrics: as `code` in JSON.
    pub fn label(&self) -> &'static str {
        self.code().into()
    }

    /// Whether it stops not only a run but the process that drives it.
    pub const fn ends_the_process(&self) -> bool {
        matches!(self, Self::ShuttingDown | Self::OperatorStop)
    }

    /// What an operator does about it: sentences, with commands in backticks.
    pub fn advice(&self) -> &'static str {
        self.code().advice()
    }

    pub fn severity(&self) -> Severity {
        self.code().severity()
    }

    /// The advice, if there is anything to do: for people, below the reason.
    pub fn to_do(&self) -> Option<&'static str> {
        (self.severity() != Severity::Nothing).then(|| self.advice())
    }

    /// The same, with the cluster's name in its commands.
    pub fn to_do_for(&self, cluster: &str) -> Option<String> {
        self.to_do().map(|advice| for_cluster(advice, cluster))
    }

    /// The text and what to do, in one line.
    pub fn with_advice(&self) -> String {
        self.to_do().map_or_else(|| self.to_string(), |advice| format!("{self}. What to do: {advice}"))
    }
}

impl Code {
    pub fn label(self) -> &'static str {
        self.into()
    }

    pub fn meaning(self) -> String {
        // Of a doc comment with several lines, each ends with a line break.
        self.get_documentation().unwrap_or_default().trim_end().replace('\n', " ")
    }

    pub fn kind(self) -> Kind {
        self.explained().0
    }

    pub fn severity(self) -> Severity {
        self.explained().1
    }

    pub fn advice(self) -> &'static str {
        self.explained().2
    }

    /// Its section: meaning, advice, severity, where it is shown; as Markdown that reads well in a terminal.
    pub fn section(self) -> String {
        format!(
            "{}\n\nWhat to do: {}\n\nSeverity: {}.\n\nShown: {}.\n",
            self.meaning(),
            self.advice(),
            self.severity().words(),
            self.kind().appears()
        )
    }
}

/// A reason in JSON, with `message` (the text) and `advice` beside its fields.
#[derive(Serialize)]
pub struct Explained<'a> {
    message: String,
    advice: &'static str,
    #[serde(flatten)]
    reason: &'a Reason,
}

impl<'a> From<&'a Reason> for Explained<'a> {
    fn from(reason: &'a Reason) -> Self {
        Self { message: reason.to_string(), advice: reason.advice(), reason }
    }
}

/// The advice with the cluster's name in its commands, as a shell takes it.
pub fn for_cluster(advice: &str, cluster: &str) -> String {
    let is_plain = cluster.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:@".contains(c));
    let word = if is_plain { cluster.to_owned() } else { format!("'{}'", cluster.replace('\'', "'\\''")) };
    advice.replace("--cluster NAME", &format!("--cluster {word}"))
}

/// For `serialize_with`.
pub fn serialize<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    Explained::from(reason).serialize(serializer)
}

/// The same for a reason that may be absent.
pub fn serialize_option<S: Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.as_ref().map(Explained::from).serialize(serializer)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
