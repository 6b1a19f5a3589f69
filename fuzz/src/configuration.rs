//! `configuration`: a text, read as YAML, TOML and JSON, then as the dynamic configuration, merged and compiled.

use doorward::config::diagnostics::Diagnostic;
use doorward::config::dynamic_config::{DynamicConfig, Object, Section};
use doorward::config::tree::{self, Format, Node, Source, Value};

use super::compiled;

/// Reads a text in every format and prints all that is wrong with it.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    for format in [Format::Yaml, Format::Toml, Format::Json] {
        let source = Source::new("fuzzed", text, format);
        match tree::parse(&source) {
            Ok(root) => {
                check_spans(&root);
                read(&root);
                compiled::check(data.len(), |provider| DynamicConfig::read(&root, provider));
            }
            Err(diagnostics) => {
                assert!(!diagnostics.is_empty(), "refused without a reason");
                print(&diagnostics);
            }
        }
    }
}

fn read(root: &Node) {
    let config = DynamicConfig::read(root, "file");
    print(&config.diagnostics);
    print_section(&config.routers);
    print_section(&config.services);
    print_section(&config.middlewares);
    print_section(&config.servers_transports);
    print_section(&config.tls_options);
    print_section(&config.tls_stores);
    for certificate in &config.certificates {
        print(&certificate.errors);
    }
    // What is read again is the same, and what is said twice is said once.
    let mut again = DynamicConfig::read(root, "file");
    assert_eq!(again.is_empty(), config.is_empty());
    again.reuse(&config);
    assert_eq!(again.routers.len(), config.routers.len());
    again.absorb(&config);
    assert_eq!(again.routers.len(), config.routers.len());
    assert_eq!(again.middlewares.len(), config.middlewares.len());
}

fn print_section<T>(section: &Section<T>) {
    for object in section.values() {
        let object: &Object<T> = object;
        print(&object.errors);
    }
}

/// Every diagnostic can be shown, and in the log it is one line.
pub(super) fn print(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        assert!(!diagnostic.message.is_empty(), "an error says nothing");
        assert!(!diagnostic.render(false).is_empty());
        let line = diagnostic.one_line();
        assert!(!line.contains(char::is_control), "{line:?} is not one line");
    }
}

/// Every value stands somewhere in its source.
fn check_spans(node: &Node) {
    let span = &node.span;
    assert!(span.source.text.get(span.start..span.end).is_some(), "{}..{}", span.start, span.end);
    assert!(node.same_as(node));
    match &node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::Sequence(items) => items.iter().for_each(check_spans),
        Value::Mapping(entries) => {
            for entry in entries {
                let key = &entry.key_span;
                assert!(key.source.text.get(key.start..key.end).is_some(), "{:?}", entry.key);
                check_spans(&entry.value);
            }
        }
    }
}
