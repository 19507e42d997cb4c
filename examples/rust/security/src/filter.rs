//! What is decided. Nothing here knows about memory or pointers: an event comes in, an answer goes
//! out.

use guest::{BodyChunk, Headers, RequestHeaders, ResponseHeaders};
use serde_json::{json, Value};

use crate::text;

pub fn request_headers(request: RequestHeaders) -> Value {
    let uri = text::decode(request.uri.as_bytes());
    let path = uri.split(['?', '#']).next().unwrap_or_default();

    if contains_any(&uri, &["../", "..\\"]) || path.ends_with("/..") {
        return json!({
            "decision": "block",
            "status": 403,
            "body": "Forbidden",
            "tags": ["path-traversal"],
            "rule_ids": ["SEC-001"],
            "confidence": 0.95,
            "reason_codes": ["PATH_TRAVERSAL"],
        });
    }
    if contains_any(&uri, &["union select", "' or ", "drop table", "; --"]) {
        return json!({
            "decision": "block",
            "status": 403,
            "body": "Forbidden",
            "tags": ["sql-injection"],
            "rule_ids": ["SEC-002"],
            "confidence": 0.9,
            "reason_codes": ["SQL_INJECTION"],
        });
    }
    if contains_any(&uri, &["<script", "javascript:"]) {
        return json!({
            "decision": "block",
            "status": 403,
            "body": "Forbidden",
            "tags": ["script-injection"],
            "rule_ids": ["SEC-003"],
            "confidence": 0.9,
            "reason_codes": ["SCRIPT_INJECTION"],
        });
    }

    // Whether the credentials are right is the upstream's business: they only have to be there.
    let is_admin = path == "/admin" || path.starts_with("/admin/");
    if is_admin && header(&request.headers, "Authorization").is_empty() {
        return json!({
            "decision": "block",
            "status": 401,
            "body": "Authentication required",
            "tags": ["admin-auth"],
            "rule_ids": ["SEC-010"],
            "reason_codes": ["AUTHORIZATION_MISSING"],
        });
    }

    let user_agent = header(&request.headers, "User-Agent").to_ascii_lowercase();
    if user_agent.is_empty() {
        return json!({
            "decision": "challenge",
            "challenge_type": "js_challenge",
            "tags": ["no-user-agent"],
        });
    }
    if contains_any(&user_agent, &["sqlmap", "nikto"]) {
        return json!({
            "decision": "block",
            "status": 403,
            "body": "Forbidden",
            "tags": ["scanner"],
            "rule_ids": ["SEC-020"],
            "reason_codes": ["SCANNER"],
        });
    }
    if contains_any(&user_agent, &["bot"]) {
        return json!({
            "decision": "challenge",
            "challenge_type": "captcha",
            "challenge_params": {"site_key": "your-site-key"},
            "tags": ["suspicious-user-agent"],
        });
    }

    let tags: &[&str] = if is_admin {
        &["processed", "admin-access"]
    } else {
        &["processed"]
    };
    let mut answer = json!({
        "decision": "allow",
        "add_request_headers": {"X-Wasm-Processed": "true", "X-Client-IP": request.client_ip},
        "remove_request_headers": ["X-Debug"],
        "tags": tags,
    });
    if matches!(&*request.method, "POST" | "PUT" | "PATCH") {
        // The decision is provisional: the body may still tell against the request.
        answer["needs_more"] = json!(true);
    }
    answer
}

/// Looks at each chunk by itself: an attack that is cut in two by a chunk's end is not seen.
pub fn request_body(chunk: BodyChunk) -> Value {
    let body = if chunk.encoding == "base64" {
        text::from_base64(&chunk.data)
    } else {
        Some(chunk.data.into_bytes())
    };
    let body = match body {
        Some(bytes) => text::decode(&bytes),
        None => return bad_input(),
    };
    if contains_any(&body, &["<script", "union select", "drop table"]) {
        return json!({
            "decision": "block",
            "status": 403,
            "body": "Forbidden",
            "tags": ["body-attack"],
            "rule_ids": ["SEC-030"],
            "reason_codes": ["BODY_ATTACK"],
        });
    }
    json!({"decision": "allow", "tags": ["body-clean"]})
}

pub fn response_headers(response: ResponseHeaders) -> Value {
    let mut remove = vec!["Server", "X-Powered-By"];
    let content_type = header(&response.headers, "Content-Type").to_ascii_lowercase();
    if content_type.starts_with("text/") || content_type.starts_with("application/json") {
        // Such a body may get masked, and the proxy would keep the old length.
        remove.push("Content-Length");
    }
    json!({
        "decision": "allow",
        "add_response_headers": {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
        },
        "remove_response_headers": remove,
        "tags": ["hardened"],
    })
}

pub fn response_body(chunk: BodyChunk) -> Value {
    if chunk.encoding == "base64" {
        // Not text: an image, an archive.
        return json!({"decision": "allow"});
    }
    match text::mask_card_numbers(&chunk.data) {
        None => json!({"decision": "allow"}),
        Some(data) => json!({
            "decision": "allow",
            "response_body_mutation": {
                "action": "replace",
                "chunk_index": chunk.chunk_index,
                "data": data,
            },
            "tags": ["masked"],
        }),
    }
}

/// A filter that lets through what it cannot read is no filter.
pub fn bad_input() -> Value {
    json!({"decision": "block", "status": 400, "body": "Bad Request", "tags": ["bad-input"]})
}

/// A header that is absent and one that is empty mean the same to this filter.
fn header<'a>(headers: &'a Headers, name: &str) -> &'a str {
    headers.get(name).unwrap_or_default()
}

/// In one pass, past most bytes with one look: `str::contains` prepares a search for each pattern,
/// which takes longer than to search texts as short as these.
fn contains_any(text: &str, patterns: &[&str]) -> bool {
    let bytes = text.as_bytes();
    let bit = |byte: &u8| 1u64 << (byte & 63);
    let firsts = |mask, pattern: &&str| mask | pattern.as_bytes().first().map_or(0, bit);
    let firsts = patterns.iter().fold(0, firsts);
    bytes.iter().enumerate().any(|(at, byte)| {
        let begins = |pattern: &&str| bytes[at..].starts_with(pattern.as_bytes());
        firsts & bit(byte) != 0 && patterns.iter().any(begins)
    })
}
