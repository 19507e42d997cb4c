// Turns attacks in the URI away and hardens responses.

import { allow, block, Decision, onRequest, onResponse, Request, Response } from "../sdk";
export { alloc, dealloc } from "../sdk";

export function on_request_headers(ptr: usize, len: usize): u64 {
  return onRequest(ptr, len, check);
}

export function on_response_headers(ptr: usize, len: usize): u64 {
  return onResponse(ptr, len, harden);
}

function check(request: Request): Decision {
  const uri = request.uri.toLowerCase();
  if (containsAny(uri, ["../"])) return forbid("path-traversal");
  if (containsAny(uri, ["<script", "%3cscript"])) return forbid("script-injection");
  if (containsAny(uri, ["union select", "union%20select", "union+select"])) return forbid("sql-injection");
  return allow();
}

function harden(response: Response): Decision {
  return allow()
    .setResponseHeader("X-Content-Type-Options", "nosniff")
    .setResponseHeader("X-Frame-Options", "DENY")
    .removeResponseHeader("Server");
}

function forbid(tag: string): Decision {
  return block(403, "Forbidden").tag(tag);
}

function containsAny(text: string, patterns: string[]): bool {
  for (let i = 0; i < patterns.length; i++) {
    if (text.includes(patterns[i])) return true;
  }
  return false;
}
