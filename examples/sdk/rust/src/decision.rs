//! What a filter decides, as the ABI writes it.

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::base64;

/// What a hook says: `Decision::block(403, "Forbidden").tags(&["scanner"])`. What is not said is left
/// out. In each list, the last call counts; of headers, all do.
///
/// Fields and not a `serde_json::Value`: to build a tree of each takes longer than most filters do. Each
/// call moves all of them, so that what is rare is boxed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
pub struct Decision<'a> {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    challenge_params: Map<'a, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    add_request_headers: Map<'a, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    append_request_headers: Map<'a, Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "List::is_empty")]
    remove_request_headers: List<'a>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    add_response_headers: Map<'a, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    append_response_headers: Map<'a, Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "List::is_empty")]
    remove_response_headers: List<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body_mutation: Option<Box<Mutation<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body_mutation: Option<Box<Mutation<'a>>>,
    #[serde(skip_serializing_if = "List::is_empty")]
    tags: List<'a>,
    #[serde(skip_serializing_if = "List::is_empty")]
    rule_ids: List<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    #[serde(skip_serializing_if = "List::is_empty")]
    reason_codes: List<'a>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    routing_metadata: Map<'a, Cow<'a, str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    needs_more: bool,
}

impl<'a> Decision<'a> {
    #[inline]
    pub fn allow() -> Self {
        Decision {
            decision: "allow",
            ..Decision::default()
        }
    }

    #[inline]
    pub fn block(status: u16, body: impl Into<Cow<'a, str>>) -> Self {
        Decision {
            decision: "block",
            status: Some(status),
            body: Some(body.into()),
            ..Decision::default()
        }
    }

    /// The status is one of 301, 302, 303, 307 and 308.
    #[inline]
    pub fn redirect(status: u16, url: impl Into<Cow<'a, str>>) -> Self {
        Decision {
            decision: "redirect",
            status: Some(status),
            body: Some(url.into()),
            ..Decision::default()
        }
    }

    #[inline]
    pub fn challenge(kind: &'a str) -> Self {
        Decision {
            decision: "challenge",
            challenge_type: Some(kind),
            ..Decision::default()
        }
    }

    /// What to say of what cannot be read: a filter that lets it through is no filter.
    #[inline]
    pub fn bad_input() -> Self {
        Decision::block(400, "Bad Request").tags(&["bad-input"])
    }

    #[inline]
    pub fn challenge_param(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.challenge_params.put(name, value.into());
        self
    }

    /// Puts a header in the place of what the request has of that name.
    #[inline]
    pub fn set_request_header(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.add_request_headers.put(name, value.into());
        self
    }

    /// Adds a header to those of that name.
    #[inline]
    pub fn append_request_header(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.append_request_headers.add(name, value.into());
        self
    }

    #[inline]
    pub fn remove_request_headers(mut self, names: impl Into<List<'a>>) -> Self {
        self.remove_request_headers = names.into();
        self
    }

    /// Puts a header in the place of what the response has of that name.
    #[inline]
    pub fn set_response_header(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.add_response_headers.put(name, value.into());
        self
    }

    /// Adds a header to those of that name, as Set-Cookie wants it.
    #[inline]
    pub fn append_response_header(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.append_response_headers.add(name, value.into());
        self
    }

    #[inline]
    pub fn remove_response_headers(mut self, names: impl Into<List<'a>>) -> Self {
        self.remove_response_headers = names.into();
        self
    }

    /// Puts other data in the place of a chunk. Proxies take text only for a request.
    #[inline]
    pub fn replace_request_body(mut self, chunk_index: u64, data: impl Into<Data<'a>>) -> Self {
        self.request_body_mutation = Some(Mutation::replace(chunk_index, data.into()));
        self
    }

    #[inline]
    pub fn drop_request_body(mut self, chunk_index: u64) -> Self {
        self.request_body_mutation = Some(Mutation::drop(chunk_index));
        self
    }

