//! Tells the upstream where a request came from, and clients less of what serves them.
const sdk = @import("sdk.zig");

comptime {
    sdk.exportHooks(@This());
}

pub fn on_request_headers(request: sdk.Request) sdk.Decision {
    return sdk.allow()
        .setRequestHeader("X-Request-Source", request.client_ip)
        .removeRequestHeader("X-Debug");
}

pub fn on_response_headers(_: sdk.Response) sdk.Decision {
    return sdk.allow()
        .setResponseHeader("X-Served-By", "@NAME@")
        .removeResponseHeader("Server")
        .removeResponseHeader("X-Powered-By");
}
