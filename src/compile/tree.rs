//! Which routers stand below which (`parentRefs`), and what is wrong with that.
//!
//! What comes out has no cycles: the link that would close one is left out, with a warning.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::problem::Problem;
use crate::config::dynamic_config::Section;
use crate::router::RouterConfig;
use crate::values::{BuildError, QualifiedName};

/// How deep routers may stand below each other. A request goes down as many calls.
const MAX_HEIGHT: usize = 32;

/// All routers that stand below another, or have others below them.
#[derive(Default)]
pub(super) struct Tree(HashMap<QualifiedName, Arc<TreePlace>>);

/// Where one of them stands.
#[derive(Default)]
pub(super) struct TreePlace {
    /// Routers below, by name.
    pub(super) children: Vec<QualifiedName>,
    /// How many levels there are from here down, this one counted.
    pub(super) height: usize,
    /// Why it cannot be built.
    pub(super) problems: Vec<Problem>,
    /// What does not keep it from working.
    pub(super) warnings: Vec<BuildError>,
}

impl Tree {
    /// The tree of all routers.
    pub(super) fn of(routers: &Section<RouterConfig>) -> Self {
        let mut places: HashMap<QualifiedName, TreePlace> = HashMap::new();
        let below = routers.iter().filter(|(_, object)| !object.config.parent_refs.is_empty());
        for (name, object) in below {
            let mut problems = problems_of(&object.config);
            for (index, parent) in object.config.parent_refs.iter().enumerate() {
                let parent = QualifiedName::resolve(parent, name.provider());
                if routers.contains_key(&parent) {
                    places.entry(parent).or_default().children.push(name.clone());
                } else {
                    let message = format!("parent router \"{parent}\" does not exist");
                    problems.push(Problem::at(format!("parentRefs[{index}]"), message));
                }
            }
            places.entry(name.clone()).or_default().problems.extend(problems);
        }
        for place in places.values_mut() {
            place.children.sort_unstable();
            place.children.dedup();
        }
        let is_root = |name: &&QualifiedName| {
            routers.get(*name).is_some_and(|object| object.config.parent_refs.is_empty())
        };
        let mut roots: Vec<QualifiedName> = places.keys().filter(is_root).cloned().collect();
        roots.sort_unstable();
        let mut seen = HashSet::new();
        for root in roots {
            walk(root, &mut places, &mut seen);
        }
        for (name, place) in &mut places {
            if !seen.contains(name) {
                place.problems.push(Problem::new(BuildError::new("router is not reachable")));
                // Nothing leads here, so nobody is built for it.
                place.children.clear();
            }
            if place.height > MAX_HEIGHT {
                let message = format!("more than {MAX_HEIGHT} routers stand below each other");
                place.problems.push(Problem::new(BuildError::new(message)));
            }
        }
        Self(places.into_iter().map(|(name, place)| (name, Arc::new(place))).collect())
    }

    /// Whether all routers stand by themselves.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place of a router; `None` for one that stands by itself.
    pub(super) fn place(&self, name: &QualifiedName) -> Option<&Arc<TreePlace>> {
        self.0.get(name)
    }
}

/// What a router that stands below others must not have: it is the first one's to say.
fn problems_of(config: &RouterConfig) -> Vec<Problem> {
    let refused = [
        ("tls", config.tls.is_some(), "TLS"),
        ("observability", config.observability.is_some(), "Observability"),
        ("entryPoints", !config.entry_points.is_empty(), "Entrypoints"),
    ];
    let problem = |(option, is_set, name): (&str, bool, &str)| {
        let message = || format!("non-root router cannot have {name} configuration");
        is_set.then(|| Problem::at(option, message()))
    };
    refused.into_iter().filter_map(problem).collect()
}

