//! The guest's side of the agent's ABI. A filter has a function for each hook that it wants:
//!
//!     const sdk = @import("sdk.zig");
//!
//!     comptime {
//!         sdk.exportHooks(@This());
//!     }
//!
//!     pub fn on_request_headers(request: sdk.Request) sdk.Decision {
//!         if (std.mem.startsWith(u8, request.uri, "/admin")) return sdk.block(403, "Forbidden").tag("admin");
//!         return sdk.allow();
//!     }
//!
//! and may have `on_response_headers` (sdk.Response), `on_request_body`, `on_response_body` (sdk.Chunk) and
//! `on_configure` (its own type `Config`). A hook that returns an error traps, which the agent reports.
const std = @import("std");
const json = std.json;
const ArenaAllocator = std.heap.ArenaAllocator;

const heap = std.heap.wasm_allocator;
var of_this_call: ArenaAllocator = .init(heap);

/// What a hook allocates here is freed once it has returned.
pub fn arena() std.mem.Allocator {
    return of_this_call.allocator();
}

// ---- What hooks get

pub const Headers = json.ArrayHashMap([]const u8);

pub const Request = struct {
    method: []const u8,
    uri: []const u8,
    client_ip: []const u8,
    correlation_id: []const u8,
    headers: Headers,

    /// The name as in `User-Agent`.
    pub fn header(self: Request, name: []const u8) ?[]const u8 {
        return self.headers.map.get(name);
    }
};

pub const Response = struct {
    status: u16,
    correlation_id: []const u8,
    headers: Headers,

    /// The name as in `Content-Type`.
    pub fn header(self: Response, name: []const u8) ?[]const u8 {
        return self.headers.map.get(name);
    }
};

/// A part of a body.
pub const Chunk = struct {
    correlation_id: []const u8,
    chunk_index: u32,
    is_last: bool,
    total_size: ?u64,
    bytes_seen: u64,
    encoding: enum { @"utf-8", base64 },
    data: []const u8,

    /// Null where the chunk is no text.
    pub fn text(self: Chunk) ?[]const u8 {
        return if (self.encoding == .base64) null else self.data;
    }

    /// Its bytes, text or not.
    pub fn bytes(self: Chunk) ![]const u8 {
        if (self.encoding != .base64) return self.data;
        const decoder = std.base64.standard.Decoder;
        const decoded = try arena().alloc(u8, try decoder.calcSizeForSlice(self.data));
        try decoder.decode(decoded, self.data);
        return decoded;
    }
};

// ---- What hooks say

pub fn allow() Decision {
    return .{ .decision = .allow };
}

pub fn block(status: u16, body: []const u8) Decision {
    return .{ .decision = .block, .status = status, .body = body };
}

pub fn redirect(status: u16, url: []const u8) Decision {
    return .{ .decision = .redirect, .status = status, .body = url };
}

/// The kind is one that the proxy knows, as `captcha` or `js_challenge`.
pub fn challenge(kind: []const u8) Decision {
    return .{ .decision = .challenge, .challenge_type = kind };
}

/// `sdk.block(403, "Forbidden").tag("admin").ruleId("R-1")`: each of these gives a decision with one thing more.
pub const Decision = struct {
    decision: enum { allow, block, redirect, challenge },
    status: ?u16 = null,
    body: ?[]const u8 = null,
    challenge_type: ?[]const u8 = null,
    challenge_params: ?Pairs = null,
    add_request_headers: ?Pairs = null,
    remove_request_headers: ?[]const []const u8 = null,
    add_response_headers: ?Pairs = null,
    remove_response_headers: ?[]const []const u8 = null,
    request_body_mutation: ?Mutation = null,
    response_body_mutation: ?Mutation = null,
    tags: ?[]const []const u8 = null,
    rule_ids: ?[]const []const u8 = null,
    reason_codes: ?[]const []const u8 = null,
    confidence: ?f64 = null,
    needs_more: ?bool = null,

    pub fn challengeParam(self: Decision, name: []const u8, value: []const u8) Decision {
        return self.with("challenge_params", pairs(self.challenge_params, name, value));
    }

    pub fn setRequestHeader(self: Decision, name: []const u8, value: []const u8) Decision {
        return self.with("add_request_headers", pairs(self.add_request_headers, name, value));
    }

    pub fn removeRequestHeader(self: Decision, name: []const u8) Decision {
        return self.with("remove_request_headers", appended([]const u8, self.remove_request_headers, name));
    }

    pub fn setResponseHeader(self: Decision, name: []const u8, value: []const u8) Decision {
        return self.with("add_response_headers", pairs(self.add_response_headers, name, value));
    }

    pub fn removeResponseHeader(self: Decision, name: []const u8) Decision {
        return self.with("remove_response_headers", appended([]const u8, self.remove_response_headers, name));
    }

    /// The chunk at hand becomes this text.
    pub fn replaceRequestBody(self: Decision, text: []const u8) Decision {
        return self.with("request_body_mutation", Mutation{ .action = .replace, .data = text });
    }

    /// The chunk at hand becomes this text.
    pub fn replaceResponseBody(self: Decision, text: []const u8) Decision {
        return self.with("response_body_mutation", Mutation{ .action = .replace, .data = text });
    }

    pub fn tag(self: Decision, text: []const u8) Decision {
        return self.with("tags", appended([]const u8, self.tags, text));
    }

    pub fn ruleId(self: Decision, text: []const u8) Decision {
        return self.with("rule_ids", appended([]const u8, self.rule_ids, text));
    }

    pub fn reasonCode(self: Decision, text: []const u8) Decision {
        return self.with("reason_codes", appended([]const u8, self.reason_codes, text));
    }

    /// 0 to 1.
    pub fn sure(self: Decision, confidence: f64) Decision {
        return self.with("confidence", confidence);
    }

    /// It is provisional until the body has been seen.
    pub fn needsMore(self: Decision) Decision {
        return self.with("needs_more", true);
    }

    fn with(self: Decision, comptime field: []const u8, value: anytype) Decision {
        var decision = self;
        @field(decision, field) = value;
        return decision;
    }
};

