//! The deserializer over one node. The type that asks decides what a scalar means; what a bare
//! word or a comma may stand for depends on whether the source is a file.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, IntoDeserializer, Visitor};

use super::access::{Choice, Fields, Items, Pairs};
use super::decode::{Context, Failure, NODE_NAME, Place, Verdict, address, hand_over, numbered};
use super::dotted::split_commas;
use super::{Node, Span, Value, is_secret};

/// One node on its way into a type, with the way that led to it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) node: &'a Node,
    pub(super) cx: &'a Context,
    /// The address of the node, or of the list that a piece was cut from.
    pub(super) id: usize,
    pub(super) link: Option<&'a Link<'a>>,
    /// The type is an `Option`, so that `false` may switch the section off.
    optional: bool,
    /// A bare `true` may stand for the whole section.
    standalone: bool,
}

/// One step from the root to a node.
pub(super) struct Link<'a> {
    pub(super) parent: Option<&'a Link<'a>>,
    pub(super) step: Step<'a>,
}

/// The name or index of a step.
pub(super) enum Step<'a> {
    Name(&'a str, &'a Span),
    Index(usize),
}

impl<'a> Reader<'a> {
    pub(super) fn root(node: &'a Node, cx: &'a Context) -> Self {
        let id = address(node);
        Self { node, cx, id, link: None, optional: false, standalone: false }
    }

    /// The reader of a child. `id` is given for pieces of a list that are no nodes of the tree.
    pub(super) fn child(&self, node: &'a Node, link: &'a Link<'a>, id: Option<usize>) -> Self {
        let id = id.unwrap_or_else(|| address(node));
        Self { node, cx: self.cx, id, link: Some(link), optional: false, standalone: false }
    }

    /// The same place, with another node to point at.
    pub(super) fn with_node(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    /// The same, where a bare `true` may stand for the whole section.
    pub(super) fn standalone(self) -> Self {
        Self { standalone: true, ..self }
    }

    /// Says where a failure happened, unless it is already known.
    pub(super) fn locate(&self, mut failure: Failure) -> Failure {
        if failure.is_placed() {
            return failure;
        }
        let missing = failure.missing();
        if let Some(field) = missing
            && let Some(entry) = self.node.entry(field)
            && self.cx.verdicts.get(&address(&entry.value)) == Some(&Verdict::Broken)
        {
            failure.follows_from_broken();
        }
        // Of a whole object its name is shown rather than its first line.
        let whole = missing.is_some()
            || matches!(self.node.value, Value::Null | Value::Mapping(_) | Value::Sequence(_));
        let span = match self.link {
            Some(Link { step: Step::Name(_, span), .. }) if whole => *span,
            _ => &self.node.span,
        };
        let place = Place { id: self.id, span: span.clone(), secret: self.is_secret() };
        failure.placed(place, &self.path())
    }

    /// The dotted path of this node below the root.
    pub(super) fn path(&self) -> String {
        let mut steps = Vec::new();
        let mut link = self.link;
        while let Some(Link { parent, step }) = link {
            steps.push(step);
            link = *parent;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Name(name, _) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Step::Index(index) => {
                    let _ = write!(path, "[{index}]");
                }
            }
        }
        path
    }

    /// True when the last name on the way here is that of a secret.
    pub(super) fn is_secret(&self) -> bool {
        let mut link = self.link;
        while let Some(Link { parent, step }) = link {
            if let Step::Name(name, _) = step {
                return is_secret(name);
            }
            link = *parent;
        }
        false
    }

    fn is_file(&self) -> bool {
        self.node.span.source.format.is_file()
    }

    fn fail<T>(&self, failure: Failure) -> Result<T, Failure> {
        Err(self.locate(failure))
    }

    fn mismatch<T>(&self, expected: &str) -> Result<T, Failure> {
        let found = self.node.describe();
        self.fail(Failure::invalid(format!("expected {expected}, found {found}")))
    }

