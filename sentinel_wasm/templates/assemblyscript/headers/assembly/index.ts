// Tells the upstream where a request came from, and clients not what serves them.

import { allow, Decision, onRequest, onResponse, Request, Response } from "../sdk";
export { alloc, dealloc } from "../sdk";

export function on_request_headers(ptr: usize, len: usize): u64 {
  return onRequest(ptr, len, toUpstream);
}

export function on_response_headers(ptr: usize, len: usize): u64 {
  return onResponse(ptr, len, toClient);
}

function toUpstream(request: Request): Decision {
  return allow().setRequestHeader("X-Request-Source", request.clientIp).removeRequestHeader("X-Debug");
}

function toClient(response: Response): Decision {
  return allow()
    .setResponseHeader("X-Served-By", "@NAME@")
    .removeResponseHeader("Server")
    .removeResponseHeader("X-Powered-By");
}
