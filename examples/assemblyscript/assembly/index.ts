// A security filter for the agent, in AssemblyScript.
//
// One call: the host gets a buffer from alloc(), writes the event's JSON into it and calls a hook, which returns where
// the JSON of its result lies. json.ts reads and writes JSON; here are the memory, the hooks and the rules.
//
// The rules are about bytes, AssemblyScript's strings are UTF-16 units. To look for ASCII patterns, that is the same:
// in UTF-8 the bytes of ASCII characters occur nowhere but as these characters, so an ASCII byte is an ASCII unit and
// the other way round, in the same order, and no other byte or unit matches any of ours. For this reason letters are
// lowered by hand: toLowerCase() would make ASCII letters of others (the Kelvin sign, for one).

import { Builder, hex, isDigit, parse, quote, Type, Value } from "./json";

// ---- Memory ----
//
// What the host holds is pinned: the garbage collector leaves it alone until the host gives it back with dealloc().
// The runtime is AssemblyScript's "minimal" one, which collects when it is told to. alloc() is the place for it: a call
// begins there, nothing of the call before is needed any more, and memory stays as small as one call needs it.

export function alloc(size: usize): usize {
  __collect();
  return __pin(__new(size, idof<ArrayBuffer>()));
}

export function dealloc(ptr: usize, size: usize): void {
  __unpin(ptr);
}

/** Reads the event that the host wrote. Null when it isn't JSON, or when the JSON isn't UTF-8. */
function read(ptr: usize, len: usize): Value | null {
  const text = String.UTF8.decodeUnsafe(ptr, len);
  // decodeUnsafe() takes everything, but only UTF-8 comes back from it as it was.
  const again = String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE);
  if (again.byteLength != <i32>len || memory.compare(changetype<usize>(again), ptr, len) != 0) return null;
  return parse(text);
}

/** Hands a result to the host: the pointer in the upper half, the length in the lower. */
function give(result: string): u64 {
  const buffer = String.UTF8.encode(result);
  return (<u64>__pin(changetype<usize>(buffer)) << 32) | <u64>buffer.byteLength;
}

// ---- Hooks ----

export function on_request_headers(ptr: usize, len: usize): u64 {
  const event = read(ptr, len);
  return give(event !== null && isRequest(event) ? checkRequest(event) : BAD_INPUT);
}

export function on_request_body(ptr: usize, len: usize): u64 {
  const event = read(ptr, len);
  return give(event !== null && isBody(event) ? checkBody(event) : BAD_INPUT);
}

export function on_response_headers(ptr: usize, len: usize): u64 {
  const event = read(ptr, len);
  return give(event !== null && isResponse(event) ? hardenResponse(event) : BAD_INPUT);
}

export function on_response_body(ptr: usize, len: usize): u64 {
  const event = read(ptr, len);
  return give(event !== null && isBody(event) ? maskBody(event) : BAD_INPUT);
}

// ---- Events ----

function has(event: Value, name: string, type: Type): bool {
  const field = event.get(name);
  return field !== null && field.type == type;
}

function hasHeaders(event: Value): bool {
  const headers = event.get("headers");
  const members = headers !== null ? headers.members : null;
  if (members === null) return false;
  const values = members.values();
  for (let i = 0; i < values.length; i++) {
    if (values[i].type != Type.String) return false;
  }
  return true;
}

function isRequest(event: Value): bool {
  return (
    has(event, "method", Type.String) &&
    has(event, "uri", Type.String) &&
    has(event, "client_ip", Type.String) &&
    has(event, "correlation_id", Type.String) &&
    hasHeaders(event)
  );
}

function isResponse(event: Value): bool {
  return has(event, "status", Type.Count) && has(event, "correlation_id", Type.String) && hasHeaders(event);
}

function isBody(event: Value): bool {
  return (
    has(event, "correlation_id", Type.String) &&
    has(event, "chunk_index", Type.Count) &&
    has(event, "is_last", Type.Boolean) &&
    (has(event, "total_size", Type.Count) || has(event, "total_size", Type.Null)) &&
    has(event, "bytes_seen", Type.Count) &&
    has(event, "encoding", Type.String) &&
    has(event, "data", Type.String)
  );
}

