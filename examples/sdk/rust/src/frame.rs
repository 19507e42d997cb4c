//! What a filter decides about a WebSocket's frame.

use serde::Serialize;

use crate::List;

/// What `on_websocket_frame` says: `FrameDecision::close(1008, "no").tags(&["rude"])`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
pub struct FrameDecision<'a> {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "List::is_empty")]
    tags: List<'a>,
    #[serde(skip_serializing_if = "List::is_empty")]
    rule_ids: List<'a>,
    #[serde(skip_serializing_if = "List::is_empty")]
    reason_codes: List<'a>,
}

impl<'a> FrameDecision<'a> {
    pub fn allow() -> Self {
        FrameDecision {
            decision: "allow",
            ..FrameDecision::default()
        }
    }

    /// The frame is not passed on.
    pub fn drop() -> Self {
        FrameDecision {
            decision: "drop",
            ..FrameDecision::default()
        }
    }

    /// RFC 6455, section 7.4, has the codes; the reason has at most 123 bytes.
    pub fn close(code: u16, reason: &'a str) -> Self {
        FrameDecision {
            decision: "close",
            code: Some(code),
            reason: Some(reason),
            ..FrameDecision::default()
        }
    }

    /// What to say of what cannot be read: a filter that lets it through is no filter.
    pub fn bad_input() -> Self {
        FrameDecision::close(1008, "Bad Request").tags(&["bad-input"])
    }

    pub fn tags(mut self, tags: impl Into<List<'a>>) -> Self {
        self.tags = tags.into();
        self
    }

    pub fn rule_ids(mut self, ids: impl Into<List<'a>>) -> Self {
        self.rule_ids = ids.into();
        self
    }

    pub fn reason_codes(mut self, codes: impl Into<List<'a>>) -> Self {
        self.reason_codes = codes.into();
        self
    }
}
