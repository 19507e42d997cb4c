//! Keeps everybody out of `/admin`. Behaves as the first example that the Rust agent published:
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
    match event {
        None => json!({"decision": "block", "status": 400, "body": "Bad Request"}),
        Some(request) if request.uri.contains("/admin") => {
            json!({"decision": "block", "status": 403, "body": "Forbidden"})
        }
        Some(_) => json!({"decision": "allow"}),
    }
}
