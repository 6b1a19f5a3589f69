//! What kind of flag a path is, asked of the type itself: a deserializer that walks down one path
//! and notes what the type at its end wants. So no table of flags can go stale.

use std::cell::Cell;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::FlagKind;

/// The kind of the option at a dotted path (`entrypoints.web.http.tls.domains[0].main`) below a
/// configuration type, compared without regard to case.
pub fn flag_kind<T: DeserializeOwned>(path: &str) -> FlagKind {
    let steps: Vec<&str> =
        path.split(['.', '[']).map(|step| step.strip_suffix(']').unwrap_or(step)).collect();
    let found = Cell::new(FlagKind::Unknown);
    // The walk always ends in an error: no value is ever made.
    let _ = T::deserialize(Probe { steps: &steps, found: &found });
    found.get()
}

#[derive(Clone, Copy)]
struct Probe<'a> {
    steps: &'a [&'a str],
    found: &'a Cell<FlagKind>,
}

impl<'a> Probe<'a> {
    fn end<T>(&self, kind: FlagKind) -> Result<T, Error> {
        if self.steps.is_empty() {
            self.found.set(kind);
        }
        Err(Error::custom("the walk is over"))
    }

    fn step(&self) -> Option<(&'a str, Self)> {
        let (first, rest) = self.steps.split_first()?;
        Some((first, Self { steps: rest, found: self.found }))
    }

    fn known(name: &str, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|known| known.eq_ignore_ascii_case(name))
    }
}

macro_rules! ends {
    ($($method:ident $kind:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
            self.end(FlagKind::$kind)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    ends! {
        deserialize_any Value, deserialize_bool Switch, deserialize_i8 Value,
        deserialize_i16 Value, deserialize_i32 Value, deserialize_i64 Value,
        deserialize_i128 Value, deserialize_u8 Value, deserialize_u16 Value,
        deserialize_u32 Value, deserialize_u64 Value, deserialize_u128 Value,
        deserialize_f32 Value, deserialize_f64 Value, deserialize_char Value,
        deserialize_str Value, deserialize_string Value, deserialize_bytes Value,
        deserialize_byte_buf Value, deserialize_unit Switch, deserialize_identifier Value,
        deserialize_ignored_any Value,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _visitor: V,
    ) -> Result<V::Value, Error> {
        self.end(FlagKind::Switch)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == super::decode::NODE_NAME {
            self.found.set(FlagKind::Value);
            return Err(Error::custom("the walk is over"));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.step() {
            Some((index, rest)) if index.parse::<usize>().is_ok() => visitor.visit_seq(One(rest)),
            _ => self.end(FlagKind::List),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.step() {
            Some((name, rest)) => visitor.visit_map(Named { name, value: rest, done: false }),
            None => self.end(FlagKind::Value),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Some((name, rest)) = self.step() else { return self.end(FlagKind::Switch) };
        let Some(name) = Self::known(name, fields) else { return self.end(FlagKind::Unknown) };
        visitor.visit_map(Named { name, value: rest, done: false })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Some((name, rest)) = self.step() else { return self.end(FlagKind::Value) };
        let Some(name) = Self::known(name, variants) else { return self.end(FlagKind::Unknown) };
        visitor.visit_enum(Named { name, value: rest, done: false })
    }
}

/// One name with what is below it.
struct Named<'a> {
    name: &'a str,
    value: Probe<'a>,
    done: bool,
}

impl<'de> MapAccess<'de> for Named<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.value)
    }
}

impl<'de> EnumAccess<'de> for Named<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Named<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.value.end(FlagKind::Switch)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.value.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_struct("", fields, visitor)
    }
}

/// The one item of a list that the path goes through.
struct One<'a>(Probe<'a>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        seed.deserialize(self.0).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::super::Node;
    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its shape is asked for")]
    struct Config {
        entry_points: BTreeMap<String, EntryPoint>,
        ping: Option<Ping>,
        choice: Option<Choice>,
        plugin: BTreeMap<String, Node>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape is asked for")]
    struct EntryPoint {
        address: String,
        domains: Vec<Ping>,
        names: Option<Vec<String>>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its shape is asked for")]
    struct Ping {
        manual_routing: Option<bool>,
        port: u16,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its shape is asked for")]
    enum Choice {
        AddPrefix(Ping),
        Other,
    }

    #[test]
    fn the_type_says_what_a_flag_takes() {
        let cases = [
            ("ping", FlagKind::Switch),
            ("PING.manualrouting", FlagKind::Switch),
            ("ping.port", FlagKind::Value),
            ("ping.port.x", FlagKind::Unknown),
            ("entrypoints.web.address", FlagKind::Value),
            ("entrypoints.web.domains", FlagKind::List),
            ("entrypoints.web.domains[0].manualrouting", FlagKind::Switch),
            ("entrypoints.web.domains[x].port", FlagKind::Unknown),
            ("entrypoints.web.names", FlagKind::List),
            ("entrypoints.web.names[1]", FlagKind::Value),
            ("entrypoints.web.nothing", FlagKind::Unknown),
            ("choice.addprefix", FlagKind::Switch),
            ("choice.addprefix.port", FlagKind::Value),
            ("plugin.x.any.thing", FlagKind::Value),
            ("pong", FlagKind::Unknown),
            ("", FlagKind::Unknown),
            ("..[[", FlagKind::Unknown),
        ];
        for (path, kind) in cases {
            assert_eq!(flag_kind::<Config>(path), kind, "{path}");
        }
    }
}
