// Looks into bodies: turns scripts in requests away, and masks secrets in responses.
//
// Each chunk is looked at by itself: what is cut in two by a chunk's end is not seen. Headers pass, because there is
// no hook for them.

import { allow, block, BodyChunk, Decision, onBody } from "../sdk";
export { alloc, dealloc } from "../sdk";

export function on_request_body(ptr: usize, len: usize): u64 {
  return onBody(ptr, len, check);
}

export function on_response_body(ptr: usize, len: usize): u64 {
  return onBody(ptr, len, mask);
}

function check(chunk: BodyChunk): Decision {
  if (chunk.data.toLowerCase().includes("<script")) return block(403, "Forbidden").tag("body-attack");
  return allow();
}

function mask(chunk: BodyChunk): Decision {
  if (!chunk.isText || !chunk.data.includes("secret")) return allow();
  return allow().replaceResponseBody(chunk, chunk.data.replaceAll("secret", "******")).tag("masked");
}
