//! From the bytes of one file to a document: template, tree, objects.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::template;
use crate::config::diagnostics::Diagnostic;
use crate::config::tree::{self, Format, Source, Span};
use crate::provider::Document;

/// The provider's name, part of the name of every object.
const PROVIDER: &str = "file";

/// Reads a document. Never fails otherwise than by telling why.
pub(super) fn load<D: Document>(
    path: &Path,
    content: Vec<u8>,
    log_generated: bool,
) -> Result<D, Vec<Diagnostic>> {
    // One tenant's file must not take the provider down, whatever it finds in a parser.
    catch_unwind(AssertUnwindSafe(|| read(path, content, log_generated))).unwrap_or_else(|panic| {
        let reason = panic_message(&*panic);
        let message = format!("{} makes its reader fail: {reason}", path.display());
        Err(vec![Diagnostic::error(message)])
    })
}

fn read<D: Document>(
    path: &Path,
    content: Vec<u8>,
    log_generated: bool,
) -> Result<D, Vec<Diagnostic>> {
    let name = path.display().to_string();
    let format = Format::of_path(path).ok_or_else(|| {
        vec![Diagnostic::error(format!("{name} is not a .toml, .yaml, .yml or .json file"))]
    })?;
    let text = String::from_utf8(content).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let source = Source::new(name.as_str(), text, format);
        vec![Diagnostic::error("the file is not UTF-8").at(&Span::new(&source, at..at))]
    })?;
    let mut source = Source::new(name, text, format);
    if source.text.contains("{{") {
        let generated = template::generate(&source).map_err(|error| vec![error])?;
        if log_generated {
            tracing::debug!(file = %source.name, template = %source.text, "template");
            tracing::debug!(file = %source.name, generated = %generated.text, "generated");
        }
        source = generated;
    }
    Ok(D::read(&tree::parse(&source)?, PROVIDER))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (None, Some(message)) => message,
        (None, None) => "unknown reason",
    }
}
