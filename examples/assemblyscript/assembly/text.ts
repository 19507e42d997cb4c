// What the rules do to texts.
//
// The rules are about bytes, AssemblyScript's strings are UTF-16 units. To look for ASCII patterns, that is the same:
// in UTF-8 the bytes of ASCII characters occur nowhere but as these characters, so an ASCII byte is an ASCII unit and
// the other way round, in the same order, and no other byte or unit matches any of ours. For this reason letters are
// lowered by hand: toLowerCase() would make ASCII letters of others (the Kelvin sign, for one).

import { Builder, hex, isDigit } from "../../sdk/assemblyscript/json";

function lower(unit: i32): i32 {
  return unit >= 0x41 && unit <= 0x5a ? unit | 0x20 : unit;
}

export function lowered(text: string): string {
  const out = new Builder(text.length);
  for (let i = 0; i < text.length; i++) out.push(lower(text.charCodeAt(i)));
  return out.finish();
}

/** Takes percent-encoding off once (a byte becomes a unit), turns '+' into a blank, and lowers ASCII letters. */
export function decode(text: string): string {
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
export function pathOf(uri: string): string {
  let end = 0;
  while (end < uri.length && uri.charCodeAt(end) != 0x3f && uri.charCodeAt(end) != 0x23) end++;
  return uri.substring(0, end);
}

/** Masks card numbers, 16 digits or four times four with dashes between, but for the last four digits. */
export function maskCards(text: string): string {
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
