//! `templates`: a file as a Go template. What has no action stays as it is, and the result does not depend on the run.

use doorward::config::tree::{Format, Source};
use doorward::provider::file::template::generate;

use super::configuration::print;

/// Generates what a template says.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if takes_long(text) || has_a_memory(text) {
        return;
    }
    let source = Source::new("fuzzed.yml", text, Format::Yaml);
    match generate(&source) {
        Ok(generated) => {
            assert!(text.contains("{{") || *generated.text == *text, "{:?}", generated.text);
            let again = generate(&source).map(|again| again.text.clone());
            assert_eq!(again, Ok(generated.text.clone()), "another result");
        }
        Err(diagnostic) => {
            assert!(text.contains("{{") || text.contains("}}"), "{diagnostic:?}");
            print(&[diagnostic]);
        }
    }
}

/// What the proxy would end by its bounds, some seconds later.
fn takes_long(text: &str) -> bool {
    let digits = text.split(|c: char| !c.is_ascii_digit() && c != '_').map(str::len).max();
    let loops =
        ["range", "repeat", "template", "block", "define"].map(|word| text.matches(word).count());
    digits.unwrap_or_default() > 2 || loops.iter().sum::<usize>() > 2 || text.contains("0x")
}

/// Functions whose result is another one each time.
fn has_a_memory(text: &str) -> bool {
    ["now", "rand", "uuid", "shuffle", "ago", "date", "gen", "env", "bcrypt", "htpasswd"]
        .iter()
        .any(|word| text.contains(word))
}
