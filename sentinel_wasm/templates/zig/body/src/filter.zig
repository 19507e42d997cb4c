//! Looks for scripts in the bodies of requests, and masks a word in those of responses.
const std = @import("std");
const sdk = @import("sdk.zig");

comptime {
    sdk.exportHooks(@This());
}

pub fn on_request_body(chunk: sdk.Chunk) !sdk.Decision {
    if (std.ascii.findIgnoreCase(try chunk.bytes(), "<script") != null)
        return sdk.block(403, "Forbidden").tag("body-attack");
    return sdk.allow();
}

pub fn on_response_body(chunk: sdk.Chunk) !sdk.Decision {
    const text = chunk.text() orelse return sdk.allow();
    if (std.mem.find(u8, text, "secret") == null)
        return sdk.allow();
    const masked = try std.mem.replaceOwned(u8, sdk.arena(), text, "secret", "******");
    return sdk.allow().replaceResponseBody(masked).tag("masked");
}
