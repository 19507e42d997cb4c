//! Allows every request, and says that it has seen it.

use sentinel_guest::{filter, Decision, Request};

filter! { on_request_headers: decide }

fn decide(_request: Request) -> Decision {
    Decision::allow().tags(&["seen"])
}
