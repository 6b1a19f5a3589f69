//! Requests that the same has become of, put together so that one cause is told once.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ways::{Change, Kind};

/// As many requests of one group are told.
const EXAMPLES: usize = 3;
/// As many names of one group are told.
const NAMES: usize = 5;

/// Requests that the same has become of.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangeTold {
    pub(super) kind: &'static str,
    /// Protection that is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lost: Vec<String>,
    /// Protection that is another.
    #[serde(rename = "protectionChanged", skip_serializing_if = "Vec::is_empty")]
    pub(super) altered: Vec<String>,
    /// Who took them, where somebody else takes them now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) old_routers: Option<Names>,
    /// Who takes them now, where somebody else took them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new_routers: Option<Names>,
    /// Who takes them, now as then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) routers: Option<Names>,
    pub(super) what: Vec<String>,
    pub(super) requests: usize,
    pub(super) examples: Vec<String>,
}

/// Names, if they are many only the first of them.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Names {
    pub(super) count: usize,
    pub(super) first: Vec<String>,
}

/// Requests, and who took and takes them.
#[derive(Default)]
pub(super) struct Group {
    requests: usize,
    examples: Vec<String>,
    then: BTreeSet<String>,
    now: BTreeSet<String>,
}

/// All groups.
#[derive(Default)]
pub(super) struct Groups(BTreeMap<Change, Group>);

impl Names {
    fn of<'n>(names: impl ExactSizeIterator<Item = &'n String>) -> Self {
        Self { count: names.len(), first: names.take(NAMES).cloned().collect() }
    }

    /// `router a`, or `7 routers: a, b, ...`; `none` where no router takes requests.
    pub(super) fn told(&self) -> String {
        let more = if self.count > self.first.len() { ", ..." } else { "" };
        match &self.first[..] {
            [one] if one.is_empty() => "none".to_owned(),
            [one] if self.count == 1 => format!("router {one}"),
            names => format!("{} routers: {}{more}", self.count, names.join(", ")),
        }
    }
}

impl From<&BTreeSet<String>> for Names {
    fn from(names: &BTreeSet<String>) -> Self {
        Self::of(names.iter())
    }
}

impl Groups {
    /// Adds a request that has taken these ways.
    pub(super) fn add(
        &mut self,
        change: &Change,
        then: &[String],
        now: &[String],
        example: impl FnOnce() -> String,
    ) {
        let group = match self.0.get_mut(change) {
            Some(group) => group,
            None => self.0.entry(change.clone()).or_default(),
        };
        group.requests += 1;
        if group.examples.len() < EXAMPLES {
            group.examples.push(example());
        }
        if change.routers.is_some() {
            group.then.insert(then.join(" -> "));
            group.now.insert(now.join(" -> "));
        } else {
            group.now.extend(now.iter().cloned());
        }
    }

    /// Every router on the way of a request that gets something else.
    pub(super) fn routers(&self) -> BTreeSet<&String> {
        self.0.values().flat_map(|group| group.then.iter().chain(&group.now)).collect()
    }

    /// What is told: lost protection first, then what most requests suffer.
    pub(super) fn told(self) -> Vec<ChangeTold> {
        // Many routers that lose their requests to one, then one that loses them to many.
        let by_new = merged(self.0.into_iter().collect(), |change, group| {
            Some((change, group.now.first()?.clone()))
        });
        let by_old = merged(by_new, |change, group| {
            (group.then.len() == 1).then_some(())?;
            Some((change, group.then.first()?.clone()))
        });
        let mut told: Vec<ChangeTold> = by_old.into_iter().map(told).collect();
        told.sort_by_key(|one| {
            (one.lost.is_empty(), one.altered.is_empty(), std::cmp::Reverse(one.requests))
        });
        told
    }
}

/// Joins groups that have a key in common, which is the same change and a router.
fn merged(
    groups: Vec<(Change, Group)>,
    key: impl Fn(Change, &Group) -> Option<(Change, String)>,
) -> Vec<(Change, Group)> {
    let mut merged: Vec<(Change, Group)> = Vec::new();
    let mut known: BTreeMap<(Change, String), usize> = BTreeMap::new();
    for (change, group) in groups {
        let bare = Change { routers: None, ..change.clone() };
        let key = change.routers.is_some().then(|| key(bare, &group)).flatten();
        let place = key.map(|key| *known.entry(key).or_insert(merged.len()));
        match place.and_then(|place| merged.get_mut(place)) {
            Some((_, into)) => {
                into.requests += group.requests;
                into.then.extend(group.then);
                into.now.extend(group.now);
                let room = EXAMPLES.saturating_sub(into.examples.len());
                into.examples.extend(group.examples.into_iter().take(room));
            }
            None => merged.push((change, group)),
        }
    }
    merged
}

fn told((change, group): (Change, Group)) -> ChangeTold {
    let is_elsewhere = change.routers.is_some();
    ChangeTold {
        kind: match change.kind {
            Kind::Removed => "removed",
            Kind::Moved => "moved",
            Kind::Changed => "changed",
            Kind::Added => "added",
        },
        lost: change.lost,
        altered: change.altered,
        old_routers: is_elsewhere.then(|| Names::from(&group.then)),
        new_routers: is_elsewhere.then(|| Names::from(&group.now)),
        routers: (!is_elsewhere).then(|| Names::from(&group.now)),
        what: change.what,
        requests: group.requests,
        examples: group.examples,
    }
}