    /// Puts other data in the place of a chunk. The proxy keeps a Content-Length that is not removed
    /// in `on_response_headers`.
    #[inline]
    pub fn replace_response_body(mut self, chunk_index: u64, data: impl Into<Data<'a>>) -> Self {
        self.response_body_mutation = Some(Mutation::replace(chunk_index, data.into()));
        self
    }

    #[inline]
    pub fn drop_response_body(mut self, chunk_index: u64) -> Self {
        self.response_body_mutation = Some(Mutation::drop(chunk_index));
        self
    }

    #[inline]
    pub fn tags(mut self, tags: impl Into<List<'a>>) -> Self {
        self.tags = tags.into();
        self
    }

    #[inline]
    pub fn rule_ids(mut self, ids: impl Into<List<'a>>) -> Self {
        self.rule_ids = ids.into();
        self
    }

    /// From 0 to 1.
    #[inline]
    pub fn confidence(mut self, confidence: f64) -> Self {
        self.confidence = Some(confidence);
        self
    }

    #[inline]
    pub fn reason_codes(mut self, codes: impl Into<List<'a>>) -> Self {
        self.reason_codes = codes.into();
        self
    }

    #[inline]
    pub fn routing_metadata(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Self {
        self.routing_metadata.put(name, value.into());
        self
    }

    /// The decision is provisional: the body may still tell against the request.
    #[inline]
    pub fn needs_more(mut self, needs_more: bool) -> Self {
        self.needs_more = needs_more;
        self
    }
}

/// Texts: `&["fixed", "ones"]`, which costs nothing, or a `Vec<String>` of ones that were made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum List<'a> {
    Fixed(&'a [&'a str]),
    Made(Vec<String>),
}

impl List<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            List::Fixed(texts) => texts.is_empty(),
            List::Made(texts) => texts.is_empty(),
        }
    }
}

impl Default for List<'_> {
    fn default() -> Self {
        List::Fixed(&[])
    }
}

impl<'a, const N: usize> From<&'a [&'a str; N]> for List<'a> {
    fn from(texts: &'a [&'a str; N]) -> Self {
        List::Fixed(texts)
    }
}

impl<'a> From<&'a [&'a str]> for List<'a> {
    fn from(texts: &'a [&'a str]) -> Self {
        List::Fixed(texts)
    }
}

impl From<Vec<String>> for List<'_> {
    fn from(texts: Vec<String>) -> Self {
        List::Made(texts)
    }
}

/// What a chunk becomes: text, or bytes, which travel as base64.
pub struct Data<'a> {
    encoding: Option<&'static str>,
    text: Cow<'a, str>,
}

impl<'a> From<Cow<'a, str>> for Data<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Data {
            encoding: None,
            text,
        }
    }
}

impl<'a> From<&'a str> for Data<'a> {
    fn from(text: &'a str) -> Self {
        Cow::from(text).into()
    }
}

impl From<String> for Data<'_> {
    fn from(text: String) -> Self {
        Cow::from(text).into()
    }
}

impl From<&[u8]> for Data<'_> {
    fn from(bytes: &[u8]) -> Self {
        Data {
            encoding: Some("base64"),
            text: base64::encode(bytes).into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Mutation<'a> {
    action: &'static str,
    chunk_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, str>>,
}

impl<'a> Mutation<'a> {
    fn replace(chunk_index: u64, data: Data<'a>) -> Box<Self> {
        Box::new(Mutation {
            action: "replace",
            chunk_index,
            encoding: data.encoding,
            data: Some(data.text),
        })
    }

    fn drop(chunk_index: u64) -> Box<Self> {
        Box::new(Mutation {
            action: "drop",
            chunk_index,
            encoding: None,
            data: None,
        })
    }
}

/// Names and values, written as an object in their own order.
#[derive(Clone, Debug, PartialEq)]
struct Map<'a, V>(Vec<(&'a str, V)>);

