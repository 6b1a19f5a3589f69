//! Go templates: each file that contains `{{` is one, before it is parsed (Traefik file
//! provider). What a template may consume is bounded, and its errors carry their place.

mod encodings;
mod functions;
mod lists;
mod numbers;
mod patterns;
mod raw;
mod unserved;
mod words;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use gtmpl_ng::{Context, ErrorContext, ExecError, Limits, ParseError, Template, TemplateError};

use raw::Prepared;

use crate::config::diagnostics::Diagnostic;
use crate::config::tree::{Source, Span};

/// Iterations of one loop; ten thousand tenants may be one. The bounds are for mistakes, not use.
const LOOP: usize = 100_000;
const FUNCTION_OUTPUT: usize = 16 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// What the template in `source` generates.
pub fn generate(source: &Arc<Source>) -> Result<Arc<Source>, Diagnostic> {
    let limits = Limits::DEFAULT
        .with_iterations(LOOP)
        .with_function_output(FUNCTION_OUTPUT)
        .with_deadline(DEADLINE);
    let mut template = Template::with_limits(limits);
    add_functions(&mut template);
    let prepared = Prepared::new(&source.text);
    if let Some(place) = prepared.broken {
        let message = "template: this escape in a string is none";
        let help = "behind `\\x`, `\\u` and `\\U` come two, four and eight hexadecimal digits of a character; a backslash \
                    is written `\\\\`";
        return Err(Diagnostic::error(message).at(&Span::new(source, place)).help(help));
    }
    let text = template
        .parse(&*prepared.text)
        .map_err(TemplateError::from)
        .and_then(|()| template.render(&Context::from(false)).map_err(TemplateError::from))
        .map_err(|error| diagnostic(source, &prepared, &error))?;
    let name = if keeps_lines(&source.text, &text) {
        Arc::clone(&source.name)
    } else {
        // Whatever is wrong with the result is found in a line that the file does not have.
        format!("{} (generated text)", source.name).into()
    };
    Ok(Source::new(name, text, source.format))
}

fn add_functions(template: &mut Template) {
    for table in [
        functions::TABLE,
        lists::TABLE,
        numbers::TABLE,
        encodings::TABLE,
        patterns::TABLE,
        words::TABLE,
    ] {
        template.add_funcs(table);
    }
    for (alias, name) in lists::ALIASES {
        if let Some((_, function)) = lists::TABLE.iter().find(|(known, _)| *known == name) {
            template.add_func(alias, *function);
        }
    }
}

/// Whether each line of the template became the line of the same number.
fn keeps_lines(template: &str, generated: &str) -> bool {
    let (mut before, mut after) = (template.lines(), generated.lines());
    loop {
        match (before.next(), after.next()) {
            (None, None) => return true,
            (Some(before), Some(after)) if before == after => {}
            (Some(before), Some(_)) if before.contains("{{") || before.contains("}}") => {}
            _ => return false,
        }
    }
}

fn diagnostic(source: &Arc<Source>, prepared: &Prepared<'_>, error: &TemplateError) -> Diagnostic {
    let (place, message) = match error {
        TemplateError::ParseError(ParseError::WithContext(place, message)) => {
            (Some(place), message.clone())
        }
        TemplateError::ExecError(ExecError::Structured(error)) => {
            (Some(&error.context), error.message.clone())
        }
        other => (None, other.to_string()),
    };
    let bytes = place.map_or(0..0, |place| bytes(&prepared.text, place));
    let bytes = prepared.written(bytes.start)..prepared.written(bytes.end);
    let unserved = unserved::unknown(&message).and_then(|name| Some((name, unserved::help(name)?)));
    let (message, help) = match unserved {
        Some((name, help)) => {
            (format!("Traefik's function `{name}` is not supported by Doorward"), help)
        }
        None => (message, "a literal `{{` is written `{{ \"{{\" }}`"),
    };
    Diagnostic::error(format!("template: {message}")).at(&Span::new(source, bytes)).help(help)
}

