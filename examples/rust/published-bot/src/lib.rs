//! Challenges what looks like a bot. Behaves as the second example that the Rust agent published:
//! whatever ran there has to run here, unchanged.

use guest::{Answer, RequestHeaders};

/// # Safety
///
/// Called by the agent, with a buffer that it filled.
#[no_mangle]
pub unsafe extern "C" fn on_request_headers(ptr: *const u8, len: usize) -> u64 {
    guest::call(ptr, len, decide)
}

fn decide(event: Option<RequestHeaders>) -> Answer {
    let request = match event {
        Some(request) => request,
        None => return Answer::block(400, "Bad Request"),
    };
    let user_agent = match request.headers.get("User-Agent") {
        Some(value) if !value.is_empty() => value.to_lowercase(),
        _ => return Answer::challenge("js_challenge").tags(&["no-user-agent"]),
    };
    if user_agent.contains("bot") || user_agent.contains("curl") {
        return Answer::challenge("captcha")
            .challenge_param("site_key", "your-captcha-site-key")
            .tags(&["suspicious-ua"]);
    }
    Answer::allow()
}
