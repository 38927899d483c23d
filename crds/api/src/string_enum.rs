//! Enumerated strings that never fail to parse.

/// Declares an enum whose variants travel as fixed strings, plus `Other` for any string that is not one of them.
///
/// The schema lists the known strings, so the API server refuses others today. A stored object may still hold
/// one: it was stored under another version of the schema. It must parse, so that the reader can name the field
/// that it does not understand, instead of losing the object (or the whole list that it came in).
macro_rules! string_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
            /// A string that this version does not know, as it was written.
            Other(String),
        }

        impl $name {
            /// Every known string, in the order of the schema.
            pub const KNOWN: &'static [&'static str] = &[$($text),+];

            /// The string that travels.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": Self::KNOWN})
            }
        }
    };
}

pub(crate) use string_enum;

#[cfg(test)]
mod tests {
    use crate::port::Protocol;

    #[test]
    fn known_and_unknown_strings_survive_a_round_trip() {
        for (text, value) in [("\"TCP\"", Protocol::Tcp), ("\"QUIC\"", Protocol::Other("QUIC".into()))] {
            assert_eq!(serde_json::from_str::<Protocol>(text).unwrap(), value);
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        assert!(serde_json::from_str::<Protocol>("6").is_err());
    }
}
