//! What a guardrail says of a content.

use serde::Serialize;

/// What `on_guardrail` says: `Findings::none()`, and then what was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
pub struct Findings {
    detected: bool,
    detections: Vec<Detection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_content: Option<String>,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detection {
    pub category: String,
    pub description: String,
    pub severity: Severity,
    /// From 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

/// A place in the content, in bytes, the end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Findings {
    pub fn none() -> Self {
        Findings::default()
    }

    /// What to say of what cannot be read.
    pub fn bad_input() -> Self {
        Findings::none().found(Detection {
            category: "bad-input".to_owned(),
            description: "the event cannot be read".to_owned(),
            severity: Severity::High,
            confidence: None,
            span: None,
        })
    }

    pub fn found(mut self, detection: Detection) -> Self {
        self.detected = true;
        self.detections.push(detection);
        self
    }

    /// The content without what was found.
    pub fn redacted(mut self, content: impl Into<String>) -> Self {
        self.redacted_content = Some(content.into());
        self
    }
}
