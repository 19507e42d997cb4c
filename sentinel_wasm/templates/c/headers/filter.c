/* Changes headers of requests and responses. */
#include "sentinel.h"

static decision *on_request(request *request) {
    decision *d = allow();
    set_request_header(d, "X-Request-Source", request->client_ip);
    return remove_request_header(d, "X-Debug");
}
ON_REQUEST_HEADERS(on_request)

static decision *on_response(response *response) {
    (void)response;
    decision *d = allow();
    set_response_header(d, "X-Served-By", "@NAME@");
    remove_response_header(d, "Server");
    return remove_response_header(d, "X-Powered-By");
}
ON_RESPONSE_HEADERS(on_response)
