//! From the tree to a type. Serde stops at the first error; to report them all, the faulty value
//! is left out and the object decoded again, until nothing new is found.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Visitor};

use super::reader::Reader;
use super::{Node, Span, Value};
use crate::config::diagnostics::{Diagnostic, did_you_mean};

/// Each pass decodes the object once and finds one thing to leave out.
const PASS_LIMIT: usize = 256;

/// More errors than this in one object help nobody.
const ERROR_LIMIT: usize = 50;

/// Decodes a tree into a type, or says everything that is wrong with it.
///
/// Names are matched to a struct's fields without regard to case, unknown ones are errors, and
/// scalars are converted by the type that asks for them, as Traefik does.
pub fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Diagnostic>> {
    match decode_what_is_right(node) {
        (Some(value), errors) if errors.is_empty() => Ok(value),
        (_, errors) => Err(errors),
    }
}

/// The same, with the value that there is without what is wrong.
pub fn decode_what_is_right<T: DeserializeOwned>(node: &Node) -> (Option<T>, Vec<Diagnostic>) {
    let mut context = Context::default();
    let mut errors = Vec::new();
    let mut rest = None;
    for _ in 0..PASS_LIMIT {
        let failure = {
            let reader = Reader::root(node, &context);
            match T::deserialize(reader) {
                Ok(value) if errors.is_empty() && context.notes.borrow().is_empty() => {
                    return (Some(value), errors);
                }
                Ok(value) => {
                    rest = Some(value);
                    break;
                }
                Err(failure) => reader.locate(failure),
            }
        };
        if !context.learn(failure, node, &mut errors) || errors.len() >= ERROR_LIMIT {
            break;
        }
    }
    errors.extend(context.notes.into_inner().into_values());
    if errors.is_empty() {
        let message = format!("more than {PASS_LIMIT} options have no value");
        errors.push(Diagnostic::error(message).at(&node.span));
    }
    errors.sort_by_key(|error| error.span.as_ref().map(|span| span.start));
    (rest, errors)
}

/// What earlier passes found out about single nodes, by the node's address: the tree is borrowed
/// while it is decoded, so addresses stay.
#[derive(Default)]
pub(super) struct Context {
    pub(super) verdicts: HashMap<usize, Verdict>,
    /// Errors that do not stop a pass, by the address of their entry.
    pub(super) notes: RefCell<BTreeMap<usize, Diagnostic>>,
}

/// How a node is treated in the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It says nothing, so the field keeps its default.
    Skip,
    /// It switches its section off.
    None,
    /// It is wrong and already reported.
    Broken,
}

impl Context {
    /// True when the node is to be passed over.
    pub(super) fn skips(&self, id: usize) -> bool {
        !self.verdicts.is_empty()
            && matches!(self.verdicts.get(&id), Some(Verdict::Skip | Verdict::Broken))
    }

    /// Takes over what a failed pass says. False when another pass cannot find more.
    fn learn(&mut self, failure: Failure, root: &Node, errors: &mut Vec<Diagnostic>) -> bool {
        let Fault { kind, message, help, place, .. } = *failure.0;
        let Some(place) = place else {
            errors.push(Diagnostic::error(message).at(&root.span));
            return false;
        };
        if let Kind::Retry(verdict) = kind
            && self.verdicts.insert(place.id, verdict) != Some(verdict)
        {
            return true;
        }
        let follows = matches!(kind, Kind::Missing { after_broken: true, .. });
        if !follows {
            let mut error = Diagnostic::error(message).at(&place.span);
            error.help = help;
            error.secret = place.secret;
            errors.push(error);
        }
        let is_root = place.id == address(root);
        !is_root && self.verdicts.insert(place.id, Verdict::Broken) != Some(Verdict::Broken)
    }
}

/// What tells one node of a tree from another.
pub(super) fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

/// Why a pass stopped.
#[derive(Debug)]
pub(super) struct Failure(Box<Fault>);

#[derive(Debug)]
struct Fault {
    kind: Kind,
    message: String,
    help: Option<String>,
    place: Option<Place>,
}

#[derive(Debug)]
enum Kind {
    Invalid,
    Missing { field: &'static str, after_broken: bool },
    Retry(Verdict),
}

/// Which node a failure is about.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: usize,
    pub(super) span: Span,
    pub(super) secret: bool,
}