fn bytes(text: &str, place: &ErrorContext) -> Range<usize> {
    let lines_before = place.line.saturating_sub(1);
    let line: usize = text.split_inclusive('\n').take(lines_before).map(str::len).sum();
    let start = (line + place.col.saturating_sub(1)).min(text.len());
    start..(start + place.len).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Format;

    fn source(text: &str) -> Arc<Source> {
        Source::new("f.yml", text, Format::Yaml)
    }

    fn render(text: &str) -> String {
        match generate(&source(text)) {
            Ok(generated) => generated.text.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn go_syntax() {
        assert_eq!(
            render("{{ range $i, $n := list \"a\" \"b\" }}{{$i}}={{$n}};{{ end }}"),
            "0=a;1=b;"
        );
        assert_eq!(render("a\n{{- if not . }}\nb{{ else }}c{{ end -}}\n"), "a\nb");
        assert_eq!(render("{{ printf \"%s-%03d\" \"x\" 7 }}{{/* no */}}"), "x-007");
        assert_eq!(render("{{ with $x := \"v\" }}{{ $x | upper | quote }}{{ end }}"), "\"V\"");
        assert_eq!(render("{{ define \"r\" }}<{{ . }}>{{ end }}{{ template \"r\" 3 }}"), "<3>");
        assert_eq!(
            render("{{ $n := 0 }}{{ range until 4 }}{{ $n = add $n . }}{{ end }}{{ $n }}"),
            "6"
        );
        assert_eq!(render("{{ \"{{\" }} {{ if and (eq 1 1) (or false true) }}y{{ end }}"), "{{ y");
        assert_eq!(render("{{ index (list 1 2 3) 1 }}{{ len \"abc\" }}{{ . }}"), "23false");
    }

    #[test]
    fn errors_carry_their_place() {
        let error = render("a: 1\nb: {{ nothing 1 }}\n");
        assert!(error.starts_with("error: f.yml:2:"), "{error}");
        assert!(error.contains("nothing"), "{error}");
        let error = render("a: 1\nb: ok\nc: {{ fail \"no tenant\" }}\n");
        assert!(error.starts_with("error: f.yml:3:"), "{error}");
        assert!(error.contains("no tenant"), "{error}");
        assert!(render("{{ if }}").contains("f.yml:1:"), "{}", render("{{ if }}"));
        let error = render("{{ `\\d\\d\\d` }}{{ nothing 1 }}");
        assert!(error.starts_with("error: f.yml:1:18:"), "{error}");
        for left_out in unserved::names() {
            let error = render(&format!("a\n{{{{ {left_out} 1 2 }}}}"));
            let said = format!("Traefik's function `{left_out}` is not supported by Doorward");
            assert!(error.starts_with("error: f.yml:2:") && error.contains(&said), "{error}");
        }
        assert!(render("a\n{{ range until 3 }}").starts_with("error: f.yml:"));
    }

    /// The engine alone would never come to an end.
    #[test]
    fn a_broken_escape_is_an_error() {
        for (text, place) in [("a\n{{ \"x\\uy\" }}", "2:6"), ("{{ '\\x4' }}", "1:5")] {
            assert!(
                render(text).starts_with(&format!("error: f.yml:{place}: ")),
                "{}",
                render(text)
            );
        }
        assert_eq!(render("{{ \"\\u0041bcdef\\xc3\\xa9\" }}"), "Abcdefé");
    }

    #[test]
    fn what_a_template_consumes_is_bounded() {
        for hog in [
            "{{ range until 100000000 }}x{{ end }}",
            "{{ range 10000 }}{{ range 10000 }}{{ range 10000 }}{{ end }}{{ end }}{{ end }}",
            "{{ range 10000 }}{{ repeat 1000000 \"x\" }}{{ end }}",
            "{{ repeat 9000000000000000000 \"xy\" }}",
            "{{ indent 9000000000000000000 \"xy\" }}",
            "{{ define \"r\" }}{{ template \"r\" . }}{{ end }}{{ template \"r\" . }}",
            "{{ $s := \"xxxxxxxx\" }}{{ range 60 }}{{ $s = print $s $s }}{{ end }}",
        ] {
            assert!(render(hog).starts_with("error: "), "{hog}");
        }
        assert_eq!(render("{{ range until 20000 }}x{{ end }}").len(), 20_000);
    }

    #[test]
    fn a_result_with_other_lines_says_so() {
        let name = |text: &str| generate(&source(text)).unwrap().name.to_string();
        assert_eq!(name("a: {{ upper \"x\" }}\nb: 1\n"), "f.yml");
        assert_eq!(
            name("{{ range until 3 }}\na{{ . }}: 1\n{{ end }}\nb: 1\n"),
            "f.yml (generated text)"
        );
    }

    /// FILE-9: what Go's `text/template` makes of each of these with sprig 3.2.3 and Traefik's own functions.
    #[test]
    fn results_are_those_of_go() {
        let read = |text: &str| serde_json::from_str::<String>(text).unwrap();
        let mut wrong = Vec::new();
        let mut count = 0;
        for line in include_str!("sprig.tsv").lines() {
            let (template, result) = line.split_once('\t').unwrap();
            let (template, wanted) = (read(template), read(result));
            let made = render(&template);
            count += 1;
            let same = match wanted.strip_prefix("ERROR: ") {
                Some(_) => made.starts_with("error: "),
                None => made == wanted,
            };
            if !same {
                wrong.push(format!("{template:?} made {made:?} and not {wanted:?}"));
            }
        }
        assert!(count > 200 && wrong.is_empty(), "{count} tried\n{}", wrong.join("\n"));
    }
}
