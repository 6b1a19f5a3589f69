//! The entry points that a request is explained at.

use anyhow::{Context as _, bail};

use super::options::Ask;
use super::subject::{Live, Subject};
use crate::config::diagnostics::did_you_mean;
use crate::exchange::Scheme;

/// Routers that a running Traefik leaves out.
pub(super) fn left_out(live: &Live) -> Option<String> {
    let mut names: Vec<&str> = live.router_errors.keys().map(String::as_str).collect();
    if !live.skips_broken || names.is_empty() {
        return None;
    }
    names.sort_unstable();
    let more = if names.len() > 5 { ", ..." } else { "" };
    let count = names.len();
    names.truncate(5);
    Some(format!("{count} routers are in error there and left out: {}{more}", names.join(", ")))
}

/// Positions of the entry points where the request can arrive.
pub(super) fn positions(
    ask: &Ask,
    named: Option<&str>,
    subject: &Subject,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<usize>> {
    let models = &subject.table.facts.entry_points;
    if let Some(named) = named {
        let found = models.iter().position(|model| *model.name == *named);
        return found.map(|position| vec![position]).with_context(|| {
            let all: Vec<&str> = models.iter().map(|model| &*model.name).collect();
            match did_you_mean(named, all.iter().copied()) {
                Some(known) => format!("no entry point `{named}`; did you mean `{known}`?"),
                None => format!("no entry point `{named}`; there are {}", all.join(", ")),
            }
        });
    }
    let all = 0..models.len();
    let at_port: Vec<usize> =
        all.clone().filter(|&at| subject.port(at) == Some(ask.port())).collect();
    if !at_port.is_empty() {
        return Ok(at_port);
    }
    // Ports are often mapped on the way: then it is any that serves what the scheme says.
    let serves = |at: &usize| {
        let routes = subject.table.compiled.table.entry_points.get(*at);
        routes.is_some_and(|routes| match ask.scheme {
            Scheme::Http => !routes.http.is_empty(),
            Scheme::Https => !routes.https.is_empty(),
        })
    };
    let usual = |at: &usize| models.get(*at).is_some_and(|model| model.is_default);
    let mut found: Vec<usize> = all.clone().filter(|at| serves(at) && usual(at)).collect();
    if found.is_empty() {
        found = all.clone().filter(serves).collect();
    }
    if found.is_empty() {
        found = all.clone().filter(usual).collect();
    }
    if found.is_empty() {
        found = all.collect();
    }
    if found.is_empty() {
        bail!("the configuration has no entry point");
    }
    if (0..models.len()).any(|at| subject.address(at).is_some()) {
        let (port, scheme) = (ask.port(), ask.scheme.as_str());
        notes.push(format!(
            "no entry point listens at port {port}: explained where {scheme} is served"
        ));
    }
    Ok(found)
}
