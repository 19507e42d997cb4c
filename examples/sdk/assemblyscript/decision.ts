// What a hook answers. allow(), block(), redirect() and challenge() begin a decision, its methods add to it and return it.

import { toBase64 } from "./base64";
import { BodyChunk } from "./event";
import { quote } from "./json";

/** Lets the request or response pass. */
export function allow(): Decision {
  return new Decision("allow");
}

/** Answers in the upstream's place, with a status of 100 to 599. */
export function block(status: i32, body: string): Decision {
  return new Decision("block").put("status", status.toString()).put("body", quote(body));
}

/** Sends the client to another URL; the status is 301, 302, 303, 307 or 308. */
export function redirect(status: i32, url: string): Decision {
  return new Decision("redirect").put("status", status.toString()).put("body", quote(url));
}

/** Has the proxy put a challenge of its own to the client, as "captcha" or "js_challenge". */
export function challenge(kind: string): Decision {
  return new Decision("challenge").put("challenge_type", quote(kind));
}

/** Keeps a WebSocket's frame back. */
export function dropFrame(): Decision {
  return new Decision("drop");
}

/** Ends a WebSocket with a code of RFC 6455, section 7.4, and a reason of at most 123 bytes. */
export function close(code: i32, reason: string): Decision {
  return new Decision("close").put("code", code.toString()).put("reason", quote(reason));
}

export class Decision {
  /** The members that are whole, as JSON. */
  private readonly members: Map<string, string> = new Map();
  /** The items of members that are arrays, and the members of those that are objects; as JSON. */
  private readonly arrays: Map<string, string[]> = new Map();
  private readonly objects: Map<string, Map<string, string>> = new Map();

  constructor(verdict: string) {
    this.put("decision", quote(verdict));
  }

  /** A parameter of a challenge. */
  param(name: string, value: string): Decision {
    return this.set("challenge_params", name, quote(value));
  }

  /** Puts a value in the place of all that the header had. */
  setRequestHeader(name: string, value: string): Decision {
    return this.set("add_request_headers", name, quote(value));
  }

  /** Adds a value to those that the header has. */
  appendRequestHeader(name: string, value: string): Decision {
    return this.append("append_request_headers", name, value);
  }

  /** Comes after all that is set, in whatever order the methods are called. */
  removeRequestHeader(name: string): Decision {
    return this.push("remove_request_headers", name);
  }

  setResponseHeader(name: string, value: string): Decision {
    return this.set("add_response_headers", name, quote(value));
  }

  /** Adds a value to those that the header has: a further Set-Cookie, for one. */
  appendResponseHeader(name: string, value: string): Decision {
    return this.append("append_response_headers", name, value);
  }

  removeResponseHeader(name: string): Decision {
    return this.push("remove_response_headers", name);
  }

  /** Puts data, of the same form as the chunk's, in its place. Proxies take only text there. */
  replaceRequestBody(chunk: BodyChunk, data: string): Decision {
    return this.put("request_body_mutation", replacement(chunk, data));
  }

  /**
   * Puts data, of the same form as the chunk's, in its place. A Content-Length that the upstream sent has to be removed
   * in on_response_headers.
   */
  replaceResponseBody(chunk: BodyChunk, data: string): Decision {
    return this.put("response_body_mutation", replacement(chunk, data));
  }

  /** Takes the chunk out of the request. */
  dropRequestBody(chunk: BodyChunk): Decision {
    return this.put("request_body_mutation", mutation("drop", chunk));
  }

  /** Takes the chunk out of the response. */
  dropResponseBody(chunk: BodyChunk): Decision {
    return this.put("response_body_mutation", mutation("drop", chunk));
  }

  /** Makes the decision provisional: the body may still tell against the request. */
  needsMore(): Decision {
    return this.put("needs_more", "true");
  }

  /** For logs and metrics, as all that follows. */
  tag(tag: string): Decision {
    return this.push("tags", tag);
  }

  /** The id of a rule that decided. */
  rule(id: string): Decision {
    return this.push("rule_ids", id);
  }

  reason(code: string): Decision {
    return this.push("reason_codes", code);
  }

  /** How sure the filter is, 0 to 1. */
  confidence(value: f64): Decision {
    return this.put("confidence", value.toString());
  }

  /** Adds to the routing metadata. */
  route(name: string, value: string): Decision {
    return this.set("routing_metadata", name, quote(value));
  }

  /** As the host reads it. */
  toString(): string {
    const names = this.arrays.keys();
    for (let i = 0; i < names.length; i++) this.put(names[i], `[${this.arrays.get(names[i]).join(",")}]`);
    const others = this.objects.keys();
    for (let i = 0; i < others.length; i++) this.put(others[i], toObject(this.objects.get(others[i])));
    return toObject(this.members);
  }

  /** For this module alone: a member as JSON. */
  put(name: string, json: string): Decision {
    this.members.set(name, json);
    return this;
  }

  private push(name: string, text: string): Decision {
    if (!this.arrays.has(name)) this.arrays.set(name, []);
    this.arrays.get(name).push(quote(text));
    return this;
  }

  private set(name: string, key: string, json: string): Decision {
    if (!this.objects.has(name)) this.objects.set(name, new Map());
    this.objects.get(name).set(key, json);
    return this;
  }

  /** Adds to an array in an object. */
  private append(name: string, key: string, text: string): Decision {
    const found = this.objects.has(name) && this.objects.get(name).has(key);
    const before = found ? this.objects.get(name).get(key).slice(0, -1) + "," : "[";
    return this.set(name, key, before + quote(text) + "]");
  }
}

function replacement(chunk: BodyChunk, data: string): string {
  return chunk.isText
    ? mutation("replace", chunk, `,"data":${quote(data)}`)
    : mutation("replace", chunk, `,"encoding":"base64","data":"${toBase64(data)}"`);
}

function mutation(action: string, chunk: BodyChunk, more: string = ""): string {
  return `{"action":"${action}","chunk_index":${chunk.index}${more}}`;
}

function toObject(members: Map<string, string>): string {
  const names = members.keys();
  const texts = new Array<string>(names.length);
  for (let i = 0; i < names.length; i++) texts[i] = quote(names[i]) + ":" + members.get(names[i]);
  return `{${texts.join(",")}}`;
}
