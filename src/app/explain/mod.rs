//! `doorward explain URL`: which router takes a request and why the others do not, asked of the same table that the
//! proxy would serve.

mod doors;
mod options;
mod others;
mod request;
mod service;
mod subject;
mod text;
mod told;
mod walk;

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use self::doors::{left_out, positions};
pub(super) use self::options::Ask;
use self::options::{Options, Source};
use self::others::Asked;
pub(super) use self::request::{Canonical, Refused};
pub(super) use self::subject::{Live, Subject};
use self::told::{EntryPointTold, Outcome, RequestTold, RouterTold, ServiceEnd, Told};
use self::walk::{Answer, Passage, Walker, with_view};
pub(super) use self::walk::{End, is_guard, pass};
use super::written::Written;
use crate::compile::OnBrokenRouter;
use crate::config::diagnostics::Severity;
use crate::exchange::{Request, Scheme};
use crate::router::HttpRouter;
use crate::rule::without_secrets;
use crate::values::QualifiedName;

/// What `doorward explain --help` prints.
pub const USAGE: &str = "\
usage: doorward explain URL [-H 'Name: value']... [--method M] [--client-ip IP] [--entry-point NAME]
                        [--format text|json] [--all] [FILE... | --configFile=FILE | --api URL]

Says which router takes a request, and why the others do not: what of their rules it fails, which
entry point they are at, who has the higher priority. Then the middlewares in order, the service and
its servers, the TLS options, and what the path has become. Nothing is started and nothing is sent
to any server; the answer comes from the code that the proxy routes with.

  FILE...           static and dynamic files and directories, as `doorward check` takes them; without
                    any, the configuration that `doorward` would start with
  --api URL         ask a running Doorward or Traefik (its API) for its routers, and which servers
                    are up; --api-header 'Authorization: ...' goes with the question, and
                    --profile safe|exact|hardened says what the API does not; safe unless said
  -H, --header H    a header of the request; `Host` wins over the URL, as it does with curl
  --method M        its method; GET unless said
  --client-ip IP    its client; 127.0.0.1 unless said, and ipAllowList is judged only when it is
  --entry-point N   where it arrives; else the entry points that listen at the port of the URL
  --all             list every router, not only those that are near

Middlewares that look at more than the head of a request (authentication, limits) are taken to let
it through, and a client is taken to show the certificate that TLS options demand: the answer says so.

Exit code: 0 a router answers; 1 none does, or it is broken, or the request is refused; 2 the command
or the configuration cannot be read.
";

