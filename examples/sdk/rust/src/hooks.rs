//! What each hook of `filter!` makes of an event's bytes: read it, let the filter decide, write what
//! it says. Events that cannot be read never reach the filter.

use std::fmt::Display;
use std::str;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{
    log, BodyChunk, Complete, Decision, Findings, Frame, FrameDecision, Inspection, Level, Request,
    Response,
};

pub fn on_request_headers<'a>(
    event: &'a [u8],
    decide: impl FnOnce(Request<'a>) -> Decision<'a>,
) -> Vec<u8> {
    write(&read(event).map_or_else(Decision::bad_input, decide))
}

pub fn on_request_body<'a>(
    event: &'a [u8],
    decide: impl FnOnce(BodyChunk<'a>) -> Decision<'a>,
) -> Vec<u8> {
    let chunk = read(event).and_then(BodyChunk::decode);
    write(&chunk.map_or_else(Decision::bad_input, decide))
}

pub fn on_response_headers<'a>(
    event: &'a [u8],
    decide: impl FnOnce(Response<'a>) -> Decision<'a>,
) -> Vec<u8> {
    write(&read(event).map_or_else(Decision::bad_input, decide))
}

pub fn on_response_body<'a>(
    event: &'a [u8],
    decide: impl FnOnce(BodyChunk<'a>) -> Decision<'a>,
) -> Vec<u8> {
    let chunk = read(event).and_then(BodyChunk::decode);
    write(&chunk.map_or_else(Decision::bad_input, decide))
}

pub fn on_websocket_frame<'a>(
    event: &'a [u8],
    decide: impl FnOnce(Frame<'a>) -> FrameDecision<'a>,
) -> Vec<u8> {
    let frame = read(event).and_then(Frame::decode);
    write(&frame.map_or_else(FrameDecision::bad_input, decide))
}

/// What cannot be read counts as found.
pub fn on_guardrail<'a>(
    event: &'a [u8],
    inspect: impl FnOnce(Inspection<'a>) -> Findings,
) -> Vec<u8> {
    write(&read(event).map_or_else(Findings::bad_input, inspect))
}

/// The request is over. Nothing can be decided any more.
pub fn on_request_complete<'a>(event: &'a [u8], note: impl FnOnce(Complete<'a>)) -> Vec<u8> {
    match read(event) {
        Some(complete) => note(complete),
        None => log(Level::Warning, "on_request_complete: unreadable event"),
    }
    Vec::new()
}

/// Before the first event, and when the configuration changes. An error refuses the configuration;
/// so does one that is no `C`. The function is not called then, and the old one stays.
pub fn on_configure<C: DeserializeOwned, E: Display>(
    event: &[u8],
    configure: impl FnOnce(C) -> Result<(), E>,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Refusal {
        error: String,
    }

    let done = read_config(event).and_then(|config| configure(config).map_err(|e| e.to_string()));
    match done {
        Ok(()) => Vec::new(),
        Err(error) => write(&Refusal { error }),
    }
}

/// None when the event is not what the ABI says: a trap would cost the instance.
fn read<'a, E: Deserialize<'a>>(event: &'a [u8]) -> Option<E> {
    // serde would take an array for a struct, its items in order of the fields.
    let first = event.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if *first != b'{' {
        return None;
    }
    // Looking once whether all of it is text takes less than looking at each string.
    serde_json::from_str(str::from_utf8(event).ok()?).ok()
}

fn read_config<C: DeserializeOwned>(event: &[u8]) -> Result<C, String> {
    #[derive(Deserialize)]
    struct Event {
        config: serde_json::Map<String, serde_json::Value>,
    }

    let event: Event = serde_json::from_slice(event).map_err(|e| e.to_string())?;
    C::deserialize(serde_json::Value::Object(event.config)).map_err(|e| e.to_string())
}

