// JSON for filters: parse() reads any JSON text, quote() writes a string. Nothing in here knows what an event is.

const QUOTE = 0x22, MINUS = 0x2d, BACKSLASH = 0x5c, U = 0x75;
const ESCAPES = '"\\/bfnrt', MEANINGS = '"\\/\b\f\n\r\t', HEX_DIGITS = "0123456789abcdef";

/** Values may lie this deep in one another: the recursion has to end before the stack does. */
const MAX_DEPTH = 64;

export enum Type {
  Null,
  Boolean,
  Number,
  /** A number of digits only, few enough for 64 bits. */
  Count,
  String,
  Array,
  Object,
}

export class Value {
  /** A string's characters, or a number as it was written. Empty for other types. */
  text: string = "";
  /** Of a boolean. */
  isTrue: bool = false;
  items: Value[] | null = null;
  members: Map<string, Value> | null = null;

  constructor(readonly type: Type) {}

  /** An object's member; null when there is none of this name, or when this is no object. */
  get(name: string): Value | null {
    const members = this.members;
    return members !== null && members.has(name) ? members.get(name) : null;
  }
}

/** Builds a string from UTF-16 units, without making a new string for each. */
export class Builder {
  private text: string;
  private length: i32 = 0;

  /** With room for so many units at first. */
  constructor(private room: i32) {
    this.text = changetype<string>(__new(<usize>room << 1, idof<string>()));
  }

  push(unit: i32): void {
    if (this.length == this.room) this.resize(2 * this.room + 16);
    store<u16>(changetype<usize>(this.text) + (<usize>this.length << 1), unit);
    this.length++;
  }

  /** The string, which is this builder's own memory: nothing may be pushed after that. */
  finish(): string {
    this.resize(this.length);
    return this.text;
  }

  private resize(room: i32): void {
    this.text = changetype<string>(__renew(changetype<usize>(this.text), <usize>room << 1));
    this.room = room;
  }
}

export function isDigit(unit: i32): bool {
  return unit >= 0x30 && unit <= 0x39;
}

/** The value of a hexadecimal digit, -1 for anything else. */
export function hex(unit: i32): i32 {
  if (isDigit(unit)) return unit - 0x30;
  const letter = unit | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x61 + 10 : -1;
}

/** Reads a JSON text (RFC 8259). Null when it is something else. */
export function parse(text: string): Value | null {
  const reader = new Reader(text);
  reader.skipSpace();
  const value = reader.value(0);
  reader.skipSpace();
  return reader.broken || reader.at < text.length ? null : value;
}

/** Writes a string as JSON, its quotes with it. */
export function quote(text: string): string {
  const out = new Builder(text.length + 2);
  out.push(QUOTE);
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    const short = unit < 0x20 || unit == QUOTE || unit == BACKSLASH ? indexOf(MEANINGS, unit) : -1;
    if (short >= 0) {
      out.push(BACKSLASH);
      out.push(ESCAPES.charCodeAt(short));
    } else if (unit < 0x20) {
      out.push(BACKSLASH);
      out.push(U);
      for (let shift = 12; shift >= 0; shift -= 4) out.push(HEX_DIGITS.charCodeAt((unit >> shift) & 15));
    } else {
      out.push(unit);
    }
  }
  out.push(QUOTE);
  return out.finish();
}

function boolean(isTrue: bool): Value {
  const value = new Value(Type.Boolean);
  value.isTrue = isTrue;
  return value;
}

function indexOf(text: string, unit: i32): i32 {
  let i = text.length - 1;
  while (i >= 0 && text.charCodeAt(i) != unit) i--;
  return i;
}

/**
 * Reads from left to right. A mistake puts it at the end of its text for good, where nothing can be read any more:
 * so every loop over items ends there, and only parse() has to look at `broken`.
 */
class Reader {
  at: i32 = 0;
  broken: bool = false;

  constructor(private readonly text: string) {}

  skipSpace(): void {
    while (this.take(0x20) || this.take(0x0a) || this.take(0x0d) || this.take(0x09)) {}
  }

