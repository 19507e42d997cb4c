// For tests/test_sdk.py: a filter that uses everything that the SDK has. A request's uri says which decision it wants.

import {
  allow, block, BodyChunk, challenge, close, Decision, dropFrame, Findings, Frame, Inspection, Level, log, onBody,
  onConfigure, onFrame, onGuardrail, onRequest, onResponse, redirect, Request, Response, Type, Value,
} from "..";
export { alloc, dealloc } from "..";

export function on_configure(ptr: usize, len: usize): u64 {
  return onConfigure(ptr, len, (config: Value): string | null => {
    const greeting = config.get("greeting");
    if (greeting === null) return null;
    if (greeting.type != Type.String) return 'greeting has to be "text"';
    log(Level.Warn, greeting.text);
    return null;
  });
}

export function on_request_headers(ptr: usize, len: usize): u64 {
  return onRequest(ptr, len, (request: Request): Decision => {
    if (request.uri == "/block") return block(403, 'No "entry"');
    if (request.uri == "/redirect") return redirect(307, "/b");
    if (request.uri == "/challenge") return challenge("captcha").param("key", "v").param("size", "2");
    if (request.uri == "/headers")
      return allow()
        .setRequestHeader("A", "1").setRequestHeader("A", "2")
        .appendRequestHeader("B", "3").appendRequestHeader("B", "4").appendRequestHeader("C", "5")
        .removeRequestHeader("D").removeRequestHeader("E");
    if (request.uri == "/audit")
      return allow().needsMore().tag("a").tag("b").rule("R1").reason("C1").confidence(0.25).route("pool", "blue");
    return allow().tag(`${request.method} ${request.clientIp} ${request.correlationId} ${request.headers.get("Host")}`)
      .tag(`${request.headers.names().length}${request.headers.get("Missing")}`);
  });
}

export function on_response_headers(ptr: usize, len: usize): u64 {
  return onResponse(ptr, len, (response: Response): Decision =>
    allow().tag(`${response.status} ${response.correlationId} ${response.headers.get("Server")}`)
      .setResponseHeader("A", "1")
      .appendResponseHeader("Set-Cookie", "a=b").appendResponseHeader("Set-Cookie", "c=d")
      .removeResponseHeader("Server")
  );
}

export function on_request_body(ptr: usize, len: usize): u64 {
  return onBody(ptr, len, (chunk: BodyChunk): Decision => {
    const size = chunk.hasTotalSize ? chunk.totalSize.toString() : "unknown";
    const decision = allow().tag(`${chunk.index} ${chunk.isLast} ${size} ${chunk.bytesSeen} ${chunk.isText}`);
    return chunk.data == "drop" ? decision.dropRequestBody(chunk) : decision.replaceRequestBody(chunk, chunk.data + "!");
  });
}

export function on_response_body(ptr: usize, len: usize): u64 {
  return onBody(ptr, len, (chunk: BodyChunk): Decision =>
    chunk.data == "drop" ? allow().dropResponseBody(chunk) : allow().replaceResponseBody(chunk, chunk.data + "!")
  );
}

export function on_websocket_frame(ptr: usize, len: usize): u64 {
  return onFrame(ptr, len, (frame: Frame): Decision => {
    if (!frame.isText) return dropFrame();
    const about = `${frame.opcode} ${frame.toServer} ${frame.index} ${frame.fin} ${frame.routeId} ${frame.clientIp}`;
    return close(1003, `no "${frame.data}"`).tag(about);
  });
}

export function on_guardrail(ptr: usize, len: usize): u64 {
  return onGuardrail(ptr, len, (inspection: Inspection): Findings => {
    if (inspection.content == "") return new Findings();
    const about = `${inspection.type} ${inspection.model} ${inspection.routeId} ${inspection.categories.join("+")}`;
    return new Findings().found("email", about, "low", 0, 2).redacted('"*"');
  });
}