impl Failure {
    fn new(kind: Kind, message: String) -> Self {
        Self(Box::new(Fault { kind, message, help: None, place: None }))
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message.into())
    }

    pub(super) fn retry(verdict: Verdict) -> Self {
        Self::new(Kind::Retry(verdict), "has no value".to_owned())
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    pub(super) fn is_placed(&self) -> bool {
        self.0.place.is_some()
    }

    /// The field that a struct misses.
    pub(super) fn missing(&self) -> Option<&'static str> {
        match self.0.kind {
            Kind::Missing { field, .. } => Some(field),
            _ => None,
        }
    }

    /// Marks a missing field as the consequence of an error that is already reported.
    pub(super) fn follows_from_broken(&mut self) {
        if let Kind::Missing { after_broken, .. } = &mut self.0.kind {
            *after_broken = true;
        }
    }

    /// Says where it happened. A secret takes the message with it, since it may quote the value.
    pub(super) fn placed(mut self, place: Place, path: &str) -> Self {
        let fault = &mut *self.0;
        if place.secret && matches!(fault.kind, Kind::Invalid) {
            fault.message = String::from("the value is not valid (not shown: it may be a secret)");
            fault.help = None;
        }
        if !path.is_empty() {
            fault.message = format!("`{path}`: {}", fault.message);
        }
        fault.place = Some(place);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::invalid(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        let kind = Kind::Missing { field, after_broken: false };
        Self::new(kind, format!("`{field}` is required"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let failure = Self::invalid(format!("unknown value `{variant}`"));
        match suggestion(variant, expected) {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid(format!("expected {expected}, found {unexpected}"))
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }
}

/// `did you mean` when a name is close, else all names when they are few. Serde's list holds the
/// names that are read besides the written one: those that only differ by case, and the empty one.
pub(super) fn suggestion(word: &str, known: &[&'static str]) -> Option<String> {
    let mut names: Vec<&str> = Vec::with_capacity(known.len());
    for name in known.iter().filter(|name| !name.is_empty()) {
        if !names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    match did_you_mean(word, names.iter().copied()) {
        Some(close) => Some(format!("did you mean `{close}`?")),
        None if names.is_empty() => None,
        None if names.len() <= 12 => Some(format!("known here: {}", names.join(", "))),
        None => None,
    }
}

/// The name under which [`Node`] asks a [`Reader`] for itself.
pub(super) const NODE_NAME: &str = "$doorward::config::Node";

thread_local! {
    /// Carries a node past serde, whose data model has no place for it.
    static HANDED: RefCell<Option<Node>> = const { RefCell::new(None) };
}

/// Gives a node to a visitor that asked for [`NODE_NAME`].
pub(super) fn hand_over<'de, V: Visitor<'de>>(
    node: &Node,
    visitor: V,
) -> Result<V::Value, Failure> {
    HANDED.with_borrow_mut(|handed| *handed = Some(node.clone()));
    visitor.visit_unit()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Receiver;

        impl Visitor<'_> for Receiver {
            type Value = Node;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value of a configuration tree")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
                let handed = HANDED.with_borrow_mut(Option::take);
                handed.ok_or_else(|| E::custom("a raw value can only be read from a tree"))
            }
        }

        deserializer.deserialize_newtype_struct(NODE_NAME, Receiver)
    }
}

/// The children of a mapping whose names are all numbers, in their order: a list as environment
/// variables and stores write it.
pub(super) fn numbered(node: &Node) -> Option<Vec<(usize, &Node)>> {
    let Value::Mapping(entries) = &node.value else { return None };
    let number = |key: &str| {
        let digits = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| key.parse::<usize>().ok()).flatten()
    };
    let mut items = Vec::with_capacity(entries.len());
    for entry in entries {
        items.push((number(&entry.key)?, &entry.value));
    }
    items.sort_by_key(|(index, _)| *index);
    Some(items)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::super::{
        Format, Source, flag_kind, from_environment, from_flags, from_labels, parse,
    };
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Router {
        rule: String,
        priority: i32,
        entry_points: Vec<String>,
        tls: Option<Tls>,
        weight: Option<u8>,
        ratio: f64,
        enabled: bool,
        client_secret: u16,
        users: Vec<Port>,
        level: Level,
        port: Option<Port>,
        labels: BTreeMap<String, String>,
        nested: Nested,
        skipped: Option<bool>,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Tls {
        options: String,
        domains: Vec<Domain>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Domain {
        main: String,
        #[serde(default)]
        sans: Vec<String>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Nested {
        size: u32,
    }

    impl Default for Nested {
        fn default() -> Self {
            Self { size: 7 }
        }
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    enum Level {
        #[default]
        #[serde(rename = "info")]
        Info,
        #[serde(rename = "debug")]
        Debug,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(try_from = "String")]
    struct Port(u16);

    impl TryFrom<String> for Port {
        type Error = String;

        fn try_from(text: String) -> Result<Self, String> {
            u16::from_str(&text).map(Self).map_err(|_| format!("`{text}` is no port"))
        }
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Middleware {
        AddPrefix(Prefix),
        Compress(Nested),
        Retry { attempts: u8 },
        Buffering,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Prefix {
        prefix: String,
    }

    fn yaml(text: &str) -> Node {
        parse(&Source::new("f.yml", text, Format::Yaml)).unwrap()
    }

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, Vec<String>> {
        lines(decode(&yaml(text)))
    }

    fn lines<T>(result: Result<T, Vec<Diagnostic>>) -> Result<T, Vec<String>> {
        result.map_err(|errors| errors.iter().map(Diagnostic::one_line).collect())
    }

    fn labels(list: &[(&str, &str)]) -> Node {
        let owned = |(key, value): &(&str, &str)| (format!("t.{key}"), (*value).to_owned());
        from_labels(&list.iter().map(owned).collect::<Vec<_>>(), "t", '.', "labels").unwrap()
    }

    #[test]
    fn scalars_convert_by_the_type_that_asks() {
        let router: Router = read(
            "rule: 0777\npriority: '0777'\nweight: 255\nratio: 1e3\nenabled: T\nlevel: debug\nport: 80\n\
             labels: {Yes: yes, n: 1.50}\n",
        )
        .unwrap();
        assert_eq!(router.rule, "0777");
        assert_eq!(router.priority, 777);
        assert_eq!(router.weight, Some(255));
        assert!((router.ratio - 1000.0).abs() < f64::EPSILON);
        assert!(router.enabled);
        assert_eq!(router.level, Level::Debug);
        assert_eq!(router.port, Some(Port(80)));
        assert_eq!(router.labels["Yes"], "yes");
        assert_eq!(router.labels["n"], "1.50");
    }

    #[test]
    fn booleans_are_those_of_go() {
        for (text, value) in [("1", true), ("TRUE", true), ("t", true), ("0", false), ("F", false)]
        {
            assert_eq!(read::<Router>(&format!("enabled: {text}\n")).unwrap().enabled, value);
        }
        for text in ["yes", "on", "tRUE", "''", "2"] {
            assert!(read::<Router>(&format!("enabled: {text}\n")).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_fields_have_no_case_and_names_in_maps_do() {
        let router: Router = read("ENTRYPOINTS: [Web]\nLabels: {A: x, a: y}\n").unwrap();
        assert_eq!(router.entry_points, ["Web"]);
        assert_eq!(router.labels.len(), 2);
    }

    #[test]
    fn every_unknown_option_is_reported_with_a_suggestion() {
        let errors = read::<Router>(
            "rul: x\nfoo: 1\ntls:\n  optoins: y\n  domains:\n    - main: x\n      san: z\n",
        )
        .unwrap_err();
        assert_eq!(
            errors,
            [
                "f.yml:1:1: error: unknown option `rul` (did you mean `rule`?)",
                "f.yml:2:1: error: unknown option `foo`",
                "f.yml:4:3: error: unknown option `optoins` in `tls` (did you mean `options`?)",
                "f.yml:7:7: error: unknown option `san` in `tls.domains[0]` (did you mean `sans`?)",
            ]
        );
    }

    #[test]
    fn every_wrong_value_is_reported_at_its_place() {
        let errors = read::<Router>(
            "priority: high\nweight: 256\nrule: [a]\nentryPoints: {web: x}\nlevel: Debug\nport: none\n\
             enabled: maybe\nfoo: 1\ntls: {domains: [{sans: [x]}]}\n",
        )
        .unwrap_err();
        assert_eq!(
            errors,
            [
                "f.yml:1:11: error: `priority`: expected a whole number from -2147483648 to \
                 2147483647, found `high`",
                "f.yml:2:9: error: `weight`: expected a whole number from 0 to 255, found `256`",
                "f.yml:3:1: error: `rule`: expected a text, found a list",
                "f.yml:4:1: error: `entryPoints`: expected a list, found a mapping",
                "f.yml:5:8: error: `level`: unknown value `Debug` (did you mean `debug`?)",
                "f.yml:6:7: error: `port`: `none` is no port",
                "f.yml:7:10: error: `enabled`: expected true or false, found `maybe`",
                "f.yml:8:1: error: unknown option `foo`",
                "f.yml:9:17: error: `tls.domains[0]`: `main` is required",
            ]
        );
    }

    #[test]
    fn a_required_field_that_is_wrong_is_reported_once() {
        let errors =
            read::<BTreeMap<String, Domain>>("a: {main: [x]}\nb: {sans: []}\nc: {main: }\n")
                .unwrap_err();
        assert_eq!(
            errors,
            [
                "f.yml:1:5: error: `a.main`: expected a text, found a list",
                "f.yml:2:1: error: `b`: `main` is required",
                "f.yml:3:1: error: `c`: `main` is required",
            ]
        );
    }

    #[test]
    fn repeated_options_that_differ_in_case_are_errors() {
        let errors = read::<Router>("rule: a\nRULE: b\n").unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(
            errors[0].starts_with("f.yml:2:1: error: `RULE` is already set as `rule`"),
            "{errors:?}"
        );
    }

    #[test]
    fn nothing_means_the_default() {
        let router: Router =
            read("tls:\nnested:\npriority:\nrule: ~\nweight: null\nentryPoints:\nlabels:\n  a:\n")
                .unwrap();
        assert_eq!(router.tls, Some(Tls::default()));
        assert_eq!(router, Router { tls: Some(Tls::default()), ..Router::default() });
        assert_eq!(router.nested.size, 7);
        assert_eq!(read::<Router>("tls: {}\n").unwrap().tls, Some(Tls::default()));
        assert_eq!(read::<Router>("").unwrap(), Router::default());
        assert!(read::<Router>("entryPoints: [a, ~]\n").is_err());
        assert_eq!(read::<Vec<Option<u8>>>("[1, ~]").unwrap(), [Some(1), None]);
    }

    #[test]
    fn many_empty_options_are_refused_rather_than_decoded_for_ever() {
        let text: String = (0..1000)
            .flat_map(|index| ["k".to_owned(), index.to_string(), ":\n".to_owned()])
            .collect();
        let errors = read::<BTreeMap<String, String>>(&text).unwrap_err();
        assert_eq!(errors.len(), 1);
        let text: String = text.replace('\n', " x\n");
        assert_eq!(read::<BTreeMap<String, u8>>(&text).unwrap_err().len(), ERROR_LIMIT);
    }

    #[test]
    fn a_section_may_be_a_single_word_if_it_may_be_absent() {
        for (text, there) in [
            ("tls: true\n", true),
            ("tls: ''\n", true),
            ("tls: 'TRUE'\n", true),
            ("tls: false\n", false),
        ] {
            assert_eq!(read::<Router>(text).unwrap().tls.is_some(), there, "{text}");
        }
        let errors = read::<Router>("nested: true\n").unwrap_err();
        assert!(errors[0].contains("cannot be a standalone element"), "{errors:?}");
        let errors = read::<Router>("tls: on\n").unwrap_err();
        assert!(errors[0].contains("expected `true`, `false` or options"), "{errors:?}");
        assert!(
            read::<Router>("tls: [a]\n").unwrap_err()[0].contains("expected options, found a list")
        );
        assert!(read::<Router>("just text").is_err());
    }

    #[test]
    fn a_section_may_be_a_single_word_elsewhere() {
        let tls =
            |value: &str| decode::<Router>(&labels(&[("tls", value)])).map(|router| router.tls);
        assert_eq!(tls("true").unwrap(), Some(Tls::default()));
        assert_eq!(tls("True").unwrap(), Some(Tls::default()));
        assert_eq!(tls("").unwrap(), Some(Tls::default()));
        assert_eq!(tls("false").unwrap(), None);
        assert_eq!(tls("0").unwrap(), None);
        assert!(tls("yes").is_err());
        let errors = decode::<Router>(&labels(&[("nested", "true")])).unwrap_err();
        assert!(errors[0].message.contains("standalone"));
    }

    #[test]
    fn lists_split_on_commas() {
        let router: Router = decode(&labels(&[("entrypoints", "web, websecure")])).unwrap();
        assert_eq!(router.entry_points, ["web", "websecure"]);
        let router = read::<Router>("entryPoints: web, websecure\n").unwrap();
        assert_eq!(router.entry_points, ["web", "websecure"]);
        let router = read::<Router>("entryPoints: ['web,x', websecure]\n").unwrap();
        assert_eq!(router.entry_points, ["web,x", "websecure"]);
        assert!(read::<Router>("entryPoints: ''\n").unwrap().entry_points.is_empty());
        let errors = lines(decode::<Vec<u8>>(labels(&[("a", "1,x,3")]).get("a").unwrap()));
        assert_eq!(
            errors.unwrap_err(),
            ["labels:1:7: error: `[1]`: expected a whole number from 0 to 255, found `x`"]
        );
    }

    #[test]
    fn lists_by_index() {
        let router: Router = decode(&labels(&[
            ("tls.domains[0].main", "a"),
            ("tls.domains[1].main", "b"),
            ("tls.domains[1].sans", "c,d"),
        ]))
        .unwrap();
        assert_eq!(router.tls.unwrap().domains[1].sans, ["c", "d"]);

        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables: Vec<_> = (0..12)
            .map(|index| variable(&format!("T_TLS_DOMAINS_{index}_MAIN"), &index.to_string()))
            .collect();
        let router: Router = decode(&from_environment(&variables, "T_").unwrap()).unwrap();
        let mains: Vec<_> =
            router.tls.unwrap().domains.into_iter().map(|domain| domain.main).collect();
        assert_eq!(mains[10], "10");
        let gap = from_environment(&variables[1..], "T_").unwrap();
        assert!(decode::<Router>(&gap).unwrap_err()[0].message.contains("item 0 is missing"));
        let errors = read::<Router>("tls: {domains: {'0': {main: x}}}\n").unwrap_err();
        assert!(errors[0].contains("expected a list, found a mapping"), "{errors:?}");
    }

    #[test]
    fn flags_decode_with_kinds_from_the_type() {
        let arguments: Vec<String> =
            ["--tls", "--enabled", "--ENTRYPOINTS=a", "--entrypoints", "b,c"]
                .map(str::to_owned)
                .into();
        let node = from_flags(&arguments, &flag_kind::<Router>).unwrap();
        let router: Router = decode(&node).unwrap();
        assert!(router.enabled && router.tls.is_some());
        assert_eq!(router.entry_points, ["a", "b", "c"]);

        let arguments: Vec<String> = ["--entrypoint=a", "--enabled=x"].map(str::to_owned).into();
        let node = from_flags(&arguments, &flag_kind::<Router>).unwrap();
        assert_eq!(
            lines(decode::<Router>(&node)).unwrap_err(),
            [
                "flags:1:3: error: unknown option `entrypoint` (did you mean `entryPoints`?)",
                "flags:2:11: error: `enabled`: expected true or false, found `x`",
            ]
        );
    }

    #[test]
    fn choices_are_mappings_with_one_name() {
        assert_eq!(
            read::<Middleware>("ADDPREFIX: {prefix: /x}\n").unwrap(),
            Middleware::AddPrefix(Prefix { prefix: "/x".to_owned() })
        );
        assert_eq!(
            read::<Middleware>("compress:\n").unwrap(),
            Middleware::Compress(Nested { size: 7 })
        );
        assert_eq!(
            read::<Middleware>("retry: {attempts: 3}").unwrap(),
            Middleware::Retry { attempts: 3 }
        );
        assert_eq!(read::<Middleware>("buffering: {}").unwrap(), Middleware::Buffering);
        assert_eq!(
            decode::<Middleware>(&labels(&[("compress", "true")])).unwrap(),
            Middleware::Compress(Nested { size: 7 })
        );
        let errors = read::<BTreeMap<String, Middleware>>(
            "a: {compres: {}}\nb: {retry: {}, compress: {}}\n",
        )
        .unwrap_err();
        assert_eq!(
            errors,
            [
                "f.yml:1:5: error: `a`: unknown value `compres` (did you mean `compress`?)",
                "f.yml:2:1: error: `b`: expected one option, found 2 \
                 (write one of: addPrefix, compress, retry, buffering)",
            ]
        );
    }

    #[test]
    fn secrets_are_not_repeated() {
        let node = yaml("clientSecret: hunter2\nusers: ['bob:hunter3']\nclientSecre: hunter4\n");
        let errors = decode::<Router>(&node).unwrap_err();
        assert_eq!(errors.len(), 3);
        for error in &errors {
            assert!(error.secret, "{error}");
            let text =
                error.one_line() + &error.render(false) + &serde_json::to_string(error).unwrap();
            assert!(!text.contains("hunter"), "{text}");
        }
        assert!(errors[0].message.starts_with("`clientSecret`: the value is not valid"));
    }

    #[test]
    fn raw_nodes_and_ignored_values() {
        let map: BTreeMap<String, Node> = read("a: {b: 1}\nc: [x]\n").unwrap();
        assert_eq!(map["a"].get("b").unwrap().text(), Some("1"));
        assert_eq!(map["c"].items()[0].span.line_column(), (2, 5));
        assert!(read::<IgnoredAny>("a: [1, {b: c}]").is_ok());
        assert!(serde_json::from_str::<Node>("{}").is_err());
        let option: BTreeMap<String, Option<Node>> = read("a: 1").unwrap();
        assert!(option["a"].is_some());
    }

    #[test]
    fn generic_values_lose_nothing() {
        let value: serde_json::Value =
            read("a: 1\nb: -2.5\nc: true\nd: '1'\ne: 0777\nf: 1.50\ng: ~\nh: [x]\ni: yes\n")
                .unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "a": 1, "b": -2.5, "c": true, "d": "1", "e": "0777", "f": "1.50", "g": null,
                "h": ["x"], "i": "yes"
            })
        );
    }

    #[test]
    fn the_three_formats_say_the_same() {
        let from = |name: &str, text: &str, format| {
            decode::<Router>(&parse(&Source::new(name, text, format)).unwrap()).unwrap()
        };
        let yaml =
            from("f.yml", "rule: r\npriority: 3\ntls: {domains: [{main: m}]}\n", Format::Yaml);
        let toml =
            from("f.toml", "rule = 'r'\npriority = 3\n[[tls.domains]]\nmain = 'm'\n", Format::Toml);
        let json = from(
            "f.json",
            r#"{"rule":"r","priority":3,"tls":{"domains":[{"main":"m"}]}}"#,
            Format::Json,
        );
        assert_eq!(yaml, toml);
        assert_eq!(yaml, json);
    }

    fn exercise(text: &str) {
        for (name, format) in
            [("f.yml", Format::Yaml), ("f.toml", Format::Toml), ("f.json", Format::Json)]
        {
            let errors = match parse(&Source::new(name, text, format)) {
                Ok(node) => {
                    assert!(node.same_as(&node.clone()));
                    let value = decode::<serde_json::Value>(&node).map(drop).err();
                    let router = decode::<Router>(&node).map(drop).err();
                    value.into_iter().chain(router).flatten().collect()
                }
                Err(errors) => {
                    assert!(!errors.is_empty());
                    errors
                }
            };
            for error in errors {
                assert!(!error.one_line().contains('\n'));
                assert!(!error.render(false).is_empty());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_text_panics(text in any::<String>()) {
            exercise(&text);
        }

        #[test]
        fn no_text_of_configuration_signs_panics(
            text in "([ \\t\\r\\n{}\\[\\],:'\"|>&*#=.~é-]|rule|tls|domains|main|<<: |- |a: |x|1){0,60}"
        ) {
            exercise(&text);
        }

        #[test]
        fn no_path_panics(list in proptest::collection::vec(("[a-cA-C.\\[\\]0-2_é]{0,12}", "[a-z,= ]{0,5}"), 0..8)) {
            let pairs: Vec<(String, String)> =
                list.iter().map(|(path, value)| (format!("T.{path}"), value.clone())).collect();
            let flags: Vec<String> = list.iter().map(|(path, value)| format!("--{path}={value}")).collect();
            let variables: Vec<(String, String)> =
                list.iter().map(|(path, value)| (format!("T_{path}"), value.clone())).collect();
            for result in [
                from_labels(&pairs, "t", '.', "labels"),
                from_flags(&flags, &flag_kind::<Router>),
                from_environment(&variables, "T_"),
            ] {
                match result {
                    Ok(node) => drop(decode::<serde_json::Value>(&node)),
                    Err(errors) => prop_assert!(!errors.iter().any(|error| error.render(false).is_empty())),
                }
            }
        }
    }
}
