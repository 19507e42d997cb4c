//! Challenges bots and turns scanners away, but for those that the configuration allows.
const std = @import("std");
const sdk = @import("sdk.zig");

comptime {
    sdk.exportHooks(@This());
}

pub const Config = struct { allowed: []const []const u8 = &.{} };

var allowed: []const []const u8 = &.{};

pub fn on_configure(config: Config) !void {
    for (config.allowed) |name| {
        if (name.len == 0) return error.EmptyNameThatEveryUserAgentContains;
    }
    allowed = config.allowed;
}

pub fn on_request_headers(request: sdk.Request) sdk.Decision {
    const user_agent = request.header("User-Agent") orelse "";
    if (user_agent.len == 0)
        return sdk.challenge("js_challenge").tag("no-user-agent");
    for (allowed) |name| {
        if (std.mem.find(u8, user_agent, name) != null)
            return sdk.allow().tag("allowed-bot");
    }
    for ([_][]const u8{ "sqlmap", "nikto" }) |scanner| {
        if (std.ascii.findIgnoreCase(user_agent, scanner) != null)
            return sdk.block(403, "Forbidden").tag("scanner");
    }
    if (std.ascii.findIgnoreCase(user_agent, "bot") != null)
        return sdk.challenge("captcha").tag("bot");
    return sdk.allow();
}