    /// The text of a scalar. Nothing at all means that a field keeps its default.
    fn scalar(&self, expected: &str) -> Result<&'a str, Failure> {
        match &self.node.value {
            Value::Scalar(scalar) => Ok(&scalar.text),
            Value::Null => match self.link.map(|link| &link.step) {
                Some(Step::Name(..)) => self.fail(Failure::retry(Verdict::Skip)),
                Some(Step::Index(_)) if self.optional => self.fail(Failure::retry(Verdict::None)),
                _ => self.mismatch(expected),
            },
            Value::Sequence(_) | Value::Mapping(_) => self.mismatch(expected),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, expected: &str) -> Result<T, Failure> {
        let text = self.scalar(expected)?;
        match text.parse() {
            Ok(value) => Ok(value),
            Err(_) => self.fail(Failure::invalid(format!("expected {expected}, found `{text}`"))),
        }
    }

    fn boolean(&self) -> Result<bool, Failure> {
        let text = self.scalar("true or false")?;
        match go_bool(text) {
            Some(value) => Ok(value),
            None => self.fail(Failure::invalid(format!("expected true or false, found `{text}`"))),
        }
    }

    fn float(&self) -> Result<f64, Failure> {
        let value: f64 = self.parsed("a number")?;
        if value.is_finite() { Ok(value) } else { self.mismatch("a finite number") }
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let items: Cow<'_, [Node]> = match &self.node.value {
            Value::Sequence(items) => Cow::Borrowed(items),
            Value::Null => Cow::Borrowed(&[]),
            // Traefik cuts a text at its commas in files too, in spite of what its documentation shows.
            Value::Scalar(_) => {
                let pieces = split_commas(self.node);
                let items = Items::cut(self, &pieces);
                return visitor.visit_seq(items).map_err(|failure| self.locate(failure));
            }
            Value::Mapping(_) => {
                let Some(items) = numbered(self.node).filter(|_| !self.is_file()) else {
                    return self.mismatch("a list");
                };
                let gap = items.iter().enumerate().find(|(at, (index, _))| at != index);
                if let Some((at, _)) = gap {
                    let message = format!("item {at} is missing: indexes have no gaps");
                    return self.fail(Failure::invalid(message));
                }
                let nodes: Vec<&Node> = items.into_iter().map(|(_, node)| node).collect();
                let items = Items::numbered(self, nodes);
                return visitor.visit_seq(items).map_err(|failure| self.locate(failure));
            }
        };
        visitor.visit_seq(Items::new(self, &items)).map_err(|failure| self.locate(failure))
    }

    fn names<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Mapping(_) | Value::Null => {}
            Value::Scalar(scalar) if scalar.text.is_empty() && !self.is_file() => {}
            _ => return self.mismatch("names with values"),
        }
        visitor.visit_map(Pairs::new(self)).map_err(|failure| self.locate(failure))
    }

    fn section<'de, V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Mapping(_) | Value::Null => {}
            Value::Scalar(scalar) => self.bare(&scalar.text)?,
            Value::Sequence(_) => return self.mismatch("options"),
        }
        visitor.visit_map(Fields::new(self, fields)).map_err(|failure| self.locate(failure))
    }

    /// A section written as a single word: `--ping`, `--providers.docker=false`, `tls: true`.
    fn bare(&self, text: &str) -> Result<(), Failure> {
        let allowed = self.optional || self.standalone && !self.is_file();
        if !allowed {
            let failure = Failure::invalid("cannot be a standalone element")
                .with_help("write its options below it, or `{}` for the defaults");
            return self.fail(failure);
        }
        if text.is_empty() || text.eq_ignore_ascii_case("true") {
            return Ok(());
        }
        // Traefik takes every other word for "off", which hides mistakes.
        if go_bool(text) == Some(false) && self.optional {
            return self.fail(Failure::retry(Verdict::None));
        }
        let message = format!("expected `true`, `false` or options of its own, found `{text}`");
        self.fail(Failure::invalid(message))
    }
}

/// The words Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

