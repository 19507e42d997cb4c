//! What a filter decides, as the ABI writes it.

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A hook's answer: `Answer::block(403, "Forbidden").tags(&["scanner"])`. What is not said is left out.
///
/// Fields and not a `serde_json::Value`: to build a tree of each answer takes longer than most filters do.
#[derive(Serialize, Default)]
pub struct Answer<'a> {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    challenge_params: Pairs<'a>,
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    add_request_headers: Pairs<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    remove_request_headers: &'a [&'a str],
    #[serde(skip_serializing_if = "Pairs::is_empty")]
    add_response_headers: Pairs<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    remove_response_headers: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body_mutation: Option<Replacement>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tags: &'a [&'a str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rule_ids: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    reason_codes: &'a [&'a str],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    needs_more: bool,
}

impl<'a> Answer<'a> {
    pub fn allow() -> Self {
        Answer {
            decision: "allow",
            ..Answer::default()
        }
    }

    pub fn block(status: u16, body: &'a str) -> Self {
        Answer {
            decision: "block",
            status: Some(status),
            body: Some(body),
            ..Answer::default()
        }
    }

    pub fn challenge(kind: &'a str) -> Self {
        Answer {
            decision: "challenge",
            challenge_type: Some(kind),
            ..Answer::default()
        }
    }

    pub fn challenge_param(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.challenge_params.0.push((name, value.into()));
        self
    }

    pub fn add_request_header(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.add_request_headers.0.push((name, value.into()));
        self
    }

    pub fn remove_request_headers(mut self, names: &'a [&'a str]) -> Self {
        self.remove_request_headers = names;
        self
    }

    pub fn add_response_header(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.add_response_headers.0.push((name, value.into()));
        self
    }

    pub fn remove_response_headers(mut self, names: &'a [&'a str]) -> Self {
        self.remove_response_headers = names;
        self
    }

    /// Puts another body in place of a chunk.
    pub fn replace_response_body(mut self, chunk_index: u64, data: String) -> Self {
        self.response_body_mutation = Some(Replacement {
            action: "replace",
            chunk_index,
            data,
        });
        self
    }

    pub fn tags(mut self, tags: &'a [&'a str]) -> Self {
        self.tags = tags;
        self
    }

    pub fn rule_ids(mut self, ids: &'a [&'a str]) -> Self {
        self.rule_ids = ids;
        self
    }

    /// From 0 to 1.
    pub fn confidence(mut self, confidence: f64) -> Self {
        self.confidence = Some(confidence);
        self
    }

    pub fn reason_codes(mut self, codes: &'a [&'a str]) -> Self {
        self.reason_codes = codes;
        self
    }

    /// The decision is provisional: the body may still tell against the request.
    pub fn needs_more(mut self, needs_more: bool) -> Self {
        self.needs_more = needs_more;
        self
    }
}

#[derive(Serialize)]
struct Replacement {
    action: &'static str,
    chunk_index: u64,
    data: String,
}

/// Names and values, written as an object in their own order.
#[derive(Default)]
struct Pairs<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl Pairs<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
