// Lets every request through.

import { allow, Decision, onRequest, Request } from "../sdk";
export { alloc, dealloc } from "../sdk";

export function on_request_headers(ptr: usize, len: usize): u64 {
  return onRequest(ptr, len, decide);
}

function decide(request: Request): Decision {
  return allow().tag("seen");
}
