//! Challenges what looks like a bot. Behaves as the second example that the Rust agent published:
//! whatever ran there has to run here, unchanged.

use guest::RequestHeaders;
use serde_json::{json, Value};

/// # Safety
///
/// Called by the agent, with a buffer that it filled.
#[no_mangle]
pub unsafe extern "C" fn on_request_headers(ptr: *const u8, len: usize) -> u64 {
    guest::call(ptr, len, decide)
}

fn decide(event: Option<RequestHeaders>) -> Value {
    let request = match event {
        Some(request) => request,
        None => return json!({"decision": "block", "status": 400, "body": "Bad Request"}),
    };
    let user_agent = match request.headers.get("User-Agent") {
        Some(value) if !value.is_empty() => value.to_lowercase(),
        _ => {
            return json!({
                "decision": "challenge",
                "challenge_type": "js_challenge",
                "tags": ["no-user-agent"],
            })
        }
    };
    if user_agent.contains("bot") || user_agent.contains("curl") {
        return json!({
            "decision": "challenge",
            "challenge_type": "captcha",
            "challenge_params": {"site_key": "your-captcha-site-key"},
            "tags": ["suspicious-ua"],
        });
    }
    json!({"decision": "allow"})
}
