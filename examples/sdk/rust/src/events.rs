//! What hooks get. Text is borrowed from the event: copying each header takes longer than most filters
//! do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::base64;

/// What `on_request_headers` gets.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Request<'a> {
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// Path and query, as they came.
    #[serde(borrow)]
    pub uri: Cow<'a, str>,
    /// The bare address, without port and brackets.
    #[serde(borrow)]
    pub client_ip: Cow<'a, str>,
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    pub headers: Headers<'a>,
}

/// What `on_response_headers` gets.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Response<'a> {
    pub status: u16,
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    pub headers: Headers<'a>,
}

/// What `on_request_body` and `on_response_body` get.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct BodyChunk<'a> {
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    pub chunk_index: u64,
    pub is_last: bool,
    /// In bytes; None when the proxy does not know it.
    #[serde(deserialize_with = "nullable")]
    pub total_size: Option<u64>,
    /// With this chunk.
    pub bytes_seen: u64,
    encoding: Encoding,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(skip)]
    decoded: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Text,
    #[serde(rename = "base64")]
    Base64,
}

impl<'a> BodyChunk<'a> {
    /// A chunk of text, for a filter's tests.
    pub fn of_text(text: &'a str) -> Self {
        BodyChunk {
            is_last: true,
            bytes_seen: text.len() as u64,
            data: text.into(),
            ..BodyChunk::default()
        }
    }

    /// The chunk's text; None where it is not valid UTF-8: an image, an archive.
    pub fn text(&self) -> Option<&str> {
        (self.encoding == Encoding::Text).then_some(&*self.data)
    }

    /// The chunk, whether text or not.
    pub fn bytes(&self) -> &[u8] {
        match self.encoding {
            Encoding::Text => self.data.as_bytes(),
            Encoding::Base64 => &self.decoded,
        }
    }

    /// None where it says that it is base64, and is not.
    pub(crate) fn decode(mut self) -> Option<Self> {
        self.decoded = decoded(self.encoding, &self.data)?;
        Some(self)
    }
}

/// The bytes of base64; nothing for text, which needs no decoding.
fn decoded(encoding: Encoding, data: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Text => Some(Vec::new()),
        Encoding::Base64 => base64::decode(data),
    }
}

/// What `on_websocket_frame` gets.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Frame<'a> {
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    /// `text`, `binary`, `continuation`, `ping`, `pong` or `close`.
    #[serde(borrow)]
    pub opcode: Cow<'a, str>,
    #[serde(rename = "client_to_server")]
    pub to_server: bool,
    /// Among those of its direction.
    pub frame_index: u64,
    pub fin: bool,
    #[serde(borrow)]
    pub route_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub client_ip: Cow<'a, str>,
    encoding: Encoding,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(skip)]
    decoded: Vec<u8>,
}

impl<'a> Frame<'a> {
    /// A client's frame of text, for a filter's tests.
    pub fn of_text(text: &'a str) -> Self {
        Frame {
            opcode: "text".into(),
            to_server: true,
            fin: true,
            data: text.into(),
            ..Frame::default()
        }
    }

    /// The frame's text; None where it is not valid UTF-8.
    pub fn text(&self) -> Option<&str> {
        (self.encoding == Encoding::Text).then_some(&*self.data)
    }

    /// The frame's payload, whether text or not.
    pub fn bytes(&self) -> &[u8] {
        match self.encoding {
            Encoding::Text => self.data.as_bytes(),
            Encoding::Base64 => &self.decoded,
        }
    }

    /// None where it says that it is base64, and is not.
    pub(crate) fn decode(mut self) -> Option<Self> {
        self.decoded = decoded(self.encoding, &self.data)?;
        Some(self)
    }
}

/// What `on_guardrail` gets.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Inspection<'a> {
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    /// `prompt_injection` or `pii_detection`.
    #[serde(borrow)]
    pub inspection_type: Cow<'a, str>,
    #[serde(borrow)]
    pub content: Cow<'a, str>,
    #[serde(borrow)]
    pub model: Option<Cow<'a, str>>,
    /// What to look for; none: everything.
    pub categories: Vec<String>,
    #[serde(borrow)]
    pub route_id: Option<Cow<'a, str>>,
    pub metadata: BTreeMap<String, String>,
}

/// What `on_request_complete` gets.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Complete<'a> {
    #[serde(borrow)]
    pub correlation_id: Cow<'a, str>,
    pub status: u16,
    pub duration_ms: u64,
    pub request_body_size: u64,
    pub response_body_size: u64,
    pub upstream_attempts: u64,
    #[serde(borrow)]
    pub error: Option<Cow<'a, str>>,
}

/// Names are in canonical form: `User-Agent`, `X-Forwarded-For`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers<'a>(Vec<(Text<'a>, Text<'a>)>);

impl Headers<'_> {
    /// The value of a header, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(key, _)| key.0 == name);
        found.map(|(_, value)| &*value.0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&*name.0, &*value.0))
    }
}

/// `Headers::from([("User-Agent", "curl/8")])`, for a filter's tests.
impl<'a, const N: usize> From<[(&'a str, &'a str); N]> for Headers<'a> {
    fn from(pairs: [(&'a str, &'a str); N]) -> Self {
        let text = |text: &'a str| Text(text.into());
        Headers(pairs.map(|(name, value)| (text(name), text(value))).into())
    }
}

/// By itself, serde borrows text in a struct but copies it in a list.
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Headers<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Headers<'de>;

            fn expecting(&self, wanted: &mut fmt::Formatter) -> fmt::Result {
                wanted.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Headers<'de>, M::Error> {
                let mut pairs = Vec::with_capacity(16);
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Headers(pairs))
            }
        }

        input.deserialize_map(Pairs)
    }
}

/// An `Option` that has to be there: by itself, serde takes a missing field for None.
fn nullable<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(input)
}
