//! What is decided. Nothing here knows about memory or pointers: an event comes in, a decision
//! goes out.

use sentinel_guest::{BodyChunk, Decision, Headers, Request, Response};

use crate::text;

pub fn request_headers(request: Request) -> Decision {
    let uri = text::decode(request.uri.as_bytes());
    let path = uri.split(['?', '#']).next().unwrap_or_default();

    if contains_any(&uri, &["../", "..\\"]) || path.ends_with("/..") {
        return Decision::block(403, "Forbidden")
            .tags(&["path-traversal"])
            .rule_ids(&["SEC-001"])
            .confidence(0.95)
            .reason_codes(&["PATH_TRAVERSAL"]);
    }
    if contains_any(&uri, &["union select", "' or ", "drop table", "; --"]) {
        return Decision::block(403, "Forbidden")
            .tags(&["sql-injection"])
            .rule_ids(&["SEC-002"])
            .confidence(0.9)
            .reason_codes(&["SQL_INJECTION"]);
    }
    if contains_any(&uri, &["<script", "javascript:"]) {
        return Decision::block(403, "Forbidden")
            .tags(&["script-injection"])
            .rule_ids(&["SEC-003"])
            .confidence(0.9)
            .reason_codes(&["SCRIPT_INJECTION"]);
    }

    // Whether the credentials are right is the upstream's business: they only have to be there.
    let is_admin = path == "/admin" || path.starts_with("/admin/");
    if is_admin && header(&request.headers, "Authorization").is_empty() {
        return Decision::block(401, "Authentication required")
            .tags(&["admin-auth"])
            .rule_ids(&["SEC-010"])
            .reason_codes(&["AUTHORIZATION_MISSING"]);
    }

    let user_agent = header(&request.headers, "User-Agent").to_ascii_lowercase();
    if user_agent.is_empty() {
        return Decision::challenge("js_challenge").tags(&["no-user-agent"]);
    }
    if contains_any(&user_agent, &["sqlmap", "nikto"]) {
        return Decision::block(403, "Forbidden")
            .tags(&["scanner"])
            .rule_ids(&["SEC-020"])
            .reason_codes(&["SCANNER"]);
    }
    if contains_any(&user_agent, &["bot"]) {
        return Decision::challenge("captcha")
            .challenge_param("site_key", "your-site-key")
            .tags(&["suspicious-user-agent"]);
    }

    let tags: &[&str] = if is_admin {
        &["processed", "admin-access"]
    } else {
        &["processed"]
    };
    // Of a request with a body the decision is provisional: the body may still tell against it.
    let has_body = matches!(&*request.method, "POST" | "PUT" | "PATCH");
    Decision::allow()
        .set_request_header("X-Wasm-Processed", "true")
        .set_request_header("X-Client-IP", request.client_ip)
        .remove_request_headers(&["X-Debug"])
        .tags(tags)
        .needs_more(has_body)
}

/// Looks at each chunk by itself: an attack that is cut in two by a chunk's end is not seen.
pub fn request_body(chunk: BodyChunk) -> Decision {
    let body = text::decode(chunk.bytes());
    if contains_any(&body, &["<script", "union select", "drop table"]) {
        return Decision::block(403, "Forbidden")
            .tags(&["body-attack"])
            .rule_ids(&["SEC-030"])
            .reason_codes(&["BODY_ATTACK"]);
    }
    Decision::allow().tags(&["body-clean"])
}

pub fn response_headers(response: Response) -> Decision {
    let content_type = header(&response.headers, "Content-Type").to_ascii_lowercase();
    let is_text = content_type.starts_with("text/") || content_type.starts_with("application/json");
    // A body of text may get masked, and the proxy would keep the old length.
    let remove: &[&str] = if is_text {
        &["Server", "X-Powered-By", "Content-Length"]
    } else {
        &["Server", "X-Powered-By"]
    };
    Decision::allow()
        .set_response_header("X-Content-Type-Options", "nosniff")
        .set_response_header("X-Frame-Options", "DENY")
        .set_response_header("Referrer-Policy", "no-referrer")
        .remove_response_headers(remove)
        .tags(&["hardened"])
}

pub fn response_body(chunk: BodyChunk) -> Decision {
    // What is no text is left alone: an image, an archive.
    match chunk.text().and_then(text::mask_card_numbers) {
        None => Decision::allow(),
        Some(data) => Decision::allow()
            .replace_response_body(chunk.chunk_index, data)
            .tags(&["masked"]),
    }
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
