//! Changes headers of requests and responses.

use sentinel_guest::{filter, Decision, Request, Response};

filter! { on_request_headers: on_request, on_response_headers: on_response }

fn on_request(request: Request) -> Decision {
    Decision::allow()
        .set_request_header("X-Request-Source", request.client_ip)
        .remove_request_headers(&["X-Debug"])
}

fn on_response(_response: Response) -> Decision {
    Decision::allow()
        .set_response_header("X-Served-By", "@NAME@")
        .remove_response_headers(&["Server", "X-Powered-By"])
}
