//! Turns attacks in the URI away, and hardens responses.

use sentinel_guest::{filter, Decision, Request, Response};

filter! { on_request_headers: on_request, on_response_headers: on_response }

fn on_request(request: Request) -> Decision {
    let uri = request.uri.to_ascii_lowercase();
    let has = |patterns: &[&str]| patterns.iter().any(|pattern| uri.contains(pattern));
    if has(&["../"]) {
        return Decision::block(403, "Forbidden").tags(&["path-traversal"]);
    }
    if has(&["<script", "%3cscript"]) {
        return Decision::block(403, "Forbidden").tags(&["script-injection"]);
    }
    if has(&["union select", "union%20select", "union+select"]) {
        return Decision::block(403, "Forbidden").tags(&["sql-injection"]);
    }
    Decision::allow()
}

fn on_response(_response: Response) -> Decision {
    Decision::allow()
        .set_response_header("X-Content-Type-Options", "nosniff")
        .set_response_header("X-Frame-Options", "DENY")
        .remove_response_headers(&["Server"])
}
