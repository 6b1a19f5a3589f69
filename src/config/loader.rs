//! Finds static configuration and reads it: a file, else the flags, else the environment. The first that is there
//! counts and the others are not read, as in Traefik; they are never merged.
//!
//! Files are looked for as `/etc/doorward/doorward`, `$XDG_CONFIG_HOME/doorward`, `$HOME/.config/doorward` and
//! `./doorward`, then in the same places as `traefik`, each with `.toml`, `.yaml` and `.yml`. `--configFile` names a
//! file (`.json` too); unlike in Traefik it is an error when that file is not there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::diagnostics::{Diagnostic, Severity, did_you_mean};
use crate::config::dynamic_config::ROOTS as DYNAMIC_ROOTS;
use crate::config::environment::{self, Environment};
use crate::config::is_dynamic_root;
use crate::config::not_supported;
use crate::config::static_config::{StaticConfig, is_static_root, similar_static_root};
use crate::config::tree::{
    FlagKind, Format, Node, Source, Span, Value, decode_what_is_right, flag_kind, from_flags, parse,
};
use crate::upstream::Proxies;
use crate::values::Files;

/// Where static configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The command line.
    Flags,
    /// Variables that begin with `DOORWARD_` or `TRAEFIK_`.
    Environment,
    /// Nothing is configured.
    Defaults,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Flags => formatter.write_str("flags"),
            Self::Environment => formatter.write_str("environment"),
            Self::Defaults => formatter.write_str("defaults"),
        }
    }
}

/// Static configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, completed and validated.
    pub config: StaticConfig,
    /// Where it came from.
    pub origin: Origin,
    /// What works but is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// The tree it was decoded from, for places in later messages.
    pub node: Node,
}

/// Loads static configuration. `arguments` are those after the program's name and the command. On failure the list
/// holds every error, and the warnings that were found on the way.
pub fn load(
    arguments: &[String],
    variables: &[(String, String)],
    files: &dyn Files,
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut flags = from_flags(arguments, &kind_of_flag)?;
    let file = match config_file(&flags) {
        Some((name, span)) => {
            let path = PathBuf::from(name);
            if !files.exists(&path) {
                let message = format!("the configuration file `{name}` does not exist");
                return Err(vec![Diagnostic::error(message).at(&span)]);
            }
            Some(path)
        }
        None => search_paths(variables).into_iter().find(|path| files.exists(path)),
    };
    flags.retain(|entry| !entry.key.eq_ignore_ascii_case(CONFIG_FILE));
    if let Some(path) = file {
        let mut loaded = load_file(&path, files)?;
        ignored(&path, !flags.is_empty(), variables, &mut loaded.warnings);
        return Ok(loaded);
    }
    if !arguments.is_empty() {
        return finish(flags, Origin::Flags, Vec::new());
    }
    let Environment { node, warnings } = environment::read(variables)?;
    if let Some(node) = node {
        return finish(node, Origin::Environment, warnings);
    }
    let source = Source::new("defaults", "", Format::Flags);
    let nothing = Node { value: Value::Null, span: Span::new(&source, 0..0) };
    finish(nothing, Origin::Defaults, warnings)
}

/// Adds the proxies that the environment names.
pub fn add_proxies(
    mut loaded: Loaded,
    variables: &[(String, String)],
) -> Result<Loaded, Vec<Diagnostic>> {
    match proxies(variables) {
        Ok((proxies, notice)) => {
            loaded.config.proxies = proxies;
            loaded.warnings.extend(notice);
            Ok(loaded)
        }
        Err(error) => Err(std::iter::once(error).chain(loaded.warnings).collect()),
    }
}

/// The proxies that the environment names, and what the user should know of them.
pub fn proxies(
    variables: &[(String, String)],
) -> Result<(Proxies, Option<Diagnostic>), Diagnostic> {
    let proxies = Proxies::read(variables).map_err(|error| Diagnostic::error(error.message))?;
    let notice = proxies.notice().map(|notice| {
        Diagnostic::warning(notice).help(
            "name the servers that are reached directly in `NO_PROXY`, or unset the variables",
        )
    });
    Ok((proxies, notice))
}

/// Loads static configuration from the flags alone, also where there is a file.
pub fn load_flags(arguments: &[String]) -> Result<Loaded, Vec<Diagnostic>> {
    let mut flags = from_flags(arguments, &kind_of_flag)?;
    flags.retain(|entry| !entry.key.eq_ignore_ascii_case(CONFIG_FILE));
    finish(flags, Origin::Flags, Vec::new())
}

/// Loads static configuration from one file, whatever flags and environment say.
pub fn load_file(path: &Path, files: &dyn Files) -> Result<Loaded, Vec<Diagnostic>> {
    let node = parse(&read_source(path, files).map_err(|error| vec![error])?)?;
    finish(node, Origin::File(path.to_owned()), Vec::new())
}

/// Makes static configuration of a tree that was read already.
pub fn from_tree(node: Node, origin: Origin) -> Result<Loaded, Vec<Diagnostic>> {
    finish(node, origin, Vec::new())
}

/// Every file that is looked for, in order.
pub fn search_paths(variables: &[(String, String)]) -> Vec<PathBuf> {
    let variable = |wanted: &str| {
        let found = variables.iter().find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| PathBuf::from(value))
    };
    let mut paths = Vec::new();
    for program in ["doorward", "traefik"] {
        let places = [
            Some(Path::new("/etc").join(program)),
            variable("XDG_CONFIG_HOME"),
            variable("HOME").map(|home| home.join(".config")),
            Some(PathBuf::from(".")),
        ];
        for place in places.into_iter().flatten() {
            for extension in ["toml", "yaml", "yml"] {
                paths.push(place.join(format!("{program}.{extension}")));
            }
        }
    }
    paths
}

