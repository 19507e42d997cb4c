// For WebAssembly filters of a Sentinel or Zentinel proxy. A filter exports alloc, dealloc and the hooks that it has,
// and no others; what it decides is a function for each.
//
//     import { allow, block, Decision, onRequest, Request } from "../sdk";
//     export { alloc, dealloc } from "../sdk";
//
//     export function on_request_headers(ptr: usize, len: usize): u64 {
//       return onRequest(ptr, len, decide);
//     }
//
//     function decide(request: Request): Decision {
//       return request.uri.startsWith("/admin") ? block(403, "Forbidden").tag("admin") : allow();
//     }

export { onBody, onConfigure, onFrame, onGuardrail, onRequest, onResponse } from "./hooks";
export { alloc, dealloc } from "./memory";
export { BodyChunk, Frame, Headers, Inspection, Request, Response } from "./event";
export { allow, block, challenge, close, Decision, dropFrame, redirect } from "./decision";
export { Findings } from "./findings";
export { Level, log } from "./log";
export { Type, Value } from "./json";
