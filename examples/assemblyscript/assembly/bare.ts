// The ABI without an SDK, at its smallest: every response gets a header and loses another. It need not read the event
// for that; a filter that must wants a JSON reader, as the SDK has one.

/** The agent asks for room, writes the event there and calls the hook. The garbage collector must leave that alone. */
export function alloc(size: usize): usize {
  __collect(); // with --runtime minimal, here and nowhere else
  return __pin(__new(size, idof<ArrayBuffer>()));
}

/** Then it gives back the event's buffer and, when it has copied it, the result's. */
export function dealloc(ptr: usize, size: usize): void {
  __unpin(ptr);
}

/** Where the result is: the address in the upper half, the length in the lower. */
export function on_response_headers(ptr: usize, len: usize): u64 {
  const result = String.UTF8.encode(
    '{"decision":"allow","add_response_headers":{"X-Frame-Options":"DENY"},"remove_response_headers":["Server"]}'
  );
  return (<u64>__pin(changetype<usize>(result)) << 32) | <u64>result.byteLength;
}
