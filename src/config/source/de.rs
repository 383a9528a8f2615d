//! Feeds a tree to serde, so that its errors have the path to the value.

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error, Expected, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
        value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    fault::{Fault, What},
    files::Files,
    tree::{Key, Kind, Node},
};
use crate::ports::access::SecretUrl;

/// What serde calls a `PathBuf`.
const PATH: &str = "path string";

#[derive(Clone, Copy)]
pub(super) struct De<'a> {
    pub(super) node: &'a Node,
    pub(super) files: &'a Files,
}

enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

fn number(text: &str) -> Option<Number> {
    let unsigned = match text.get(..2) {
        Some("0x") => u64::from_str_radix(&text[2..], 16).ok(),
        Some("0o") => u64::from_str_radix(&text[2..], 8).ok(),
        _ => text.strip_prefix('+').unwrap_or(text).parse().ok(),
    };
    let float = || match text.trim_start_matches(['+', '-']) {
        ".inf" | ".Inf" | ".INF" => Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        ".nan" | ".NaN" | ".NAN" => Some(f64::NAN),
        // Rust also parses words: `inf`, `nan`, `infinity`.
        digits if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => text.parse().ok(),
        _ => None,
    };
    unsigned
        .map(Number::Unsigned)
        .or_else(|| text.parse().ok().map(Number::Signed))
        .or_else(|| float().map(Number::Float))
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

fn not(wanted: &dyn Expected) -> Fault {
    Fault::new(What::Not(wanted.to_string()))
}

impl De<'_> {
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let wanted = not(&visitor);
        match &self.node.kind {
            Kind::Hole => visitor.visit_u64(0),
            Kind::Plain(text) => match number(text) {
                Some(Number::Unsigned(value)) => visitor.visit_u64(value),
                Some(Number::Signed(value)) => visitor.visit_i64(value),
                Some(Number::Float(value)) => visitor.visit_f64(value),
                None => Err(wanted),
            },
            _ => Err(wanted),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let wanted = (&visitor as &dyn Expected).to_string();
        match &self.node.kind {
            Kind::Hole => visitor.visit_str(""),
            Kind::Blank => visitor.visit_none(),
            Kind::Plain(_) if self.node.is_null() => Err(not(&visitor)),
            Kind::Plain(text) | Kind::Quoted(text) if wanted == PATH => {
                self.files.found.borrow_mut().insert(self.node.place);
                match self.files.resolve(text).into_os_string().into_string() {
                    Ok(path) => visitor.visit_string(path),
                    Err(_) => Err(Fault::custom("is relative to a directory whose name is not UTF-8")),
                }
            }
            Kind::Plain(text) | Kind::Quoted(text) => {
                if wanted == SecretUrl::EXPECTED {
                    self.files.secret_urls.borrow_mut().insert(self.node.place);
                }
                visitor.visit_str(text)
            }
            _ => Err(not(&visitor)),
        }
        .map_err(|fault| fault.meant(&wanted))
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Hole => visitor.visit_seq(Items { nodes: &[], next: 0, files: self.files }),
            Kind::List(items) => visitor.visit_seq(Items { nodes: items, next: 0, files: self.files }),
            _ => Err(not(&"a list")),
        }
    }

    fn map<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.map_of(&[], visitor)
    }

    fn map_of<'de, V: Visitor<'de>>(self, known: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Hole => visitor.visit_map(Entries { pairs: &[], known, next: 0, files: self.files }),
            Kind::Map(entries) => visitor.visit_map(Entries { pairs: entries, known, next: 0, files: self.files }),
            _ => Err(not(&"a mapping")),
        }
    }
}

macro_rules! as_ {
    ($what:ident: $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> { self.$what(visitor) })*
    };
}

impl<'de> Deserializer<'de> for De<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Hole => visitor.visit_unit(),
            Kind::Blank => visitor.visit_str(""),
            Kind::Plain(_) if self.node.is_null() => visitor.visit_unit(),
            Kind::Plain(text) if matches!(text.as_str(), "true" | "false") => visitor.visit_bool(text == "true"),
            Kind::Plain(text) if number(text).is_some() => self.number(visitor),
            Kind::Plain(_) | Kind::Quoted(_) => self.text(visitor),
            Kind::List(_) => self.list(visitor),
            Kind::Map(_) => self.map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Hole => visitor.visit_bool(false),
            Kind::Plain(text) => match truth(text) {
                Some(value) => visitor.visit_bool(value),
                None => Err(not(&visitor)),
            },
            _ => Err(not(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Hole => visitor.visit_none(),
            _ if self.node.is_null() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.map_of(known, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Hole => {
                let first: StrDeserializer<'_, Fault> = known.first().copied().unwrap_or_default().into_deserializer();
                visitor.visit_enum(first)
            }
            Kind::Plain(text) | Kind::Quoted(text) => {
                let word: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                // A known word that needs a value after it is wrong, too.
                visitor.visit_enum(word).map_err(|_| Fault::new(What::Word(known)))
            }
            Kind::Map(entries) => match entries.as_slice() {
                [(key, value)] => {
                    visitor.visit_enum(Variant { key, value: De { node: value, files: self.files }, known })
                }
                _ => Err(Fault::new(What::Word(known))),
            },
            Kind::List(_) | Kind::Blank => Err(Fault::new(What::Word(known))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    as_!(number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64);
    as_!(text: deserialize_char deserialize_str deserialize_string deserialize_identifier);
    as_!(list: deserialize_seq);
    as_!(map: deserialize_map);

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.list(visitor)
    }

    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit unit_struct tuple_struct }
}

struct Items<'a> {
    nodes: &'a [Node],
    next: usize,
    files: &'a Files,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let index = self.next;
        self.next += 1;
        let item = self.nodes.get(index).map(|node| De { node, files: self.files });
        item.map(|item| seed.deserialize(item).map_err(|fault| fault.within(index))).transpose()
    }
}

struct Entries<'a> {
    pairs: &'a [(Key, Node)],
    /// Of these keys, one without a value has its default.
    known: &'static [&'static str],
    next: usize,
    files: &'a Files,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let is_unset = |(key, node): &&(Key, Node)| node.is_null() && self.known.contains(&key.name.as_str());
        self.next += self.pairs.iter().skip(self.next).take_while(is_unset).count();
        let index = self.next;
        let read = |(key, _): &(Key, Node)| {
            let name: StrDeserializer<'_, Fault> = key.name.as_str().into_deserializer();
            seed.deserialize(name).map_err(|fault| fault.in_key(index))
        };
        self.pairs.get(index).map(read).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let index = self.next;
        self.next += 1;
        let (_, node) = self.pairs.get(index).ok_or_else(|| Fault::custom("a value without a key"))?;
        seed.deserialize(De { node, files: self.files }).map_err(|fault| fault.within(index))
    }
}

/// `{above: 1}`.
struct Variant<'a> {
    key: &'a Key,
    value: De<'a>,
    known: &'static [&'static str],
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.key.name.as_str().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Err(Fault::new(What::Word(self.known)))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.value).map_err(|fault| fault.within(0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.value.list(visitor).map_err(|fault| fault.within(0))
    }

    fn struct_variant<V: Visitor<'de>>(self, known: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.value.map_of(known, visitor).map_err(|fault| fault.within(0))
    }
}
