/* Turns attacks in the URI away, and hardens responses. */
#include "sentinel.h"

static decision *on_request(request *request) {
    text uri = lowered(request->uri);
    if (contains(uri, "../"))
        return tag(block(403, "Forbidden"), "path-traversal");
    if (contains_any(uri, "<script", "%3cscript"))
        return tag(block(403, "Forbidden"), "script-injection");
    if (contains_any(uri, "union select", "union%20select", "union+select"))
        return tag(block(403, "Forbidden"), "sql-injection");
    return allow();
}
ON_REQUEST_HEADERS(on_request)

static decision *on_response(response *response) {
    (void)response;
    decision *d = allow();
    set_response_header(d, "X-Content-Type-Options", "nosniff");
    set_response_header(d, "X-Frame-Options", "DENY");
    return remove_response_header(d, "Server");
}
ON_RESPONSE_HEADERS(on_response)
