//! Challenges what looks like a bot. Behaves as the second example that the Rust agent published:
//! whatever ran there has to run here, unchanged.

use sentinel_guest::{filter, Decision, Request};

filter! { on_request_headers: decide }

fn decide(request: Request) -> Decision {
    let user_agent = match request.headers.get("User-Agent") {
        Some(value) if !value.is_empty() => value.to_lowercase(),
        _ => return Decision::challenge("js_challenge").tags(&["no-user-agent"]),
    };
    if user_agent.contains("bot") || user_agent.contains("curl") {
        return Decision::challenge("captcha")
            .challenge_param("site_key", "your-captcha-site-key")
            .tags(&["suspicious-ua"]);
    }
    Decision::allow()
}