impl<V> Map<'_, V> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Map<'a, Cow<'a, str>> {
    /// JSON has no place for two values of one name: the last counts.
    fn put(&mut self, name: &'a str, value: Cow<'a, str>) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl<'a> Map<'a, Vec<Cow<'a, str>>> {
    fn add(&mut self, name: &'a str, value: Cow<'a, str>) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }
}

impl<V> Default for Map<'_, V> {
    fn default() -> Self {
        Map(Vec::new())
    }
}

impl<V: Serialize> Serialize for Map<'_, V> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let mut map = output.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, to_value, Value};

    fn written(decision: Decision) -> Value {
        to_value(decision).unwrap()
    }

    #[test]
    fn every_decision_says_what_it_needs_and_no_more() {
        for (decision, wanted) in [
            (Decision::allow(), json!({"decision": "allow"})),
            (
                Decision::block(403, "Forbidden"),
                json!({"decision": "block", "status": 403, "body": "Forbidden"}),
            ),
            (
                Decision::redirect(307, String::from("/login")),
                json!({"decision": "redirect", "status": 307, "body": "/login"}),
            ),
            (
                Decision::challenge("captcha").challenge_param("site_key", "k"),
                json!({"decision": "challenge", "challenge_type": "captcha", "challenge_params": {"site_key": "k"}}),
            ),
        ] {
            assert_eq!(written(decision), wanted);
        }
    }

    #[test]
    fn headers_are_set_appended_and_removed() {
        let decision = Decision::allow()
            .set_request_header("X-A", "1")
            .set_request_header("X-A", "2")
            .append_request_header("Via", "a")
            .remove_request_headers(&["X-Debug"])
            .set_response_header("X-B", String::from("3"))
            .append_response_header("Set-Cookie", "a=1")
            .append_response_header("Set-Cookie", "b=2")
            .remove_response_headers(&["Server", "X-Powered-By"]);
        assert_eq!(
            written(decision),
            json!({
                "decision": "allow",
                "add_request_headers": {"X-A": "2"},
                "append_request_headers": {"Via": ["a"]},
                "remove_request_headers": ["X-Debug"],
                "add_response_headers": {"X-B": "3"},
                "append_response_headers": {"Set-Cookie": ["a=1", "b=2"]},
                "remove_response_headers": ["Server", "X-Powered-By"],
            })
        );
    }

    #[test]
    fn a_body_is_replaced_by_text_or_bytes_or_dropped() {
        let replaced = Decision::allow()
            .replace_request_body(0, "text")
            .replace_response_body(7, &b"\xff\x00"[..]);
        assert_eq!(
            written(replaced),
            json!({
                "decision": "allow",
                "request_body_mutation": {"action": "replace", "chunk_index": 0, "data": "text"},
                "response_body_mutation":
                    {"action": "replace", "chunk_index": 7, "encoding": "base64", "data": "/wA="},
            })
        );
        let dropped = Decision::allow().drop_request_body(1).drop_response_body(2);
        assert_eq!(
            written(dropped),
            json!({
                "decision": "allow",
                "request_body_mutation": {"action": "drop", "chunk_index": 1},
                "response_body_mutation": {"action": "drop", "chunk_index": 2},
            })
        );
    }

    #[test]
    fn the_audit_has_texts_that_are_fixed_or_made() {
        let decision = Decision::allow()
            .tags(vec![format!("country-{}", "nz")])
            .rule_ids(&["R-1"])
            .reason_codes(&["A", "B"])
            .confidence(0.5)
            .routing_metadata("pool", "canary")
            .needs_more(true);
        assert_eq!(
            written(decision),
            json!({
                "decision": "allow",
                "tags": ["country-nz"],
                "rule_ids": ["R-1"],
                "reason_codes": ["A", "B"],
                "confidence": 0.5,
                "routing_metadata": {"pool": "canary"},
                "needs_more": true,
            })
        );
    }
}