/** The text of a member, empty when it is absent. */
function textOf(object: Value, name: string): string {
  const member = object.get(name);
  return member !== null ? member.text : "";
}

/** A header's value, empty when it is absent: no rule tells the two apart. */
function header(event: Value, name: string): string {
  return textOf(event.get("headers")!, name);
}

// ---- Rules ----

const BAD_INPUT = '{"decision":"block","status":400,"body":"Bad Request","tags":["bad-input"]}';
const ALLOW = '{"decision":"allow"}';
const ALLOW_BODY = '{"decision":"allow","tags":["body-clean"]}';
const JS_CHALLENGE = '{"decision":"challenge","challenge_type":"js_challenge","tags":["no-user-agent"]}';
const CAPTCHA =
  '{"decision":"challenge","challenge_type":"captcha","challenge_params":{"site_key":"your-site-key"},' +
  '"tags":["suspicious-user-agent"]}';

function block(status: i32, body: string, tag: string, rule: string, reason: string, confidence: string = ""): string {
  const more = confidence.length > 0 ? `,"confidence":${confidence}` : "";
  return (
    `{"decision":"block","status":${status},"body":"${body}","tags":["${tag}"],` +
    `"rule_ids":["${rule}"],"reason_codes":["${reason}"]${more}}`
  );
}

function checkRequest(event: Value): string {
  const uri = decode(textOf(event, "uri"));
  const path = pathOf(uri);
  if (uri.includes("../") || uri.includes("..\\") || path.endsWith("/.."))
    return block(403, "Forbidden", "path-traversal", "SEC-001", "PATH_TRAVERSAL", "0.95");
  if (uri.includes("union select") || uri.includes("' or ") || uri.includes("drop table") || uri.includes("; --"))
    return block(403, "Forbidden", "sql-injection", "SEC-002", "SQL_INJECTION", "0.9");
  if (uri.includes("<script") || uri.includes("javascript:"))
    return block(403, "Forbidden", "script-injection", "SEC-003", "SCRIPT_INJECTION", "0.9");

  const admin = path == "/admin" || path.startsWith("/admin/");
  if (admin && header(event, "Authorization").length == 0)
    return block(401, "Authentication required", "admin-auth", "SEC-010", "AUTHORIZATION_MISSING");

  const userAgent = lowered(header(event, "User-Agent"));
  if (userAgent.length == 0) return JS_CHALLENGE;
  if (userAgent.includes("sqlmap") || userAgent.includes("nikto"))
    return block(403, "Forbidden", "scanner", "SEC-020", "SCANNER");
  if (userAgent.includes("bot"))
    return CAPTCHA;

  const clientIp = quote(textOf(event, "client_ip"));
  const tags = admin ? '["processed","admin-access"]' : '["processed"]';
  const method = textOf(event, "method");
  const more = method == "POST" || method == "PUT" || method == "PATCH" ? ',"needs_more":true' : "";
  return (
    `{"decision":"allow","add_request_headers":{"X-Wasm-Processed":"true","X-Client-IP":${clientIp}},` +
    `"remove_request_headers":["X-Debug"],"tags":${tags}${more}}`
  );
}

function checkBody(event: Value): string {
  let data: string | null = textOf(event, "data");
  if (textOf(event, "encoding") == "base64") data = fromBase64(data);
  if (data === null) return BAD_INPUT;
  const text = decode(data);
  if (text.includes("<script") || text.includes("union select") || text.includes("drop table"))
    return block(403, "Forbidden", "body-attack", "SEC-030", "BODY_ATTACK");
  return ALLOW_BODY;
}

function hardenResponse(event: Value): string {
  const type = lowered(header(event, "Content-Type"));
  // maskBody() may change the body of these types, and the proxy would keep the length it had.
  const more = type.startsWith("text/") || type.startsWith("application/json") ? ',"Content-Length"' : "";
  return (
    '{"decision":"allow","add_response_headers":{"X-Content-Type-Options":"nosniff","X-Frame-Options":"DENY",' +
    `"Referrer-Policy":"no-referrer"},"remove_response_headers":["Server","X-Powered-By"${more}],"tags":["hardened"]}`
  );
}

