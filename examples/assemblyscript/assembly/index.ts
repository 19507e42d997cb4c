// A security filter of headers and bodies: attack patterns and scanners are turned away, bots challenged, responses
// hardened, card numbers masked. examples/cases.json says exactly what it answers to what.

import {
  allow, block, BodyChunk, challenge, Decision, onBody, onRequest, onResponse, Request, Response,
} from "../../sdk/assemblyscript";
import { decode, lowered, maskCards, pathOf } from "./text";

export { alloc, dealloc } from "../../sdk/assemblyscript";

export function on_request_headers(ptr: usize, len: usize): u64 {
  return onRequest(ptr, len, checkRequest);
}

export function on_request_body(ptr: usize, len: usize): u64 {
  return onBody(ptr, len, checkBody);
}

export function on_response_headers(ptr: usize, len: usize): u64 {
  return onResponse(ptr, len, hardenResponse);
}

export function on_response_body(ptr: usize, len: usize): u64 {
  return onBody(ptr, len, maskBody);
}

function checkRequest(request: Request): Decision {
  const uri = decode(request.uri);
  const path = pathOf(uri);
  if (uri.includes("../") || uri.includes("..\\") || path.endsWith("/.."))
    return forbid("path-traversal", "SEC-001", "PATH_TRAVERSAL").confidence(0.95);
  if (uri.includes("union select") || uri.includes("' or ") || uri.includes("drop table") || uri.includes("; --"))
    return forbid("sql-injection", "SEC-002", "SQL_INJECTION").confidence(0.9);
  if (uri.includes("<script") || uri.includes("javascript:"))
    return forbid("script-injection", "SEC-003", "SCRIPT_INJECTION").confidence(0.9);

  // Whether the credentials are right is the upstream's business: here they only have to be there.
  const isAdmin = path == "/admin" || path.startsWith("/admin/");
  if (isAdmin && request.headers.get("Authorization") == "")
    return block(401, "Authentication required").tag("admin-auth").rule("SEC-010").reason("AUTHORIZATION_MISSING");

  const userAgent = lowered(request.headers.get("User-Agent"));
  if (userAgent == "") return challenge("js_challenge").tag("no-user-agent");
  if (userAgent.includes("sqlmap") || userAgent.includes("nikto")) return forbid("scanner", "SEC-020", "SCANNER");
  if (userAgent.includes("bot"))
    return challenge("captcha").param("site_key", "your-site-key").tag("suspicious-user-agent");

  const decision = allow()
    .setRequestHeader("X-Wasm-Processed", "true")
    .setRequestHeader("X-Client-IP", request.clientIp)
    .removeRequestHeader("X-Debug")
    .tag("processed");
  if (isAdmin) decision.tag("admin-access");
  const method = request.method;
  if (method == "POST" || method == "PUT" || method == "PATCH") decision.needsMore();
  return decision;
}

/** Looks at each chunk by itself: an attack that is cut in two by a chunk's end is not seen. */
function checkBody(chunk: BodyChunk): Decision {
  const text = decode(chunk.data);
  if (text.includes("<script") || text.includes("union select") || text.includes("drop table"))
    return forbid("body-attack", "SEC-030", "BODY_ATTACK");
  return allow().tag("body-clean");
}

function hardenResponse(response: Response): Decision {
  const decision = allow()
    .setResponseHeader("X-Content-Type-Options", "nosniff")
    .setResponseHeader("X-Frame-Options", "DENY")
    .setResponseHeader("Referrer-Policy", "no-referrer")
    .removeResponseHeader("Server")
    .removeResponseHeader("X-Powered-By")
    .tag("hardened");
  const type = lowered(response.headers.get("Content-Type"));
  if (type.startsWith("text/") || type.startsWith("application/json"))
    decision.removeResponseHeader("Content-Length"); // maskBody() may change it, and the proxy would keep what it was
  return decision;
}

function maskBody(chunk: BodyChunk): Decision {
  if (!chunk.isText) return allow(); // an image, an archive
  const masked = maskCards(chunk.data);
  return masked == chunk.data ? allow() : allow().replaceResponseBody(chunk, masked).tag("masked");
}

function forbid(tag: string, rule: string, reason: string): Decision {
  return block(403, "Forbidden").tag(tag).rule(rule).reason(reason);
}
