//! The forms for what an operator may do. Each is folded away, so that nothing is pressed by mistake, and shows which
//! name will be in the journal.

use maud::{Markup, html};

use super::{
    condition::Badge,
    layout::Links,
    session::{FormToken, Visitor, VisitorAccess},
    words,
};
use crate::{core::history::RunId, ports::overview::ClusterView};

/// The values of a form that is shown again because of a problem.
pub(super) struct Typed {
    /// The action's name, as in its path; empty if no form was sent.
    pub(super) action: &'static str,
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) lasts: String,
    pub(super) problem: Option<String>,
}

impl Default for Typed {
    fn default() -> Self {
        // A forgotten pause should end by itself.
        let lasts = "4h".to_owned();
        Self { action: "", by: String::new(), reason: String::new(), lasts, problem: None }
    }
}

/// The confirmation of an action. Only fixed texts: a link must not be able to put text on the page.
pub(super) fn done_notice(done: &str) -> Markup {
    let words = match done {
        "pause" => "The cluster is paused.",
        "resume" => "The cluster is resumed.",
        "run" => "A run is requested.",
        "cancel" => {
            "The request is cancelled. A member that is being defragmented is finished; no further one is started."
        }
        "approve" => "The run is approved.",
        "reject" => "The run is rejected.",
        _ => return html! {},
    };
    html! { p.done role="status" { (words) } }
}

/// What visitors who may not act see instead.
pub(super) fn sign_in(access: VisitorAccess, links: &Links) -> Markup {
    html! {
        @match access {
            VisitorAccess::Closed => p { "This defragd only exports metrics: there are no actions." },
            VisitorAccess::Stranger => p { a href=(links.to("/login")) { "Sign in" } " with the admin token to approve, run, pause and resume." },
            _ => p { "Actions require a password or a client certificate." },
        }
    }
}

/// Draws the forms of one page.
pub(super) struct Forms<'a> {
    pub(super) form: &'a FormToken,
    pub(super) visitor: &'a Visitor,
    pub(super) typed: &'a Typed,
    pub(super) links: &'a Links<'a>,
}

impl Forms<'_> {
    pub(super) fn of_cluster(&self, view: &ClusterView) -> Markup {
        let summary = &view.summary;
        let path = |action: &str| format!("{}/{action}", Links("").cluster(&summary.name));
        let is_open = summary.active_run.is_some() || summary.queued_run.is_some();
        let is_held = summary.paused.is_some() || summary.breaker.is_some() || summary.hash_mismatch.is_some();
        if !summary.journal_read {
            let reading = words::capital(Badge::JOURNAL_UNREAD.words);
            return html! { (self.problem()) p { (reading) "." } };
        }
        html! {
            (self.problem())
            div.actions {
                @if is_held {
                    (self.one("resume", "Resume", &path("resume"), "Ends a pause, closes the breaker, and allows automatic runs again after a failure that needs an operator.", &html! { (self.reason("resume", "Reason (optional)", false)) }))
                }
                @if !is_open {
                    (self.one("run", "Run now", &path("run"), "Defragments the members that need it, one after another, with all checks. Cooldown, daily limit and approval do not hold it; a pause, a closed window, gates and an unhealthy cluster do.", &html! {}))
                }
                @if is_open {
                    (self.one("cancel", "Cancel", &path("cancel"), "Ends the request. A member that is being defragmented is finished; no further one is started.", &html! { (self.reason("cancel", "Reason (optional)", false)) }))
                }
                @if summary.paused.is_none() {
                    (self.one("pause", "Pause", &path("pause"), "No run starts, and a run in progress starts no further member. A member that is being defragmented is finished.", &html! { (self.reason("pause", "Reason", true)) (self.lasts()) }))
                }
            }
        }
    }

    /// For a run that is waiting for approval.
    pub(super) fn of_run(&self, run: RunId) -> Markup {
        let path = |action: &str| format!("{}/{action}", Links("").run(run));
        html! {
            (self.problem())
            div.actions.decide {
                form #approve .order method="post" action=(self.links.to(&path("approve"))) {
                    (self.hidden()) (self.by("approve"))
                    button.primary type="submit" { "Approve run " (run) }
                }
                (self.one("reject", "Reject", &path("reject"), "Ends the request. Its alerts request no other run until they fire anew or the cooldown has passed.", &html! { (self.reason("reject", "Reason", true)) }))
            }
        }
    }

    /// Why the form that was sent had no effect.
    fn problem(&self) -> Markup {
        html! { @if let Some(problem) = &self.typed.problem { p.problem #problem role="alert" { (problem) } } }
    }

    /// One folded form, open if it is shown again.
    fn one(&self, action: &'static str, words: &str, path: &str, what: &str, fields: &Markup) -> Markup {
        html! {
            details id=(action) name="action" open[self.typed.action == action] {
                summary.button { (words) "…" }
                form.order method="post" action=(self.links.to(path)) {
                    p { (what) } (self.hidden()) (fields) (self.by(action))
                    button.primary type="submit" { (words) }
                }
            }
        }
    }

    fn hidden(&self) -> Markup {
        html! { input type="hidden" name="form" value=(self.form.token); }
    }

    /// The name is asked once per session; afterwards it can be changed.
    fn by(&self, action: &str) -> Markup {
        let id = format!("{action}-by");
        let is_sent = self.typed.action == action;
        let name = self.visitor.name.as_deref();
        let value = if is_sent { self.typed.by.as_str() } else { name.unwrap_or_default() };
        let field = html! {
            label for=(id) { "Your name, for the journal" }
            input id=(id) name="by" required maxlength="100" autocomplete="name" value=(value);
        };
        html! {
            @match name.filter(|_| !is_sent || !value.trim().is_empty()) {
                Some(name) => details.me { summary { "Recorded as " b.foreign { (name) } } (field) },
                None => (field),
            }
        }
    }

    fn reason(&self, action: &str, words: &str, required: bool) -> Markup {
        let id = format!("{action}-reason");
        let value = if self.typed.action == action { self.typed.reason.as_str() } else { "" };
        html! {
            label for=(id) { (words) }
            input id=(id) name="reason" required[required] maxlength="500" value=(value);
        }
    }

    fn lasts(&self) -> Markup {
        let times = [("1h", "1 hour"), ("4h", "4 hours"), ("24h", "1 day"), ("168h", "1 week"), ("", "until resumed")];
        html! {
            label for="pause-for" { "For" }
            select #pause-for name="for" {
                @for (value, words) in times { option value=(value) selected[value == self.typed.lasts] { (words) } }
            }
        }
    }
}
