//! How serde walks the members of a node: the fields of a section, the pairs of a map, the items
//! of a list, the one option of a choice. Members that an earlier pass gave up are passed over.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::decode::{Failure, address, suggestion};
use super::reader::{Link, Reader, Step};
use super::{Entry, Node, is_secret};
use crate::config::diagnostics::Diagnostic;

/// The fields of a struct: names match without regard to case, unknown and repeated ones are
/// noted and passed over.
pub(super) struct Fields<'a> {
    reader: Reader<'a>,
    known: &'static [&'static str],
    rest: &'a [Entry],
    seen: Vec<(&'static str, &'a Entry)>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(reader: Reader<'a>, fields: &'static [&'static str]) -> Self {
        Self { reader, known: fields, rest: reader.node.entries(), seen: Vec::new() }
    }

    fn unknown(&self, entry: &Entry) {
        let path = self.reader.path();
        let message = if path.is_empty() {
            format!("unknown option `{}`", entry.key)
        } else {
            format!("unknown option `{}` in `{path}`", entry.key)
        };
        let mut note = Diagnostic::error(message).at(&entry.key_span);
        note.help = suggestion(&entry.key, self.known);
        // A misspelt password is a password.
        note.secret = note.help.as_deref().is_some_and(|help| help.starts_with("did"))
            && note.help.as_deref().is_some_and(is_secret);
        self.note(entry, note);
    }

    fn repeated(&self, entry: &Entry, first: &Entry) {
        let message = format!("`{}` is already set as `{}`", entry.key, first.key);
        let help = format!("the first one stands at {}", first.key_span);
        self.note(entry, Diagnostic::error(message).at(&entry.key_span).help(help));
    }

    fn note(&self, entry: &Entry, note: Diagnostic) {
        self.reader.cx.notes.borrow_mut().insert(address(&entry.value), note);
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        while let Some(entry) = self.rest.first() {
            let key = &*entry.key;
            let Some(field) = self.known.iter().find(|field| field.eq_ignore_ascii_case(key))
            else {
                self.unknown(entry);
                self.rest = self.rest.get(1..).unwrap_or_default();
                continue;
            };
            let first = self.seen.iter().find(|(seen, _)| seen == field).map(|(_, first)| *first);
            if let Some(first) = first {
                self.repeated(entry, first);
            } else {
                self.seen.push((field, entry));
                if !self.reader.cx.skips(address(&entry.value)) {
                    let field: StrDeserializer<'_, Failure> = (*field).into_deserializer();
                    return seed.deserialize(field).map(Some);
                }
            }
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        take_value(&self.reader, &mut self.rest, seed)
    }
}

/// The pairs of a map, whose names keep their case.
pub(super) struct Pairs<'a> {
    reader: Reader<'a>,
    rest: &'a [Entry],
}

impl<'a> Pairs<'a> {
    pub(super) fn new(reader: Reader<'a>) -> Self {
        Self { reader, rest: reader.node.entries() }
    }
}

