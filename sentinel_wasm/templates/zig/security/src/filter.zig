//! Turns attacks in the URI away, and hardens responses.
const std = @import("std");
const sdk = @import("sdk.zig");

comptime {
    sdk.exportHooks(@This());
}

const attacks = [_]struct { []const u8, []const u8 }{
    .{ "../", "path-traversal" },
    .{ "<script", "script-injection" },
    .{ "%3cscript", "script-injection" },
    .{ "union select", "sql-injection" },
    .{ "union%20select", "sql-injection" },
    .{ "union+select", "sql-injection" },
};

pub fn on_request_headers(request: sdk.Request) sdk.Decision {
    for (attacks) |attack| {
        const pattern, const tag = attack;
        if (std.ascii.findIgnoreCase(request.uri, pattern) != null)
            return sdk.block(403, "Forbidden").tag(tag);
    }
    return sdk.allow();
}

pub fn on_response_headers(_: sdk.Response) sdk.Decision {
    return sdk.allow()
        .setResponseHeader("X-Content-Type-Options", "nosniff")
        .setResponseHeader("X-Frame-Options", "DENY")
        .removeResponseHeader("Server");
}