function maskBody(event: Value): string {
  if (textOf(event, "encoding") == "base64") return ALLOW;
  const data = textOf(event, "data");
  const masked = maskCards(data);
  if (masked == data) return ALLOW;
  const index = textOf(event, "chunk_index");
  return (
    `{"decision":"allow","response_body_mutation":{"action":"replace","chunk_index":${index},` +
    `"data":${quote(masked)}},"tags":["masked"]}`
  );
}

// ---- What the rules do to texts ----

function lower(unit: i32): i32 {
  return unit >= 0x41 && unit <= 0x5a ? unit | 0x20 : unit;
}

function lowered(text: string): string {
  const out = new Builder(text.length);
  for (let i = 0; i < text.length; i++) out.push(lower(text.charCodeAt(i)));
  return out.finish();
}

/** Takes percent-encoding off once (a byte becomes a unit), turns '+' into a blank, and lowers ASCII letters. */
function decode(text: string): string {
  const out = new Builder(text.length);
  for (let i = 0; i < text.length; i++) {
    let unit = text.charCodeAt(i);
    if (unit == 0x2b) {
      unit = 0x20;
    } else if (unit == 0x25) {
      const high = hex(text.charCodeAt(i + 1));
      const low = hex(text.charCodeAt(i + 2));
      if (high >= 0 && low >= 0) {
        unit = (high << 4) | low;
        i += 2;
      }
    }
    out.push(lower(unit));
  }
  return out.finish();
}

/** What comes before the first '?' or '#'. */
function pathOf(uri: string): string {
  let end = 0;
  while (end < uri.length && uri.charCodeAt(end) != 0x3f && uri.charCodeAt(end) != 0x23) end++;
  return uri.substring(0, end);
}

/** Decodes base64 as RFC 4648 has it (padded, nothing else in it), one unit for a byte. Null when it isn't that. */
function fromBase64(text: string): string | null {
  if (text.length % 4 != 0) return null;
  const end = text.length - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0);
  const out = new Builder((end >> 2) * 3 + 2);
  let bits = 0;
  let held = 0; // so many of the low bits are still to be written
  for (let i = 0; i < end; i++) {
    const value = base64Value(text.charCodeAt(i));
    if (value < 0) return null;
    bits = (bits << 6) | value;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out.push((bits >> held) & 0xff);
    }
  }
  return (bits & ((1 << held) - 1)) == 0 ? out.finish() : null;
}

function base64Value(unit: i32): i32 {
  if (unit >= 0x41 && unit <= 0x5a) return unit - 0x41;
  if (unit >= 0x61 && unit <= 0x7a) return unit - 0x61 + 26;
  if (isDigit(unit)) return unit - 0x30 + 52;
  return unit == 0x2b ? 62 : unit == 0x2f ? 63 : -1;
}

/** Masks card numbers, 16 digits or four times four with dashes between, but for the last four digits. */
function maskCards(text: string): string {
  const out = new Builder(text.length);
  let i = 0;
  while (i < text.length) {
    const run = digitsAt(text, i);
    const four = run == 4 && dashAndFourAt(text, i + 4) && dashAndFourAt(text, i + 9) && dashAndFourAt(text, i + 14);
    const card = run == 16 ? 16 : four ? 19 : 0;
    // A card begins where a run of digits does, never within it.
    const end = i + max(max(card, run), 1);
    const visible = i + card - 4;
    for (; i < end; i++) {
      const unit = text.charCodeAt(i);
      out.push(i < visible && isDigit(unit) ? 0x2a : unit);
    }
  }
  return out.finish();
}

/** How many digits there are from here on. */
function digitsAt(text: string, start: i32): i32 {
  let end = start;
  while (isDigit(text.charCodeAt(end))) end++;
  return end - start;
}

function dashAndFourAt(text: string, i: i32): bool {
  return text.charCodeAt(i) == 0x2d && digitsAt(text, i + 1) == 4;
}
