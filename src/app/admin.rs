//! The admin API as `check` and the start see it: the files that it needs, with their places.

use crate::admin::Admin;
use crate::config::diagnostics::Diagnostic;
use crate::config::static_config::StaticConfig;
use crate::config::tree::Node;
use crate::values::{BuildError, Disk};

/// What of its files lets the admin API not start.
pub(super) fn errors(config: &StaticConfig, node: &Node) -> Vec<Diagnostic> {
    let Some(admin) = &config.admin else { return Vec::new() };
    let found = Admin::check_files(admin, &Disk);
    found.iter().map(|error| placed(Diagnostic::error(message(error)), error, node)).collect()
}

/// Directories that somebody has yet to make.
pub(super) fn warnings(config: &StaticConfig, node: &Node) -> Vec<Diagnostic> {
    let Some(admin) = &config.admin else { return Vec::new() };
    let found = Admin::missing_directories(admin);
    found.iter().map(|error| placed(Diagnostic::warning(message(error)), error, node)).collect()
}

fn message(error: &BuildError) -> String {
    format!("admin.{}: {}", error.option, error.message)
}

fn placed(diagnostic: Diagnostic, error: &BuildError, node: &Node) -> Diagnostic {
    diagnostic.at(&node.at_path(&format!("admin.{}", error.option)).span)
}