const CONFIG_FILE: &str = "configfile";

fn kind_of_flag(path: &str) -> FlagKind {
    if path == CONFIG_FILE { FlagKind::Value } else { flag_kind::<StaticConfig>(path) }
}

/// The file that `--configFile` names; an empty name counts as none.
fn config_file(flags: &Node) -> Option<(&str, Span)> {
    let node = flags.get(CONFIG_FILE)?;
    node.text().filter(|name| !name.is_empty()).map(|name| (name, node.span.clone()))
}

fn read_source(path: &Path, files: &dyn Files) -> Result<Arc<Source>, Diagnostic> {
    let name = path.display().to_string();
    let Some(format) = Format::of_path(path) else {
        let message = format!("unsupported file extension: `{name}`");
        return Err(Diagnostic::error(message).help("use .toml, .yaml, .yml or .json"));
    };
    let bytes = files
        .read(path)
        .map_err(|error| Diagnostic::error(format!("cannot read the file `{name}`: {error}")))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Diagnostic::error(format!("the file `{name}` is not UTF-8: {error}")))?;
    Ok(Source::new(name, text, format))
}

/// Flags and variables beside a file do nothing, which surprises everyone once.
fn ignored(
    path: &Path,
    has_flags: bool,
    variables: &[(String, String)],
    warnings: &mut Vec<Diagnostic>,
) {
    let has_variables = environment::is_configured(variables);
    let what = match (has_flags, has_variables) {
        (true, true) => "flags and environment variables are",
        (true, false) => "flags are",
        (false, true) => "environment variables are",
        (false, false) => return,
    };
    let message = format!("{what} ignored, because the file `{}` is there", path.display());
    warnings.push(Diagnostic::warning(message));
}

fn finish(
    mut node: Node,
    origin: Origin,
    mut warnings: Vec<Diagnostic>,
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut unknown = Vec::new();
    if let Origin::File(path) = &origin {
        sections(&mut node, path, &mut unknown)?;
    }
    let findings = not_supported::take(&mut node);
    let mut errors = findings.errors;
    warnings.extend(findings.warnings);
    // What decodes is looked at even if something else does not: one start shows all that is wrong.
    let (mut config, undecoded) = decode_what_is_right::<StaticConfig>(&node);
    if let Some(config) = &mut config {
        config.complete();
        let mut found = config.validate(&node);
        found.retain(|one| !undecoded.iter().any(|cause| follows(one, cause)));
        let (wrong, odd): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|one| one.severity == Severity::Error);
        errors.extend(wrong);
        warnings.extend(odd);
        if is_dynamic_too(&origin, config) {
            unknown.clear();
        }
    }
    errors.extend(undecoded);
    warnings.splice(0..0, unknown);
    match config {
        Some(config) if errors.is_empty() => Ok(Loaded { config, origin, warnings, node }),
        _ => {
            errors.sort_by_key(|error| error.span.as_ref().map(|span| span.start));
            errors.extend(warnings);
            Err(errors)
        }
    }
}

/// Whether something is only missed because it was written and could not be decoded.
fn follows(found: &Diagnostic, undecoded: &Diagnostic) -> bool {
    let Some((path, _)) = undecoded.message.strip_prefix('`').and_then(|rest| rest.split_once('`'))
    else {
        return false;
    };
    let missed = match found.message.strip_suffix("` is required") {
        Some(missed) => missed.trim_start_matches('`').to_owned(),
        None => match found.message.strip_prefix("there is no entry point `") {
            Some(name) => format!("entryPoints.{}", name.trim_end_matches('`')),
            None => return false,
        },
    };
    missed.eq_ignore_ascii_case(path)
}

/// Whether the file provider reads the file too: then it tells of sections that nobody knows.
fn is_dynamic_too(origin: &Origin, config: &StaticConfig) -> bool {
    let (Origin::File(path), Some(provider)) = (origin, &config.providers.file) else {
        return false;
    };
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if provider.directory.as_os_str().is_empty() {
        whole(path) == whole(&provider.filename)
    } else {
        whole(path).starts_with(whole(&provider.directory))
    }
}

/// Leaves only known sections in a file's tree. Sections of dynamic configuration may stand in the same file.
fn sections(
    node: &mut Node,
    path: &Path,
    warnings: &mut Vec<Diagnostic>,
) -> Result<(), Vec<Diagnostic>> {
    let name = path.display();
    if node.is_empty() {
        return Err(vec![Diagnostic::error(format!("no configuration found in file: {name}"))]);
    }
    let Value::Mapping(_) = node.value else { return Ok(()) };
    let mut dynamic = false;
    node.retain(|entry| {
        let key = entry.key.to_lowercase();
        if is_static_root(&key) {
            return true;
        }
        dynamic |= is_dynamic_root(&key);
        if !is_dynamic_root(&key) && !key.starts_with("x-") {
            let message = format!("the unknown section `{}` is ignored", entry.key);
            let mut warning = Diagnostic::warning(message).at(&entry.key_span);
            let close = similar_static_root(&key).or_else(|| did_you_mean(&key, DYNAMIC_ROOTS));
            warning.help = close.map(|close| format!("did you mean `{close}`?"));
            warnings.push(warning);
        }
        false
    });
    if node.is_empty() {
        let mut error = Diagnostic::error(format!("no valid configuration found in file: {name}"));
        if dynamic {
            let help = "this is dynamic configuration: name the file in `providers.file.filename` of a static one";
            error = error.help(help);
        }
        let mut errors = vec![error];
        errors.append(warnings);
        return Err(errors);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
