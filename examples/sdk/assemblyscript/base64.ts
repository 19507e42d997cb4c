// Base64 as RFC 4648 has it: padded, nothing else in it. Bytes are strings here, one unit for a byte.

import { Builder, isDigit } from "./json";

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PAD = 0x3d;

/** Null when it isn't base64. */
export function fromBase64(text: string): string | null {
  if (text.length % 4 != 0) return null;
  const end = text.length - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0);
  const out = new Builder((end >> 2) * 3 + 2);
  let bits = 0;
  let held = 0; // so many of the low bits are still to be written
  for (let i = 0; i < end; i++) {
    const value = valueOf(text.charCodeAt(i));
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

export function toBase64(bytes: string): string {
  const out = new Builder((bytes.length + 2) / 3 * 4);
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const three =
      (bytes.charCodeAt(i) << 16) |
      (left > 1 ? bytes.charCodeAt(i + 1) << 8 : 0) |
      (left > 2 ? bytes.charCodeAt(i + 2) : 0);
    for (let k = 0; k < 4; k++) out.push(k > left ? PAD : ALPHABET.charCodeAt((three >> (18 - 6 * k)) & 63));
  }
  return out.finish();
}

function valueOf(unit: i32): i32 {
  if (unit >= 0x41 && unit <= 0x5a) return unit - 0x41;
  if (unit >= 0x61 && unit <= 0x7a) return unit - 0x61 + 26;
  if (isDigit(unit)) return unit - 0x30 + 52;
  return unit == 0x2b ? 62 : unit == 0x2f ? 63 : -1;
}
