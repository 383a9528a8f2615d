//! How values are written in the journal and in JSON: plain numbers in base units, without loss.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A structure that is read from an object only. By itself, serde also takes an array of its fields' values.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// A list of such structures, for `deserialize_with`.
pub(super) fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(object)| object).collect())
}

/// A size as a number of bytes, a time as one of seconds, for `with`. By itself, `ByteSize` writes rounded text for people.
pub mod number {
    use std::time::{Duration, TryFromFloatSecsError};

    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub trait Number: Sized {
        type Plain: Serialize + for<'de> Deserialize<'de>;
        fn plain(&self) -> Self::Plain;
        fn of(plain: Self::Plain) -> Result<Self, TryFromFloatSecsError>;
    }

    impl Number for ByteSize {
        type Plain = u64;

        fn plain(&self) -> u64 {
            self.0
        }

        fn of(bytes: u64) -> Result<Self, TryFromFloatSecsError> {
            Ok(Self(bytes))
        }
    }

    impl Number for Duration {
        type Plain = f64;

        fn plain(&self) -> f64 {
            self.as_secs_f64()
        }

        fn of(seconds: f64) -> Result<Self, TryFromFloatSecsError> {
            Self::try_from_secs_f64(seconds)
        }
    }

    impl<T: Number> Number for Option<T> {
        type Plain = Option<T::Plain>;

        fn plain(&self) -> Self::Plain {
            self.as_ref().map(T::plain)
        }

        fn of(plain: Self::Plain) -> Result<Self, TryFromFloatSecsError> {
            plain.map(T::of).transpose()
        }
    }

    pub fn serialize<T: Number, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.plain().serialize(serializer)
    }

    pub fn deserialize<'de, T: Number, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::of(T::Plain::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