  value(depth: i32): Value {
    if (depth > MAX_DEPTH) this.fail();
    const unit = this.text.charCodeAt(this.at); // -1 at the end
    if (unit == QUOTE) {
      const value = new Value(Type.String);
      value.text = this.string();
      return value;
    }
    if (unit == MINUS || isDigit(unit)) return this.number();
    if (this.take(0x7b)) return this.object(depth);
    if (this.take(0x5b)) return this.array(depth);
    if (this.takeWord("true")) return boolean(true);
    if (this.takeWord("false")) return boolean(false);
    if (!this.takeWord("null")) this.fail();
    return new Value(Type.Null);
  }

  private fail(): void {
    this.at = this.text.length;
    this.broken = true;
  }

  private take(unit: i32): bool {
    if (this.text.charCodeAt(this.at) != unit) return false;
    this.at++;
    return true;
  }

  private takeWord(word: string): bool {
    if (!this.text.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  private takeDigits(): bool {
    const start = this.at;
    while (isDigit(this.text.charCodeAt(this.at))) this.at++;
    return this.at > start;
  }

  private number(): Value {
    const start = this.at;
    let whole = !this.take(MINUS);
    let good = this.take(0x30) || this.takeDigits();
    if (this.take(0x2e)) {
      whole = false;
      good = this.takeDigits() && good;
    }
    if (this.take(0x65) || this.take(0x45)) {
      whole = false;
      if (!this.take(0x2b)) this.take(MINUS);
      good = this.takeDigits() && good;
    }
    const text = this.text.substring(start, this.at);
    if (!good) this.fail();
    const value = new Value(whole && text.length <= 19 ? Type.Count : Type.Number);
    value.text = text;
    return value;
  }

  private object(depth: i32): Value {
    const members = new Map<string, Value>();
    for (let first = true; this.toItem(first, 0x7d); first = false) {
      const name = this.string();
      this.skipSpace();
      if (!this.take(0x3a)) this.fail();
      this.skipSpace();
      members.set(name, this.value(depth + 1));
    }
    const value = new Value(Type.Object);
    value.members = members;
    return value;
  }

  private array(depth: i32): Value {
    const items = new Array<Value>();
    for (let first = true; this.toItem(first, 0x5d); first = false) items.push(this.value(depth + 1));
    const value = new Value(Type.Array);
    value.items = items;
    return value;
  }

  /** Goes to the next item of an array or object, from behind the opening bracket or behind an item. */
  private toItem(first: bool, closing: i32): bool {
    this.skipSpace();
    if (this.take(closing)) return false;
    if (!first && !this.take(0x2c)) {
      this.fail();
      return false;
    }
    this.skipSpace();
    return true; // at the end of the text, too: reading the item fails there
  }

  private string(): string {
    if (!this.take(QUOTE)) this.fail();
    const text = this.text;
    const start = this.at;
    let end = start;
    let escapes = false;
    for (let unit = text.charCodeAt(end); unit != QUOTE; unit = text.charCodeAt(end)) {
      if (unit < 0x20) { // at the end, too
        this.fail();
        return "";
      }
      if (unit == BACKSLASH) escapes = true;
      end += unit == BACKSLASH ? 2 : 1;
    }
    this.at = end + 1;
    return escapes ? this.unescaped(start, end) : text.substring(start, end);
  }

  private unescaped(start: i32, end: i32): string {
    const text = this.text;
    const out = new Builder(end - start);
    let halfPair = false; // behind the first half of a surrogate pair: the second has to follow, and nowhere else
    for (let i = start; i < end; i++) {
      let unit = text.charCodeAt(i);
      if (unit == BACKSLASH) {
        unit = text.charCodeAt(++i);
        if (unit == U) {
          unit = 0;
          for (let k = 0; k < 4; k++) unit = (unit << 4) | hex(text.charCodeAt(++i)); // below zero for good after a -1
        } else {
          unit = MEANINGS.charCodeAt(indexOf(ESCAPES, unit));
        }
      }
      if (unit < 0 || halfPair != ((unit & 0xfc00) == 0xdc00)) {
        this.fail();
        return "";
      }
      halfPair = (unit & 0xfc00) == 0xd800;
      out.push(unit);
    }
    if (halfPair) this.fail();
    return out.finish();
  }
}
