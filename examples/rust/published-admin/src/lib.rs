//! Keeps everybody out of `/admin`. Behaves as the first example that the Rust agent published:
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
    match event {
        None => Answer::block(400, "Bad Request"),
        Some(request) if request.uri.contains("/admin") => Answer::block(403, "Forbidden"),
        Some(_) => Answer::allow(),
    }
}
