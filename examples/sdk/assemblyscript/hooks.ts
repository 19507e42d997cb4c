// One line for each export of a filter: it reads the event, has it decided and hands the decision over. What cannot be
// read is blocked and not asked about: a filter that let it through would be no filter.

import { block, Decision } from "./decision";
import { BodyChunk, Fields, Frame, Inspection, Request, Response } from "./event";
import { Findings } from "./findings";
import { quote, Value } from "./json";
import { give, read } from "./memory";

/** on_request_headers. */
export function onRequest(ptr: usize, len: usize, decide: (request: Request) => Decision): u64 {
  const fields = new Fields(read(ptr, len));
  const request = new Request(fields);
  return answer(fields.bad ? badInput() : decide(request));
}

/** on_response_headers. */
export function onResponse(ptr: usize, len: usize, decide: (response: Response) => Decision): u64 {
  const fields = new Fields(read(ptr, len));
  const response = new Response(fields);
  return answer(fields.bad ? badInput() : decide(response));
}

/** on_request_body or on_response_body. */
export function onBody(ptr: usize, len: usize, decide: (chunk: BodyChunk) => Decision): u64 {
  const fields = new Fields(read(ptr, len));
  const chunk = new BodyChunk(fields);
  return answer(fields.bad ? badInput() : decide(chunk));
}

/** on_websocket_frame. */
export function onFrame(ptr: usize, len: usize, decide: (frame: Frame) => Decision): u64 {
  const fields = new Fields(read(ptr, len));
  const frame = new Frame(fields);
  return answer(fields.bad ? badInput() : decide(frame));
}

/** on_guardrail. What cannot be read counts as found. */
export function onGuardrail(ptr: usize, len: usize, inspect: (inspection: Inspection) => Findings): u64 {
  const fields = new Fields(read(ptr, len));
  const inspection = new Inspection(fields);
  const unread = new Findings().found("bad-input", "the event cannot be read", "high", 0, 0);
  return give((fields.bad ? unread : inspect(inspection)).toString());
}

/** on_configure. `apply` gets the configuration, a JSON object, and returns why it refuses it, or null. */
export function onConfigure(ptr: usize, len: usize, apply: (config: Value) => string | null): u64 {
  const input = read(ptr, len);
  const config = input !== null ? input.get("config") : null;
  const error = config !== null && config.members !== null ? apply(config) : "there is no configuration to be read";
  return error !== null ? give(`{"error":${quote(error)}}`) : 0;
}

function badInput(): Decision {
  return block(400, "Bad Request").tag("bad-input");
}

function answer(decision: Decision): u64 {
  return give(decision.toString());
}
