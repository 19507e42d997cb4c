// A filter without the SDK: all that the agent and a module say to each other is in this file. It blocks what has
// /admin in its URI.

export function alloc(size: usize): usize {
  __collect(); // with --runtime minimal, here and nowhere else
  return __pin(__new(size, idof<ArrayBuffer>())); // the garbage collector does not know what the agent holds
}

export function dealloc(ptr: usize, size: usize): void {
  __unpin(ptr);
}

export function on_request_headers(ptr: usize, len: usize): u64 {
  const uri = uriIn(String.UTF8.decodeUnsafe(ptr, len));
  const answer =
    uri === null ? '{"decision":"block","status":400,"body":"Bad Request"}'
    : uri.includes("/admin") ? '{"decision":"block","status":403,"body":"Forbidden"}'
    : '{"decision":"allow"}';
  const buffer = String.UTF8.encode(answer);
  return (<u64>__pin(changetype<usize>(buffer)) << 32) | <u64>buffer.byteLength;
}

/**
 * What the agent writes has no blanks between names and values, and no quote within a string that is not escaped: so
 * this cannot be another member's text. For more than one field, take the SDK's JSON reader.
 */
function uriIn(event: string): string | null {
  const name = '"uri":"';
  const at = event.indexOf(name);
  if (at < 0) return null;
  let end = at + name.length;
  while (end < event.length && event.charCodeAt(end) != 0x22) end += event.charCodeAt(end) == 0x5c ? 2 : 1;
  return event.substring(at + name.length, end);
}
