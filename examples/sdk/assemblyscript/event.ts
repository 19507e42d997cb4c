// What the hooks get. Header names are canonical (User-Agent), and several values of one header are one string.

import { fromBase64 } from "./base64";
import { Type, Value } from "./json";

export class Request {
  readonly method: string;
  readonly uri: string;
  readonly clientIp: string;
  readonly correlationId: string;
  readonly headers: Headers;

  constructor(fields: Fields) {
    this.method = fields.text("method");
    this.uri = fields.text("uri");
    this.clientIp = fields.text("client_ip");
    this.correlationId = fields.text("correlation_id");
    this.headers = fields.headers();
  }
}

export class Response {
  readonly status: u64;
  readonly correlationId: string;
  readonly headers: Headers;

  constructor(fields: Fields) {
    this.status = fields.count("status");
    this.correlationId = fields.text("correlation_id");
    this.headers = fields.headers();
  }
}

export class Headers {
  constructor(readonly members: Map<string, Value>) {}

  /** A header's value, empty where there is no such header. */
  get(name: string): string {
    return this.has(name) ? this.members.get(name).text : "";
  }

  has(name: string): bool {
    return this.members.has(name);
  }

  names(): string[] {
    return this.members.keys();
  }
}

/** A body, or a part of one. */
export class BodyChunk {
  readonly correlationId: string;
  readonly index: u64;
  readonly isLast: bool;
  /** Whether the proxy knows the body's size. */
  readonly hasTotalSize: bool;
  /** In bytes; 0 when it is not known. */
  readonly totalSize: u64;
  /** How many bytes of the body have come, with this chunk. */
  readonly bytesSeen: u64;
  /** Whether the chunk is UTF-8. */
  readonly isText: bool;
  /** The text, or else a character of 0 to 255 for each byte. */
  readonly data: string;

  constructor(fields: Fields) {
    const hasTotalSize = !fields.isNull("total_size");
    const isText = fields.text("encoding") == "utf-8";
    this.correlationId = fields.text("correlation_id");
    this.index = fields.count("chunk_index");
    this.isLast = fields.flag("is_last");
    this.hasTotalSize = hasTotalSize;
    this.totalSize = hasTotalSize ? fields.count("total_size") : 0;
    this.bytesSeen = fields.count("bytes_seen");
    this.isText = isText;
    this.data = isText ? fields.text("data") : fields.base64("data");
  }
}

/** What on_websocket_frame gets. */
export class Frame {
  readonly correlationId: string;
  /** text, binary, continuation, ping, pong or close. */
  readonly opcode: string;
  readonly toServer: bool;
  /** Among those of its direction. */
  readonly index: u64;
  readonly fin: bool;
  /** Empty when there is none. */
  readonly routeId: string;
  readonly clientIp: string;
  /** Whether the payload is UTF-8. */
  readonly isText: bool;
  /** The text, or else a character of 0 to 255 for each byte. */
  readonly data: string;

  constructor(fields: Fields) {
    const isText = fields.text("encoding") == "utf-8";
    this.correlationId = fields.text("correlation_id");
    this.opcode = fields.text("opcode");
    this.toServer = fields.flag("client_to_server");
    this.index = fields.count("frame_index");
    this.fin = fields.flag("fin");
    this.routeId = fields.textOrEmpty("route_id");
    this.clientIp = fields.text("client_ip");
    this.isText = isText;
    this.data = isText ? fields.text("data") : fields.base64("data");
  }
}

/** What on_guardrail gets. */
export class Inspection {
  readonly correlationId: string;
  /** prompt_injection or pii_detection. */
  readonly type: string;
  readonly content: string;
  /** Empty when there is none, as routeId. */
  readonly model: string;
  readonly routeId: string;
  /** What to look for; none: everything. */
  readonly categories: string[];

  constructor(fields: Fields) {
    this.correlationId = fields.text("correlation_id");
    this.type = fields.text("inspection_type");
    this.content = fields.text("content");
    this.model = fields.textOrEmpty("model");
    this.routeId = fields.textOrEmpty("route_id");
    this.categories = fields.texts("categories");
  }
}

/** The members of an event. `bad` says whether something was not what was expected. */
export class Fields {
  bad: bool = false;

  constructor(private readonly event: Value | null) {}

  text(name: string): string {
    return this.required(name, Type.String).text;
  }

  /** Of a member that has to be there, but may be null. */
  textOrEmpty(name: string): string {
    return this.isNull(name) ? "" : this.text(name);
  }

  texts(name: string): string[] {
    const found = new Array<string>();
    const items = this.required(name, Type.Array).items;
    if (items === null) return found;
    for (let i = 0; i < items.length; i++) {
      if (items[i].type != Type.String) this.bad = true;
      found.push(items[i].text);
    }
    return found;
  }

  count(name: string): u64 {
    return U64.parseInt(this.required(name, Type.Count).text);
  }

  flag(name: string): bool {
    return this.required(name, Type.Boolean).isTrue;
  }

  isNull(name: string): bool {
    const value = this.get(name);
    return value !== null && value.type == Type.Null;
  }

  base64(name: string): string {
    const data = fromBase64(this.text(name));
    if (data === null || this.text("encoding") != "base64") this.bad = true;
    return data !== null ? data : "";
  }

  headers(): Headers {
    const members = this.required("headers", Type.Object).members;
    const headers = new Headers(members !== null ? members : new Map<string, Value>());
    const values = headers.members.values();
    for (let i = 0; i < values.length; i++) {
      if (values[i].type != Type.String) this.bad = true;
    }
    return headers;
  }

  private get(name: string): Value | null {
    const event = this.event;
    return event !== null ? event.get(name) : null;
  }

  private required(name: string, type: Type): Value {
    const value = this.get(name);
    if (value !== null && value.type == type) return value;
    this.bad = true;
    return new Value(type);
  }
}