/// Not `to_string`, whose formatter takes as long as the rest. What is written here always can be.
fn write(result: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(result).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Detection, Severity, Span};
    use serde_json::{json, to_vec, Value};

    fn event(value: Value) -> Vec<u8> {
        to_vec(&value).unwrap()
    }

    fn decided(result: &[u8]) -> Value {
        serde_json::from_slice(result).unwrap()
    }

    fn bad_input() -> Value {
        serde_json::to_value(Decision::bad_input()).unwrap()
    }

    #[test]
    fn a_request_reaches_the_filter() {
        let event = event(json!({
            "method": "GET", "uri": "/\"é", "client_ip": "203.0.113.7", "correlation_id": "c", "later": [],
            "headers": {"User-Agent": "a", "X-B": "b"},
        }));
        let decide = |request: Request| {
            assert_eq!(request.method, "GET");
            assert_eq!(request.uri, "/\"é");
            assert_eq!(request.client_ip, "203.0.113.7");
            assert_eq!(request.correlation_id, "c");
            assert_eq!(request.headers, [("User-Agent", "a"), ("X-B", "b")].into());
            assert_eq!(request.headers.get("X-B"), Some("b"));
            assert_eq!(request.headers.get("x-b"), None);
            assert_eq!(request.headers.iter().count(), 2);
            Decision::allow().tags(&["seen"])
        };
        let result = on_request_headers(&event, decide);
        assert_eq!(
            decided(&result),
            json!({"decision": "allow", "tags": ["seen"]})
        );
    }

    #[test]
    fn a_response_reaches_the_filter() {
        let event =
            event(json!({"status": 204, "correlation_id": "c", "headers": {"Server": "s"}}));
        let decide = |response: Response| {
            assert_eq!(response.status, 204);
            Decision::allow()
                .set_response_header("X-Was", response.headers.get("Server").unwrap().to_owned())
        };
        let result = on_response_headers(&event, decide);
        assert_eq!(
            decided(&result),
            json!({"decision": "allow", "add_response_headers": {"X-Was": "s"}})
        );
    }

    fn chunk(encoding: &str, data: &str) -> Vec<u8> {
        event(json!({
            "correlation_id": "c", "chunk_index": 3, "is_last": true, "total_size": null, "bytes_seen": 5,
            "encoding": encoding, "data": data,
        }))
    }

    #[test]
    fn a_chunk_is_text_or_bytes() {
        on_request_body(&chunk("utf-8", "hello"), |chunk| {
            assert_eq!(
                (chunk.chunk_index, chunk.is_last, chunk.total_size),
                (3, true, None)
            );
            assert_eq!(chunk.text(), Some("hello"));
            assert_eq!(chunk.bytes(), b"hello");
            Decision::allow()
        });
        on_response_body(&chunk("base64", "/wA="), |chunk| {
            assert_eq!(chunk.text(), None);
            assert_eq!(chunk.bytes(), b"\xff\x00");
            Decision::allow()
        });
    }

    fn frame(encoding: &str, data: &str) -> Vec<u8> {
        event(json!({
            "correlation_id": "c", "opcode": "text", "client_to_server": true, "frame_index": 7, "fin": false,
            "route_id": null, "client_ip": "::1", "encoding": encoding, "data": data,
        }))
    }

    #[test]
    fn a_frame_is_text_or_bytes() {
        let result = on_websocket_frame(&frame("utf-8", "hello"), |frame| {
            assert_eq!(
                (&*frame.opcode, frame.to_server, frame.fin),
                ("text", true, false)
            );
            assert_eq!((frame.frame_index, &frame.route_id), (7, &None));
            assert_eq!(frame.text(), Some("hello"));
            FrameDecision::close(1003, "no").tags(&["rude"])
        });
        let close = json!({"decision": "close", "code": 1003, "reason": "no", "tags": ["rude"]});
        assert_eq!(decided(&result), close);
        let result = on_websocket_frame(&frame("base64", "/wA="), |frame| {
            assert_eq!((frame.text(), frame.bytes()), (None, &b"\xff\x00"[..]));
            FrameDecision::drop()
        });
        assert_eq!(decided(&result), json!({"decision": "drop"}));
        let result = on_websocket_frame(&frame("base64", "/wA"), |_| panic!("no frame"));
        assert_eq!(decided(&result)["tags"], json!(["bad-input"]));
        assert_eq!(Frame::of_text("a").bytes(), b"a");
    }

    #[test]
    fn a_content_is_inspected() {
        let event = event(json!({
            "correlation_id": "c", "inspection_type": "pii_detection", "content": "é", "model": "m",
            "categories": ["email"], "route_id": null, "metadata": {"k": "v"},
        }));
        let result = on_guardrail(&event, |inspection| {
            assert_eq!(
                (&*inspection.content, inspection.model.as_deref()),
                ("é", Some("m"))
            );
            assert_eq!(
                (&*inspection.categories[0], &*inspection.metadata["k"]),
                ("email", "v")
            );
            let found = Detection {
                category: "a".to_owned(),
                description: "b".to_owned(),
                severity: Severity::Low,
                confidence: None,
                span: Some(Span { start: 0, end: 2 }),
            };
            Findings::none().found(found).redacted("*")
        });
        let found = json!({
            "category": "a", "description": "b", "severity": "low", "span": {"start": 0, "end": 2},
        });
        let wanted = json!({"detected": true, "detections": [found], "redacted_content": "*"});
        assert_eq!(decided(&result), wanted);
        let clean = on_guardrail(&event, |_| Findings::none());
        assert_eq!(
            decided(&clean),
            json!({"detected": false, "detections": []})
        );
        let unread = on_guardrail(b"{}", |_| panic!("no content"));
        assert_eq!(decided(&unread)["detections"][0]["category"], "bad-input");
    }

    #[test]
    fn what_is_no_event_never_reaches_the_filter() {
        let request =
            r#"{"method":"GET","uri":"/","client_ip":"","correlation_id":"","headers":{}}"#;
        assert!(read::<Request>(request.as_bytes()).is_some());
        for event in [
            String::new(),
            "{}".to_owned(),
            "null".to_owned(),
            r#"["GET","/","","",{}]"#.to_owned(),
            request[..request.len() - 1].to_owned(),
            request.to_owned() + "x",
            request.replace("\"GET\"", "null"),
            request.replace("{}", r#"{"X-A":1}"#),
            request.replace("{}", r#"{"X-A":["1"]}"#),
            request.replace("{}", "[]"),
        ] {
            let result = on_request_headers(event.as_bytes(), |_| panic!("{event}"));
            assert_eq!(decided(&result), bad_input(), "{event}");
        }
        let result = on_request_headers(b"{\"\xff\":1}", |_| panic!("not UTF-8"));
        assert_eq!(decided(&result), bad_input());
        for chunk in [chunk("latin-1", ""), chunk("base64", "/wA")] {
            let result = on_response_body(&chunk, |_| panic!("no chunk"));
            assert_eq!(decided(&result), bad_input());
        }
    }

    #[test]
    fn a_completed_request_is_told_and_nothing_comes_back() {
        let event = event(json!({
            "correlation_id": "c", "status": 200, "duration_ms": 12, "request_body_size": 0,
            "response_body_size": 9, "upstream_attempts": 1, "error": null,
        }));
        let mut status = 0;
        assert!(on_request_complete(&event, |complete| status = complete.status).is_empty());
        assert_eq!(status, 200);
        assert!(on_request_complete(b"{}", |_| panic!("unreadable")).is_empty());
    }

    #[derive(Deserialize)]
    #[serde(default)]
    struct Limits {
        most: u32,
    }

    impl Default for Limits {
        fn default() -> Self {
            Limits { most: 7 }
        }
    }

    #[test]
    fn a_configuration_is_taken_or_refused() {
        let at_most_9 = |limits: Limits| match limits.most {
            0..=9 => Ok(()),
            more => Err(format!("most: {more} is over 9")),
        };
        for (given, error) in [
            (json!({"config": {}}), None),
            (json!({"config": {"most": 9}}), None),
            (json!({"config": {"most": 10}}), Some("most: 10 is over 9")),
            (
                json!({"config": {"most": "9"}}),
                Some("invalid type: string \"9\", expected u32"),
            ),
            (
                json!({"config": [9]}),
                Some("invalid type: sequence, expected a map"),
            ),
        ] {
            let result = on_configure(&event(given), at_most_9);
            match error {
                None => assert!(result.is_empty()),
                Some(error) => {
                    let found = decided(&result)["error"].as_str().unwrap().to_owned();
                    assert!(found.starts_with(error), "{found}");
                }
            }
        }
    }
}
