//! Challenges bots and turns scanners away. The configuration names bots that may pass: `{"allowed": ["Googlebot"]}`.

use std::sync::Mutex;

use sentinel_guest::{filter, Decision, Request};
use serde::Deserialize;

filter! { on_configure: configure, on_request_headers: decide }

static ALLOWED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    allowed: Vec<String>,
}

fn configure(config: Config) -> Result<(), String> {
    if config.allowed.iter().any(String::is_empty) {
        return Err("allowed has an empty name, which every User-Agent contains".into());
    }
    *ALLOWED.lock().unwrap() = config.allowed;
    Ok(())
}

fn decide(request: Request) -> Decision {
    let user_agent = request.headers.get("User-Agent").unwrap_or_default();
    if user_agent.is_empty() {
        return Decision::challenge("js_challenge").tags(&["no-user-agent"]);
    }
    let allowed = ALLOWED.lock().unwrap();
    if allowed.iter().any(|name| user_agent.contains(name)) {
        return Decision::allow().tags(&["allowed-bot"]);
    }
    let user_agent = user_agent.to_ascii_lowercase();
    if user_agent.contains("sqlmap") || user_agent.contains("nikto") {
        return Decision::block(403, "Forbidden").tags(&["scanner"]);
    }
    if user_agent.contains("bot") {
        return Decision::challenge("captcha").tags(&["bot"]);
    }
    Decision::allow()
}
