//! All requests through both configurations; what differs is grouped by what it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::objects::{self, ObjectTold};
use super::requests;
use super::values::{Difference, Values};
use super::ways::{Change, Kind, Way, change};
use crate::app::explain::Subject;
use crate::router::EntryPointRoutes;

/// As many requests of one kind are told.
const EXAMPLES: usize = 3;
/// As many routers of one kind are told.
const NAMES: usize = 5;

/// What differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    /// How many requests were tried.
    pub(super) requests_tried: usize,
    /// How many of them get something else.
    pub(super) requests_changed: usize,
    pub(super) changes: Vec<ChangeTold>,
    /// Objects that say something else, and who uses them.
    pub(super) objects: Vec<ObjectTold>,
    /// Options of the static configuration.
    pub(super) options: Vec<Difference>,
    /// Routers that differ although no request that was tried shows it.
    pub(super) unseen: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Requests that the same has become of.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangeTold {
    pub(super) kind: &'static str,
    /// Protection that is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lost: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) old_router: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new_router: Option<String>,
    pub(super) what: Vec<String>,
    pub(super) requests: usize,
    pub(super) examples: Vec<String>,
    pub(super) routers: usize,
    pub(super) router_names: Vec<String>,
}

/// Requests that belong together.
#[derive(Default)]
struct Group {
    requests: usize,
    examples: Vec<String>,
    routers: BTreeSet<String>,
}

/// Compares two configurations.
pub(super) fn compare(old: &Subject, new: &Subject) -> anyhow::Result<Told> {
    let values = Values::new(old, new);
    let (trials, is_cut) = requests::derive([old, new]);
    let mut groups: BTreeMap<Change, Group> = BTreeMap::new();
    let mut known: HashMap<[(String, Option<String>); 2], Option<Change>> = HashMap::new();
    let (mut tried, mut changed) = (0, 0);
    for door in doors(old, new) {
        for trial in &trials {
            let Some(ask) = trial.ask(door.secure) else { continue };
            let then = Way::of(&ask, old, door.old)?;
            let now = Way::of(&ask, new, door.new)?;
            tried += 1;
            let found = known
                .entry([then.key(), now.key()])
                .or_insert_with(|| change(&then, &now, &values));
            let Some(found) = found else { continue };
            changed += 1;
            let group = groups.entry(found.clone()).or_default();
            group.requests += 1;
            group.routers.extend(then.routers.into_iter().chain(now.routers));
            if group.examples.len() < EXAMPLES {
                group.examples.push(format!("{} at {}", trial.describe(&ask), door.name));
            }
        }
    }
    let mentioned: BTreeSet<&String> = groups.values().flat_map(|group| &group.routers).collect();
    let unseen = objects::unseen(old, new, &mentioned);
    let mut notes = Vec::new();
    if is_cut {
        notes.push("not every path was combined with every host: there are too many".to_owned());
    }
    let options = super::fixed::options(old, new, &mut notes);
    let objects = objects::changed(&values);
    let mut changes: Vec<ChangeTold> = groups.into_iter().map(told).collect();
    changes.sort_by_key(|one| (one.lost.is_empty(), std::cmp::Reverse(one.requests)));
    Ok(Told {
        requests_tried: tried,
        requests_changed: changed,
        changes,
        objects,
        options,
        unseen,
        notes,
    })
}

fn told((change, group): (Change, Group)) -> ChangeTold {
    let (old_router, new_router) = change.routers.unzip();
    ChangeTold {
        kind: match change.kind {
            Kind::Removed => "removed",
            Kind::Moved => "moved",
            Kind::Changed => "changed",
            Kind::Added => "added",
        },
        lost: change.lost,
        old_router: old_router.filter(|router| !router.is_empty()),
        new_router: new_router.filter(|router| !router.is_empty()),
        what: change.what,
        requests: group.requests,
        examples: group.examples,
        routers: group.routers.len(),
        router_names: group.routers.into_iter().take(NAMES).collect(),
    }
}

/// One side of an entry point that is in one configuration or both.
struct Door {
    name: String,
    secure: bool,
    old: Option<usize>,
    new: Option<usize>,
}

fn doors(old: &Subject, new: &Subject) -> Vec<Door> {
    let names = |subject: &Subject| {
        let models = subject.table.facts.entry_points.iter();
        models.map(|model| model.name.to_string()).collect::<Vec<_>>()
    };
    let (then, now) = (names(old), names(new));
    let all: BTreeSet<&String> = then.iter().chain(&now).collect();
    let has = |subject: &Subject, position: Option<usize>, secure: bool| {
        let table = &subject.table.compiled.table;
        let routes = position.and_then(|position| table.entry_points.get(position));
        let side = |routes: &EntryPointRoutes| {
            if secure { !routes.https.is_empty() } else { !routes.http.is_empty() }
        };
        routes.is_some_and(side)
    };
    let mut doors = Vec::new();
    for name in all {
        let at = |names: &[String]| names.iter().position(|one| one == name);
        for secure in [false, true] {
            let (before, after) = (at(&then), at(&now));
            if has(old, before, secure) || has(new, after, secure) {
                doors.push(Door { name: name.clone(), secure, old: before, new: after });
            }
        }
    }
    doors
}

impl Told {
    /// Keeps no more than `limit` of each kind.
    pub(super) fn limit(&mut self, limit: usize) {
        let mut cut = |what: &str, length: usize| {
            if length > limit {
                self.notes.push(format!("{} {what} more are not told", length - limit));
            }
        };
        cut("changes", self.changes.len());
        cut("definitions", self.objects.len());
        cut("routers", self.unseen.len());
        self.changes.truncate(limit);
        self.objects.truncate(limit);
        self.unseen.truncate(limit);
    }
}
