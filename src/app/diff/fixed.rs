//! The static parts of two configurations: entry points and all other options.

use std::path::PathBuf;

use super::values::{Difference, options as differing};
use crate::app::explain::Subject;
use crate::config::static_config::StaticConfig;

/// The options that differ.
pub(super) fn options(old: &Subject, new: &Subject, notes: &mut Vec<String>) -> Vec<Difference> {
    let has = |subject: &Subject| subject.table.set.fixed.is_some();
    match (has(old), has(new)) {
        (true, true) => {}
        (false, false) => return Vec::new(),
        (_, is_new) => {
            let one = if is_new { "old" } else { "new" };
            notes.push(format!(
                "the {one} side has no static configuration: its entry points are those that \
                 routers name, and other options are not compared"
            ));
            return Vec::new();
        }
    }
    let [then, now] = [old, new].map(|subject| comparable(&subject.table.fixed));
    let node = |subject: &Subject| subject.table.set.fixed.as_ref().map(|(_, node)| node.clone());
    if then == now { Vec::new() } else { differing(&then, &now, [&node(old), &node(new)]) }
}

/// Without where the dynamic files are: that is how the two sides are told apart.
fn comparable(fixed: &StaticConfig) -> StaticConfig {
    let mut fixed = fixed.clone();
    if let Some(file) = &mut fixed.providers.file {
        file.filename = PathBuf::new();
        file.directory = PathBuf::new();
    }
    fixed
}