macro_rules! numbers {
    ($($method:ident, $visit:ident, $number:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            // Bounds that nobody reaches explain nothing.
            let expected = if size_of::<$number>() > 4 {
                let negative = <$number>::MIN != 0;
                let any = if negative { "a whole number" } else { "a whole number from 0 on" };
                any.to_owned()
            } else {
                format!("a whole number from {} to {}", <$number>::MIN, <$number>::MAX)
            };
            let number: $number = self.parsed(&expected)?;
            visitor.$visit(number).map_err(|failure| self.locate(failure))
        }
    )*};
}

macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            let text = self.scalar("a text")?;
            visitor.visit_str(text).map_err(|failure| self.locate(failure))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Failure;

    numbers! {
        deserialize_i8, visit_i8, i8;
        deserialize_i16, visit_i16, i16;
        deserialize_i32, visit_i32, i32;
        deserialize_i64, visit_i64, i64;
        deserialize_i128, visit_i128, i128;
        deserialize_u8, visit_u8, u8;
        deserialize_u16, visit_u16, u16;
        deserialize_u32, visit_u32, u32;
        deserialize_u64, visit_u64, u64;
        deserialize_u128, visit_u128, u128;
    }

    texts!(deserialize_str deserialize_string deserialize_identifier);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let scalar = match &self.node.value {
            Value::Null => return visitor.visit_unit().map_err(|failure| self.locate(failure)),
            Value::Sequence(_) => return self.list(visitor),
            Value::Mapping(_) => return self.names(visitor),
            Value::Scalar(scalar) => scalar,
        };
        let text = &*scalar.text;
        let same = |written: String| written == text;
        let visited = match text {
            _ if scalar.quoted => visitor.visit_str(text),
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            // A number only where nothing is lost: `0777` and `1.50` stay text.
            _ => match (text.parse::<i64>(), text.parse::<u64>(), text.parse::<f64>()) {
                (Ok(number), ..) if same(number.to_string()) => visitor.visit_i64(number),
                (_, Ok(number), _) if same(number.to_string()) => visitor.visit_u64(number),
                (.., Ok(number)) if number.is_finite() && same(number.to_string()) => {
                    visitor.visit_f64(number)
                }
                _ => visitor.visit_str(text),
            },
        };
        visited.map_err(|failure| self.locate(failure))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_bool(self.boolean()?).map_err(|failure| self.locate(failure))
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_f64(self.float()?).map_err(|failure| self.locate(failure))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_f64(self.float()?).map_err(|failure| self.locate(failure))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let character = self.parsed("a single character")?;
        visitor.visit_char(character).map_err(|failure| self.locate(failure))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let text = self.scalar("a text")?;
        visitor.visit_bytes(text.as_bytes()).map_err(|failure| self.locate(failure))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.cx.verdicts.get(&self.id) == Some(&Verdict::None) {
            return visitor.visit_none();
        }
        visitor.visit_some(Self { optional: true, ..self }).map_err(|failure| self.locate(failure))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.node.is_empty() { visitor.visit_unit() } else { self.mismatch("nothing") }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if let Value::Scalar(scalar) = &self.node.value {
            self.bare(&scalar.text)?;
        } else if !self.node.is_empty() {
            return self.mismatch("nothing");
        }
        visitor.visit_unit().map_err(|failure| self.locate(failure))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if name == NODE_NAME {
            return hand_over(self.node, visitor);
        }
        visitor.visit_newtype_struct(self).map_err(|failure| self.locate(failure))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.names(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.section(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let visited = if let Value::Mapping(entries) = &self.node.value {
            let [entry] = entries.as_slice() else {
                let failure =
                    Failure::invalid(format!("expected one option, found {}", entries.len()))
                        .with_help(format!("write one of: {}", variants.join(", ")));
                return self.fail(failure);
            };
            visitor.visit_enum(Choice::new(self, entry, variants))
        } else {
            let text = self.scalar("a word")?;
            let word: StrDeserializer<'_, Failure> = text.into_deserializer();
            visitor.visit_enum(word)
        };
        visited.map_err(|failure| self.locate(failure))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }
}
