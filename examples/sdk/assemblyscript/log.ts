/** How much a line in the log matters. The agent's usual level hides Trace and Debug. */
export enum Level {
  Trace,
  Debug,
  Info,
  Warn,
  Error,
}

// @ts-ignore: decorator
@external("sentinel", "log")
declare function write(level: i32, ptr: usize, len: usize): void;

/** Writes a line to the agent's log. */
export function log(level: Level, text: string): void {
  const line = String.UTF8.encode(text);
  write(level, changetype<usize>(line), line.byteLength);
}
