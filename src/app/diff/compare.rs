//! All requests through both configurations; what differs is grouped by what it is.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::groups::{ChangeTold, Groups};
use super::objects::{self, ObjectTold};
use super::overlaps;
use super::requests;
use super::values::{Difference, Values};
use super::ways::{Change, Way, change};
use crate::app::explain::Subject;
use crate::router::EntryPointRoutes;

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

/// Compares two configurations.
pub(super) fn compare(old: &Subject, new: &Subject) -> Told {
    let values = Values::new(old, new);
    let (trials, is_cut) = requests::derive([old, new]);
    let mut groups = Groups::default();
    let mut known: HashMap<[(String, Option<String>); 2], Option<Change>> = HashMap::new();
    let (mut tried, mut others) = (0, 0);
    for door in doors(old, new) {
        for trial in &trials {
            let Some(ask) = trial.ask(door.secure) else { continue };
            let (Ok(then), Ok(now)) = (Way::of(&ask, old, door.old), Way::of(&ask, new, door.new))
            else {
                continue;
            };
            tried += 1;
            let found = known
                .entry([then.key(), now.key()])
                .or_insert_with(|| change(&then, &now, &values));
            let Some(found) = found else { continue };
            others += 1;
            let example = || format!("{} at {}", trial.describe(&ask), door.name);
            groups.add(found, &then.routers, &now.routers, example);
        }
    }
    let unseen = objects::unseen(old, new, &groups.routers());
    let mut notes = Vec::new();
    if is_cut {
        notes.push("not every path was combined with every host: there are too many".to_owned());
    }
    notes.extend(overlaps::notes(old, new));
    let options = super::fixed::options(old, new, &mut notes);
    let objects = objects::changed(&values);
    Told {
        requests_tried: tried,
        requests_changed: others,
        changes: groups.told(),
        objects,
        options,
        unseen,
        notes,
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
