//! Keeps everybody out of `/admin`. Behaves as the first example that the Rust agent published:
//! whatever ran there has to run here, unchanged.

use sentinel_guest::{filter, Decision, Request};

filter! { on_request_headers: decide }

fn decide(request: Request) -> Decision {
    if request.uri.contains("/admin") {
        return Decision::block(403, "Forbidden");
    }
    Decision::allow()
}
