// What the host holds is pinned: the garbage collector leaves it alone until the host gives it back with dealloc().
// The runtime is AssemblyScript's "minimal" one, which collects when it is told to. alloc() is the place for it: a call
// begins there, nothing of the call before is needed any more, and memory stays as small as one call needs it.

import { parse, Value } from "./json";

export function alloc(size: usize): usize {
  __collect();
  return __pin(__new(size, idof<ArrayBuffer>()));
}

export function dealloc(ptr: usize, size: usize): void {
  __unpin(ptr);
}

/** Reads the JSON that the host wrote. Null when it isn't JSON, or when the JSON isn't UTF-8. */
export function read(ptr: usize, len: usize): Value | null {
  const text = String.UTF8.decodeUnsafe(ptr, len);
  // decodeUnsafe() takes everything, but only UTF-8 comes back from it as it was.
  const again = String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE);
  if (again.byteLength != <i32>len || memory.compare(changetype<usize>(again), ptr, len) != 0) return null;
  return parse(text);
}

/** Hands a result to the host: the pointer in the upper half, the length in the lower. */
export function give(result: string): u64 {
  const buffer = String.UTF8.encode(result);
  return (<u64>__pin(changetype<usize>(buffer)) << 32) | <u64>buffer.byteLength;
}