pub const Mutation = struct {
    action: enum { pass_through, replace, drop },
    data: ?[]const u8 = null,
};

/// A JSON object of strings.
pub const Pairs = struct {
    items: []const [2][]const u8,

    pub fn jsonStringify(self: Pairs, writer: anytype) !void {
        try writer.beginObject();
        for (self.items) |pair| {
            try writer.objectField(pair[0]);
            try writer.write(pair[1]);
        }
        try writer.endObject();
    }
};

fn pairs(list: ?Pairs, name: []const u8, value: []const u8) Pairs {
    return .{ .items = appended([2][]const u8, if (list) |some| some.items else null, .{ name, value }) };
}

fn appended(comptime T: type, list: ?[]const T, item: T) []const T {
    return std.mem.concat(arena(), T, &.{ list orelse &.{}, &.{item} }) catch |failure| fail(failure);
}

// ---- The agent's log

pub const Level = enum(u32) { trace, debug, info, warning, err };

const host = struct {
    extern "sentinel" fn log(level: u32, at: [*]const u8, len: usize) void;
};

pub fn log(level: Level, text: []const u8) void {
    host.log(@intFromEnum(level), text.ptr, text.len);
}

// ---- The ABI

export fn alloc(size: usize) ?[*]u8 {
    const block_of_memory = heap.alloc(u8, size) catch return null;
    return block_of_memory.ptr;
}

export fn dealloc(at: [*]u8, size: usize) void {
    heap.free(at[0..size]);
}

/// Exports the hooks that the filter has.
pub fn exportHooks(comptime Filter: type) void {
    const events = .{
        .{ "on_request_headers", Request },
        .{ "on_response_headers", Response },
        .{ "on_request_body", Chunk },
        .{ "on_response_body", Chunk },
    };
    inline for (events) |event| {
        if (@hasDecl(Filter, event[0]))
            @export(&Hook(event[1], @field(Filter, event[0])).call, .{ .name = event[0] });
    }
    if (@hasDecl(Filter, "on_configure"))
        @export(&Configure(Filter).call, .{ .name = "on_configure" });
}

fn Hook(comptime Event: type, comptime hook: anytype) type {
    return struct {
        fn call(at: [*]const u8, len: usize) callconv(.c) u64 {
            defer _ = of_this_call.reset(.{ .retain_with_limit = 64 * 1024 });
            const event = json.parseFromSliceLeaky(Event, arena(), at[0..len], .{
                .ignore_unknown_fields = true,
                .duplicate_field_behavior = .use_last,
            }) catch return result(block(400, "Bad Request").tag("bad-input"));
            const decision: anyerror!Decision = hook(event);
            return result(decision catch |failure| fail(failure));
        }
    };
}

fn Configure(comptime Filter: type) type {
    return struct {
        var kept: ArenaAllocator = .init(heap);

        /// What the filter keeps of its configuration is good until the next one.
        fn call(at: [*]const u8, len: usize) callconv(.c) u64 {
            var next: ArenaAllocator = .init(heap);
            configure(next.allocator(), at[0..len]) catch |failure| {
                next.deinit();
                return result(.{ .@"error" = @errorName(failure) });
            };
            kept.deinit();
            kept = next;
            return 0;
        }

        fn configure(allocator: std.mem.Allocator, text: []const u8) !void {
            const Wrapped = struct { config: Filter.Config };
            const read = try json.parseFromSliceLeaky(Wrapped, allocator, text, .{ .allocate = .alloc_always });
            const configured: anyerror!void = Filter.on_configure(read.config);
            return configured;
        }
    };
}

/// The host frees it. No memory is an error that it reports: no result would mean "allow".
fn result(value: anytype) u64 {
    const text = json.Stringify.valueAlloc(heap, value, .{ .emit_null_optional_fields = false }) catch |failure| fail(failure);
    return @as(u64, @intFromPtr(text.ptr)) << 32 | text.len;
}

fn fail(failure: anyerror) noreturn {
    log(.err, @errorName(failure));
    @trap();
}
