//! The page's actions, and `/login`. The parent module's documentation says what each request must prove.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, State as Extract},
    http::{HeaderValue, Request, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
    routing::{MethodRouter, post},
};
use maud::html;
use tracing::{info, warn};

use super::{
    actions::Typed,
    cluster,
    layout::{Links, Page, decorate},
    refusal, run,
    session::{Visitor, VisitorAccess},
    words,
};
use crate::{
    adapters::http::{
        body::{discard, read},
        orders::{MAX_ORDER_BYTES, status},
        origin,
        site::Site,
    },
    core::{history::RunId, time::Time},
    ports::service::{Command, Service},
};

const MAX_REASON_CHARS: usize = 500;
/// Names are shorter.
const MAX_NAME_CHARS: usize = 100;

type Fields = BTreeMap<String, String>;

/// A form that has passed all checks.
pub(super) struct Order {
    visitor: Visitor,
    fields: Fields,
}

impl Order {
    fn typed(&self, action: &'static str, problem: impl Into<String>) -> Typed {
        let field = |name: &str| self.fields.get(name).cloned().unwrap_or_default();
        let problem = Some(problem.into());
        Typed { action, by: field("by"), reason: field("reason"), lasts: field("for"), problem }
    }

    fn text(&self, name: &str) -> String {
        self.fields.get(name).map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    fn by(&self) -> Result<String, String> {
        let by = self.text("by");
        match by.chars().count() {
            0 => Err("Enter your name: it is recorded in the journal.".to_owned()),
            1..=MAX_NAME_CHARS => Ok(by),
            _ => Err(format!("The name is limited to {MAX_NAME_CHARS} characters.")),
        }
    }

    fn reason(&self) -> Result<String, String> {
        let reason = self.text("reason");
        if reason.chars().count() > MAX_REASON_CHARS {
            return Err(format!("The reason is limited to {MAX_REASON_CHARS} characters."));
        }
        Ok(reason)
    }

    pub(super) fn pause(&self) -> Result<(String, Command), String> {
        let (by, reason) = (self.by()?, self.reason()?);
        if reason.is_empty() {
            return Err("Enter a reason for the pause.".to_owned());
        }
        let lasts = self.text("for");
        let parsed = lasts.parse::<Time>().map(Duration::from).ok();
        match parsed.filter(|time| !time.is_zero()) {
            None if !lasts.is_empty() => Err("The duration must be above 0, such as 2h.".to_owned()),
            lasts => Ok((by, Command::Pause { reason, lasts })),
        }
    }

    pub(super) fn resume(&self) -> Result<(String, Command), String> {
        Ok((self.by()?, Command::Resume { reason: self.reason()? }))
    }

    pub(super) fn run(&self) -> Result<(String, Command), String> {
        Ok((self.by()?, Command::Run { members: Vec::new() }))
    }

    pub(super) fn cancel(&self) -> Result<(String, Command), String> {
        Ok((self.by()?, Command::Cancel { reason: self.reason()? }))
    }
}

/// Reads a form that our own page sent, or refuses it.
async fn fields<S>(site: &Site<S>, parts: &Parts, body: Body) -> Result<Fields, Response> {
    let visitor = Visitor::of(site, parts);
    let no = |status, what: &str| {
        warn!(path = parts.uri.path(), why = what, "refused a form of the status page");
        refusal::answer(site, &visitor, status, "Nothing was done", what)
    };
    let external = site.options.external_url.as_ref();
    let refusal = if let Some(why) = origin::is_foreign(parts, external) {
        Some(no(StatusCode::FORBIDDEN, why))
    } else if visitor.access == VisitorAccess::Open && !origin::is_local(parts, external) {
        let what = "This page was requested under a foreign host name: set --web.external-url, or open it as localhost";
        Some(no(StatusCode::FORBIDDEN, what))
    } else {
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_form = kind.split(';').next().is_some_and(|kind| kind.trim() == "application/x-www-form-urlencoded");
        (!is_form)
            .then(|| no(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The request does not have the content type of a form"))
    };
    if let Some(refusal) = refusal {
        discard(body).await;
        return Err(refusal);
    }
    let body = read(body, MAX_ORDER_BYTES).await;
    let body = body.map_err(|error| no(error.status(), &words::capital(&error.to_string())))?;
    Ok(url::form_urlencoded::parse(&body).into_owned().collect())
}

/// The same, and the client is allowed to act.
async fn order<S>(site: &Site<S>, request: Request<Body>) -> Result<Order, Response> {
    let (parts, body) = request.into_parts();
    let fields = fields(site, &parts, body).await?;
    let visitor = Visitor::of(site, &parts);
    let no = |status, what| refusal::answer(site, &visitor, status, "Nothing was done", what);
    match visitor.access {
        VisitorAccess::Closed => {
            return Err(no(StatusCode::FORBIDDEN, "This defragd only exports metrics: there are no actions."));
        }
        VisitorAccess::Stranger => {
            return Err(no(
                StatusCode::UNAUTHORIZED,
                "You are not signed in, or your session has expired: sign in and try again.",
            ));
        }
        VisitorAccess::Unknown => {
            return Err(no(StatusCode::UNAUTHORIZED, "Actions require a password or a client certificate."));
        }
        VisitorAccess::LoggedIn | VisitorAccess::Known | VisitorAccess::Open => {}
    }
    if !visitor.sent(site, fields.get("form").map_or("", String::as_str)) {
        warn!(path = parts.uri.path(), "refused a form without a valid form token");
        let what = "The form has expired, or was not sent by this page: go back, reload the page and try again.";
        return Err(no(StatusCode::FORBIDDEN, what));
    }
    Ok(Order { visitor, fields })
}

/// Makes a command of the form, with the name of the operator, or says what is wrong with the form.
type BuildCommand = fn(&Order) -> Result<(String, Command), String>;

/// A route for a command on a cluster.
pub(super) fn command<S: Service>(action: &'static str, build: BuildCommand) -> MethodRouter<Arc<Site<S>>> {
    post(async move |Extract(site): Extract<Arc<Site<S>>>, Path(name): Path<String>, request: Request<Body>| {
        carry_out(&site, &name, request, action, build).await
    })
}

async fn carry_out<S: Service>(
    site: &Site<S>,
    name: &str,
    request: Request<Body>,
    action: &'static str,
    build: BuildCommand,
) -> Result<Response, Response> {
    let order = order(site, request).await?;
    let (by, command) = match build(&order) {
        Ok(command) => command,
        Err(problem) => {
            let typed = order.typed(action, problem);
            return Ok(cluster::show(site, &order.visitor, name, StatusCode::BAD_REQUEST, &typed, "").await);
        }
    };
    order.visitor.remember(site, &by);
    Ok(match site.service.command(name, by, command, false).await {
        Ok(_) => see(site, &format!("{}?done={action}", Links("").cluster(name)), None),
        Err(failure) => {
            let typed = order.typed(action, failure.to_string());
            cluster::show(site, &order.visitor, name, status(&failure), &typed, "").await
        }
    })
}

/// A route for the approval or the rejection of a run.
pub(super) fn decision<S: Service>(action: &'static str) -> MethodRouter<Arc<Site<S>>> {
    post(async move |Extract(site): Extract<Arc<Site<S>>>, Path(id): Path<i64>, request: Request<Body>| {
        decide(&site, RunId(id), request, action).await
    })
}

async fn decide<S: Service>(
    site: &Site<S>,
    id: RunId,
    request: Request<Body>,
    action: &'static str,
) -> Result<Response, Response> {
    let order = order(site, request).await?;
    let is_approval = action == "approve";
    let wanted = order.by().and_then(|by| match order.reason()? {
        reason if reason.is_empty() && !is_approval => Err("Enter a reason for the rejection.".to_owned()),
        reason => Ok((by, reason)),
    });
    let (by, reason) = match wanted {
        Ok(wanted) => wanted,
        Err(problem) => {
            let typed = order.typed(action, problem);
            return Ok(run::show(site, &order.visitor, id, StatusCode::BAD_REQUEST, &typed, "").await);
        }
    };
    order.visitor.remember(site, &by);
    let decided = if is_approval {
        site.service.approve(id, by, false).await
    } else {
        site.service.reject(id, by, reason, false).await
    };
    Ok(match decided {
        Ok(_) => see(site, &format!("{}?done={action}", Links("").run(id)), None),
        Err(failure) => {
            let title = if is_approval { "The run was not approved" } else { "The run was not rejected" };
            refusal::answer(site, &order.visitor, status(&failure), title, &failure.to_string())
        }
    })
}

/// Redirects, so that reloading the page does not repeat the action.
fn see<S>(site: &Site<S>, path: &str, cookie: Option<HeaderValue>) -> Response {
    let mut response = Redirect::to(&site.link(path)).into_response();
    decorate(&mut response);
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

pub(super) async fn login_page<S: Service>(Extract(site): Extract<Arc<Site<S>>>, parts: Parts) -> Response {
    ask_for_token(&site, &Visitor::of(&site, &parts), StatusCode::OK, None)
}

fn ask_for_token<S>(site: &Site<S>, visitor: &Visitor, status: StatusCode, problem: Option<&str>) -> Response {
    if visitor.access != VisitorAccess::Stranger {
        return see(site, "/", None);
    }
    let links = Links(&site.options.link_prefix);
    let main = html! {
        h1 { "Sign in" }
        p { "Viewing needs no token. To approve, run, pause and resume, enter the admin token: that of "
        code { "--web.admin-token-file" } ", or if that is not set, that of " code { "--web.bearer-token-file" } "." }
        @if let Some(problem) = problem { p.problem #problem role="alert" { (problem) } }
        form.order method="post" action=(links.to("/login")) {
            label for="token" { "Token" }
            input #token type="password" name="token" required autocomplete="off" aria-describedby=[problem.map(|_| "problem")];
            label for="name" { "Your name, for the journal (asked later if empty)" }
            input #name name="by" maxlength=(MAX_NAME_CHARS) autocomplete="name";
            button type="submit" { "Sign in" }
        }
        @if !site.is_https() { p.dim { "This page is not encrypted: use it only on this machine, or through a TLS proxy." } }
    };
    Page::still("Sign in", status, main).answer(site, visitor)
}

pub(super) async fn login<S: Service>(Extract(site): Extract<Arc<Site<S>>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let fields = match fields(&site, &parts, body).await {
        Ok(fields) => fields,
        Err(refusal) => return refusal,
    };
    let visitor = Visitor::of(&site, &parts);
    if visitor.access != VisitorAccess::Stranger {
        return see(&site, "/", None);
    }
    // Before the token is compared: a client that tries too often must not learn whether it was right.
    if !site.sessions.may_try() {
        let what = "Too many wrong tokens: wait a few seconds and try again.";
        return ask_for_token(&site, &visitor, StatusCode::TOO_MANY_REQUESTS, Some(what));
    }
    if !site.access.is_order_token(fields.get("token").map_or("", |token| token.trim())) {
        warn!("sign-in to the status page failed: wrong token");
        return ask_for_token(&site, &visitor, StatusCode::UNAUTHORIZED, Some("This is not the admin token."));
    }
    info!("signed in to the status page");
    let name = fields.get("by").map(|name| name.trim().chars().take(MAX_NAME_CHARS).collect()).unwrap_or_default();
    see(&site, "/", Visitor::log_in(&site, name))
}

pub(super) async fn logout<S: Service>(Extract(site): Extract<Arc<Site<S>>>, request: Request<Body>) -> Response {
    match order(&site, request).await {
        Ok(order) => see(&site, "/", order.visitor.log_out(&site)),
        Err(refusal) => refusal,
    }
}