impl<'de> MapAccess<'de> for Pairs<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        while let Some(entry) = self.rest.first() {
            if self.reader.cx.skips(address(&entry.value)) {
                self.rest = self.rest.get(1..).unwrap_or_default();
                continue;
            }
            // A name is read like any text, so that typed names get errors with a place too.
            let name = Node::scalar(entry.key.clone(), entry.key_span.clone());
            let link = link(&self.reader, entry);
            let reader = self.reader.child(&name, &link, Some(address(&entry.value)));
            let key = seed.deserialize(reader).map_err(|failure| reader.locate(failure));
            return key.map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        take_value(&self.reader, &mut self.rest, seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

fn link<'a>(reader: &Reader<'a>, entry: &'a Entry) -> Link<'a> {
    Link { parent: reader.link, step: Step::Name(&entry.key, &entry.key_span) }
}

fn take_value<'de, V: DeserializeSeed<'de>>(
    reader: &Reader<'_>,
    rest: &mut &[Entry],
    seed: V,
) -> Result<V::Value, Failure> {
    let Some((entry, others)) = rest.split_first() else {
        return Err(Failure::invalid("a value was asked for before its name"));
    };
    *rest = others;
    let link = link(reader, entry);
    let child = reader.child(&entry.value, &link, None);
    seed.deserialize(child).map_err(|failure| child.locate(failure))
}

/// The items of a list.
pub(super) struct Items<'a> {
    reader: Reader<'a>,
    list: List<'a>,
    next: usize,
    /// Pieces of a text are no nodes of the tree: what is wrong with one is wrong with the list.
    cut: bool,
}

enum List<'a> {
    Plain(&'a [Node]),
    Numbered(Vec<&'a Node>),
}

impl<'a> Items<'a> {
    pub(super) fn new(reader: Reader<'a>, items: &'a [Node]) -> Self {
        Self { reader, list: List::Plain(items), next: 0, cut: false }
    }

    /// Pieces that were cut from the reader's own text.
    pub(super) fn cut(reader: Reader<'a>, pieces: &'a [Node]) -> Self {
        Self { reader, list: List::Plain(pieces), next: 0, cut: true }
    }

    /// Children that are named by their index.
    pub(super) fn numbered(reader: Reader<'a>, nodes: Vec<&'a Node>) -> Self {
        Self { reader, list: List::Numbered(nodes), next: 0, cut: false }
    }

    fn get(&self, index: usize) -> Option<&'a Node> {
        match &self.list {
            List::Plain(items) => items.get(index),
            List::Numbered(nodes) => nodes.get(index).copied(),
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Failure> {
        while let Some(node) = self.get(self.next) {
            let index = self.next;
            self.next += 1;
            if !self.cut && self.reader.cx.skips(address(node)) {
                continue;
            }
            let link = Link { parent: self.reader.link, step: Step::Index(index) };
            let id = if self.cut { self.reader.id } else { address(node) };
            let child = self.reader.child(node, &link, Some(id));
            return seed.deserialize(child).map(Some).map_err(|failure| child.locate(failure));
        }
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        let length = match &self.list {
            List::Plain(items) => items.len(),
            List::Numbered(nodes) => nodes.len(),
        };
        Some(length.saturating_sub(self.next))
    }
}

/// An enum written as a mapping with one name, the variant, which matches without regard to case.
pub(super) struct Choice<'a> {
    reader: Reader<'a>,
    entry: &'a Entry,
    variants: &'static [&'static str],
}

impl<'a> Choice<'a> {
    pub(super) fn new(
        reader: Reader<'a>,
        entry: &'a Entry,
        variants: &'static [&'static str],
    ) -> Self {
        Self { reader, entry, variants }
    }

    fn with_child<T>(
        &self,
        read: impl FnOnce(Reader<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let link = link(&self.reader, self.entry);
        let child = self.reader.child(&self.entry.value, &link, None).standalone();
        read(child).map_err(|failure| child.locate(failure))
    }
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let written = &*self.entry.key;
        let known = self.variants.iter().find(|variant| variant.eq_ignore_ascii_case(written));
        let name = known.copied().unwrap_or(written);
        let word: StrDeserializer<'_, Failure> = name.into_deserializer();
        match seed.deserialize(word) {
            Ok(variant) => Ok((variant, self)),
            Err(failure) => {
                let name = Node::scalar(written, self.entry.key_span.clone());
                Err(self.reader.with_node(&name).locate(failure))
            }
        }
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        self.with_child(|child| {
            if child.node.is_empty() {
                Ok(())
            } else {
                Err(Failure::invalid(format!("expected nothing, found {}", child.node.describe())))
            }
        })
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        self.with_child(|child| seed.deserialize(child))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failure> {
        self.with_child(|child| serde::Deserializer::deserialize_seq(child, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.with_child(|child| serde::Deserializer::deserialize_struct(child, "", fields, visitor))
    }
}
