//! Allows every request, and says that it has seen it.
const sdk = @import("sdk.zig");

comptime {
    sdk.exportHooks(@This());
}

pub fn on_request_headers(_: sdk.Request) sdk.Decision {
    return sdk.allow().tag("seen");
}