/// Runs the command. `variables` are those of the environment; what is wrong with the question goes to `err`.
pub fn command(
    args: &[String],
    variables: &[(String, String)],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let (told, json) = match answer(args, variables, err) {
        Ok(answer) => answer,
        Err(error) => {
            writeln!(err, "doorward: explain: {error:#}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let written = if json {
        writeln!(out, "{:#}", serde_json::to_value(&told)?)
    } else {
        text::write(&told, out, io::stdout().is_terminal())
    };
    match written {
        // Who reads has seen enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let answered = told.entry_points.iter().any(|one| one.outcome.answered);
    Ok(if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answer(
    args: &[String],
    variables: &[(String, String)],
    err: &mut dyn Write,
) -> anyhow::Result<(Told, bool)> {
    let options = Options::read(args)?;
    let subject = match &options.source {
        Source::Files(files) => compiled(Written::read(files)?, err)?,
        Source::Server(flags) => compiled(Written::of_server(flags, variables)?, err)?,
        Source::Api { url, headers, profile } => super::live::subject(url, headers, *profile)?,
    };
    let told = explain(&options.ask, options.entry_point.as_deref(), options.all, &subject)?;
    Ok((told, options.json))
}

/// Compiles what was read; what is wrong with single objects is told where they matter.
pub(super) fn compiled(written: Written, err: &mut dyn Write) -> anyhow::Result<Subject> {
    let whole = written.set.dynamic.diagnostics.iter().filter(|one| one.subject.is_none());
    for diagnostic in written.diagnostics.iter().chain(whole) {
        if diagnostic.severity == Severity::Error {
            writeln!(err, "{}", diagnostic.one_line())?;
        }
    }
    if written.is_unreadable() {
        bail!("the configuration cannot be read");
    }
    Subject::new(written.set, None)
}

/// Explains `ask` at the entry points where it can arrive.
fn explain(
    ask: &Ask,
    entry_point: Option<&str>,
    all: bool,
    subject: &Subject,
) -> anyhow::Result<Told> {
    let mut notes = Vec::new();
    let positions = positions(ask, entry_point, subject, &mut notes)?;
    if subject.table.fixed.host_resolver.as_ref().is_some_and(|one| one.cname_flattening) {
        notes.push("what the host is an alias of (`hostResolver`) is not looked up".to_owned());
    }
    if let Some(live) = &subject.live {
        notes.push(format!("as {} says it runs now", live.url));
        if live.assumed_profile.is_some() {
            notes.push(
                "its profile is not known and taken to be `safe`: say it with `--profile`"
                    .to_owned(),
            );
        }
        if ask.scheme == Scheme::Https {
            notes.push(
                "what its TLS options demand (client certificates, `sniStrict`) is not known"
                    .to_owned(),
            );
        }
        notes.extend(left_out(live));
    }
    let told = positions.into_iter().map(|position| at(ask, position, all, subject));
    Ok(Told {
        request: RequestTold {
            method: ask.method.to_string(),
            url: ask.url.clone(),
            client_ip: ask.client.to_string(),
            client_assumed: ask.is_client_assumed,
        },
        entry_points: told.collect::<Result<_, _>>()?,
        notes,
    })
}

/// Explains `ask` at one entry point.
fn at(ask: &Ask, position: usize, all: bool, subject: &Subject) -> anyhow::Result<EntryPointTold> {
    let door = subject.doors.get(position).context("no such entry point")?;
    let mut told = EntryPointTold {
        entry_point: door.facts.name.to_string(),
        address: subject.address(position).map(str::to_owned),
        tls: ask.scheme == Scheme::Https,
        trusts_forwarded_headers: false,
        host: None,
        path: None,
        became: None,
        tls_options: None,
        handshake: None,
        outcome: Outcome { status: None, answered: false, why: String::new() },
        routers: Vec::new(),
        service: None,
        others: Vec::new(),
        not_listed: Vec::new(),
    };
    let canonical = match Canonical::of(ask, subject, door)? {
        Ok(canonical) => canonical,
        Err(Refused { status, reason }) => {
            told.outcome.status = status.map(|status| status.as_u16());
            told.outcome.why = format!("refused before any router is asked: {reason}");
            return Ok(told);
        }
    };
    if let Some(refused) = &canonical.handshake.refused {
        told.outcome.why = format!("refused before any router is asked: {refused}");
        return Ok(told);
    }
    told.handshake.clone_from(&canonical.handshake.needs);
    let view = canonical.view();
    told.trusts_forwarded_headers = canonical.is_trusted;
    told.host = Some(view.host.to_owned());
    told.path = Some(view.path.to_owned());
    let target = canonical.parts.uri.to_string();
    told.became = Some(target).filter(|target| *target != ask.target);
    told.tls_options = canonical.tls().map(|(_, options)| options.to_owned());
    let table = &subject.table.compiled.table;
    let here = table.entry_points.get(position).context("no routes")?;
    let routers = if canonical.tls().is_some() { &here.https } else { &here.http };
    let winner = routers.find(&view);
    let asked = Asked { routers, winner, entry_point: Some(position) };
    (told.others, told.not_listed) = others::others(&asked, &view, subject, &canonical, all);
    let Some(winner) = winner else {
        told.outcome.status = Some(404);
        "no router matches".clone_into(&mut told.outcome.why);
        return Ok(told);
    };
    let host = canonical.cx.host.to_string();
    let misdirected = canonical
        .tls()
        .is_some_and(|tls| here.is_misdirected(winner, &host, tls, door.strict_tls_options));
    let encoded = winner.encoded_characters.as_ref();
    if encoded.is_some_and(|characters| characters.denied(canonical.parts.uri.path())) {
        told.outcome.status = Some(400);
        let why = "the path has an encoded character that the entry point does not let through \
                   (`http.encodedCharacters`)";
        why.clone_into(&mut told.outcome.why);
        told.routers.push(router_told(winner, Vec::new(), subject));
    } else if misdirected {
        told.outcome.status = Some(421);
        told.outcome.why = misdirection(winner, &canonical);
        told.routers.push(router_told(winner, Vec::new(), subject));
    } else {
        walk(winner, ask, &canonical, all, subject, &mut told);
    }
    if told.outcome.answered && canonical.handshake.demands_certificate {
        told.outcome.why.push_str(", if the client shows a certificate");
    }
    Ok(told)
}

fn misdirection(winner: &HttpRouter, canonical: &Canonical) -> String {
    let (name, options) = canonical.tls().unwrap_or_default();
    let wanted = winner.tls_options.as_deref().unwrap_or_default();
    format!(
        "the connection for `{name}` is made with TLS options {options}, and the router wants \
         {wanted} for host `{}`",
        canonical.cx.host
    )
}

/// Follows the request behind its router down to a service.
fn walk(
    first: &Arc<HttpRouter>,
    ask: &Ask,
    canonical: &Canonical,
    all: bool,
    subject: &Subject,
    told: &mut EntryPointTold,
) {
    let mut router = Arc::clone(first);
    let mut request = canonical.request();
    loop {
        let errors = subject.errors(&router.name, router.broken);
        let Passage { steps, end } =
            pass(&router, subject, canonical, request, !ask.is_client_assumed);
        told.routers.push(router_told(&router, steps, subject));
        if let Some(errors) = errors {
            told.outcome.status = Some(503);
            told.outcome.why = match &errors[..] {
                [] => format!("router {} is in error", router.name),
                errors => format!("router {} is in error: {}", router.name, errors.join("; ")),
            };
            if subject.live.is_some() {
                let skip = " (left out instead, if it runs with `core.onBrokenRouter: skip`)";
                told.outcome.why.push_str(skip);
            } else if subject.table.facts.on_broken_router == OnBrokenRouter::LastGood {
                let last = " (a proxy that runs may serve the last good build of it instead: \
                            `core.onBrokenRouter: lastGood`)";
                told.outcome.why.push_str(last);
            }
            return;
        }
        let next = end.next(&canonical.cx).cloned();
        match end {
            End::Answered { by, status, location } => {
                told.outcome = answered(&Answer { by, status, location });
                return;
            }
            End::Service(request) => {
                let knows_client = !ask.is_client_assumed;
                let walker = Walker { subject, cx: &canonical.cx, knows_client };
                reach(&router, *request, &walker, told);
                return;
            }
            End::Below(routers, changed) => {
                with_view(&canonical.cx, &changed, |view| {
                    let winner = next.as_ref();
                    let asked = Asked { routers, winner, entry_point: None };
                    let (below, counts) = others::others(&asked, view, subject, canonical, all);
                    told.others.splice(0..0, below);
                    told.not_listed.extend(counts);
                });
                let Some(next) = next else {
                    told.outcome.status = Some(404);
                    told.outcome.why = format!("no router below {} matches", router.name);
                    return;
                };
                request = *changed;
                router = next;
            }
        }
    }
}

/// The request has come to the service of `router`.
fn reach(router: &HttpRouter, request: Request, walker: &Walker<'_>, told: &mut EntryPointTold) {
    let service = service::told(&QualifiedName::resolve(&router.service, ""), walker, request);
    let name = &service.name;
    let ok = |why: String| Outcome { status: None, answered: true, why };
    told.outcome = match (&service.end, service::nobody_answers(&service)) {
        (Some(ServiceEnd::Answered(answer)), _) => answered(answer),
        (_, Some(why)) => Outcome { status: Some(503), answered: false, why },
        (Some(ServiceEnd::Asked(target)), None) => match no_page(name, target, walker.subject) {
            Some(why) => Outcome { status: Some(404), answered: false, why },
            None => ok(format!("service {name} answers, asked for {target}")),
        },
        (None, None) => {
            ok(format!("service {name} answers; what it is asked for depends on the member"))
        }
    };
    told.service = Some(service);
}

/// What the client gets from a middleware.
fn answered(answer: &Answer) -> Outcome {
    let Answer { by, status, location } = answer;
    Outcome {
        status: Some(status.as_u16()),
        answered: location.is_some() || status.is_success(),
        why: match location {
            Some(location) => format!("middleware {by} redirects to {location}"),
            None if status.is_success() => format!("middleware {by} answers"),
            None => format!("middleware {by} refuses the request"),
        },
    }
}

/// Why our dashboard, which is a single page, does not answer.
fn no_page(service: &str, target: &str, subject: &Subject) -> Option<String> {
    let is_ours = subject.live.as_ref().is_none_or(|live| !live.skips_broken);
    if service != "dashboard@internal" || !is_ours {
        return None;
    }
    let base = subject.table.fixed.api.as_ref().map(|api| api.base_path.trim_end_matches('/'));
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let below = path.strip_prefix(base.unwrap_or_default()).unwrap_or(path);
    let is_page = matches!(below, "/dashboard/" | "/" | "/dashboard" | "");
    (!is_page).then(|| format!("the dashboard has no page {path}"))
}

fn router_told(router: &HttpRouter, steps: Vec<walk::Step>, subject: &Subject) -> RouterTold {
    let report = subject.report(&router.name);
    RouterTold {
        name: router.name.to_string(),
        place: subject.router_place(&router.name),
        rule: without_secrets(router.rule.text()),
        priority: router.priority,
        priority_of_rule: report.is_none_or(|report| report.config().priority == 0),
        tls_options: router.tls_options.as_ref().map(ToString::to_string),
        errors: subject.errors(&router.name, router.broken).unwrap_or_default(),
        middlewares: steps.into_iter().map(|step| step.told(subject)).collect(),
        service: router.service.to_string(),
    }
}