/// Goes down from `root`, without recursion: nobody knows how deep.
fn walk(
    root: QualifiedName,
    places: &mut HashMap<QualifiedName, TreePlace>,
    seen: &mut HashSet<QualifiedName>,
) {
    seen.insert(root.clone());
    // Each with how many of its children were looked at.
    let mut path = vec![(root, 0)];
    while let Some((name, at)) = path.last_mut() {
        let name = name.clone();
        let child = places.get(&name).and_then(|place| place.children.get(*at)).cloned();
        let Some(child) = child else {
            path.pop();
            let children = places.get(&name).map(|place| place.children.clone());
            let heights = children.into_iter().flatten();
            let highest = heights.filter_map(|child| Some(places.get(&child)?.height)).max();
            if let Some(place) = places.get_mut(&name) {
                place.height = 1 + highest.unwrap_or_default();
            }
            continue;
        };
        if let Some(start) = path.iter().position(|(above, _)| *above == child) {
            let cycle = path.iter().skip(start).map(|(name, _)| name).chain([&child]);
            let cycle: Vec<_> = cycle.map(QualifiedName::as_str).collect();
            let cycle = cycle.join(" -> ");
            let message = format!("cyclic reference detected in router tree: {cycle}");
            if let Some(place) = places.get_mut(&name) {
                place.children.retain(|one| *one != child);
                place.warnings.push(BuildError::new(message));
            }
            continue;
        }
        if let Some((_, at)) = path.last_mut() {
            *at += 1;
        }
        if seen.insert(child.clone()) {
            path.push((child, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dynamic_config::Object;

    fn tree(routers: &[(&str, &[&str])]) -> Tree {
        let mut section = Section::default();
        for (name, parents) in routers {
            let parent_refs = parents.iter().map(|&parent| parent.to_owned()).collect();
            let config = RouterConfig { parent_refs, ..RouterConfig::default() };
            section.insert(QualifiedName::new(name, "file"), Object::implied(config));
        }
        Tree::of(&section)
    }

    fn place<'t>(tree: &'t Tree, name: &str) -> &'t TreePlace {
        tree.place(&QualifiedName::new(name, "file")).unwrap()
    }

    fn children(tree: &Tree, name: &str) -> String {
        let names = place(tree, name).children.iter().map(QualifiedName::name);
        names.collect::<Vec<_>>().join(" ")
    }

    fn problems(tree: &Tree, name: &str) -> Vec<String> {
        let problems = place(tree, name).problems.iter();
        problems.map(|problem| problem.error.message.clone()).collect()
    }

    #[test]
    fn routers_by_themselves_are_no_tree() {
        let tree = tree(&[("a", &[]), ("b", &[])]);
        assert!(tree.place(&QualifiedName::new("a", "file")).is_none());
    }

    /// RP-3.6
    #[test]
    fn levels_and_several_parents() {
        let tree = tree(&[
            ("root", &[]),
            ("other", &[]),
            ("b", &["root@file", "other"]),
            ("a", &["root"]),
            ("leaf", &["a", "b"]),
        ]);
        assert_eq!(children(&tree, "root"), "a b");
        assert_eq!(children(&tree, "other"), "b");
        assert_eq!(["root", "a", "leaf"].map(|name| place(&tree, name).height), [3, 2, 1]);
        assert!(problems(&tree, "leaf").is_empty());
    }

    /// RP-3.6
    #[test]
    fn who_cannot_be_reached_is_told_so() {
        let tree = tree(&[("lost", &["gone"]), ("below", &["lost"]), ("a", &["b"]), ("b", &["a"])]);
        assert_eq!(
            problems(&tree, "lost"),
            ["parent router \"gone@file\" does not exist", "router is not reachable"]
        );
        for name in ["below", "a", "b"] {
            assert_eq!(problems(&tree, name), ["router is not reachable"], "{name}");
        }
    }

    /// RP-3.6
    #[test]
    fn a_cycle_is_cut_where_it_closes() {
        let tree = tree(&[("root", &[]), ("a", &["root", "c"]), ("b", &["a"]), ("c", &["b"])]);
        assert_eq!(["root", "a", "b", "c"].map(|name| children(&tree, name)), ["a", "b", "c", ""]);
        let warnings = &place(&tree, "c").warnings;
        assert_eq!(
            warnings[0].message,
            "cyclic reference detected in router tree: a@file -> b@file -> c@file -> a@file"
        );
        assert_eq!(place(&tree, "root").height, 4);
    }

    #[test]
    fn depth_has_a_bound() {
        let names: Vec<String> = (0..40).map(|n| format!("r{n}")).collect();
        let parents: Vec<Vec<&str>> = (0..40)
            .map(|n: usize| n.checked_sub(1).map(|n| &*names[n]).into_iter().collect())
            .collect();
        let routers: Vec<(&str, &[&str])> =
            names.iter().zip(&parents).map(|(name, parents)| (&**name, &**parents)).collect();
        let tree = tree(&routers);
        assert_eq!(problems(&tree, "r7"), ["more than 32 routers stand below each other"]);
        assert!(problems(&tree, "r8").is_empty());
    }
}
