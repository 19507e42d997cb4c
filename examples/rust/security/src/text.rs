//! URL encoding, which attacks hide behind, and card numbers.

/// Undoes one layer of URL encoding and the letters' case, so that `%3CScript` is found as
/// `<script`. One layer only: that is what the upstream will undo.
pub fn decode(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        let (byte, behind) = match rest {
            [] => break,
            [b'%', high, low, behind @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_value(*high) << 4 | hex_value(*low), behind)
            }
            [b'+', behind @ ..] => (b' ', behind),
            [other, behind @ ..] => (*other, behind),
        };
        decoded.push(byte.to_ascii_lowercase());
        rest = behind;
    }
    // This need not be UTF-8 any more. What is not becomes U+FFFD, which no pattern has; ASCII,
    // which all patterns are, stays.
    String::from_utf8(decoded)
        .unwrap_or_else(|other| String::from_utf8_lossy(other.as_bytes()).into_owned())
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

/// What a card number looks like; `9` stands for any digit.
const CARD_NUMBERS: [&str; 2] = ["9999999999999999", "9999-9999-9999-9999"];

/// Puts `*` in place of all but the last four digits of each card number; None when there is none.
pub fn mask_card_numbers(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut masked = String::new();
    let mut copied = 0; // how much of the text is in `masked`
    let mut at = 0; // never behind a digit: no card number begins there
    while at < bytes.len() {
        if let Some(len) = card_number(&bytes[at..]) {
            let last_four = at + len - 4;
            masked.push_str(&text[copied..at]);
            masked.extend(text[at..last_four].chars().map(mask_digit));
            copied = last_four;
            at += len;
        } else {
            at += count_digits(&bytes[at..]).max(1);
        }
    }
    if copied == 0 {
        return None;
    }
    masked.push_str(&text[copied..]);
    Some(masked)
}

fn mask_digit(char: char) -> char {
    if char == '-' {
        char
    } else {
        '*'
    }
}

/// The length of the card number that `text` starts with. A longer row of digits is none.
fn card_number(text: &[u8]) -> Option<usize> {
    let shape = CARD_NUMBERS.iter().find(|shape| has_shape(text, shape))?;
    (count_digits(&text[shape.len()..]) == 0).then_some(shape.len())
}

fn has_shape(text: &[u8], shape: &str) -> bool {
    let fits = |(byte, wanted): (&u8, u8)| match wanted {
        b'9' => byte.is_ascii_digit(),
        other => *byte == other,
    };
    text.len() >= shape.len() && text.iter().zip(shape.bytes()).all(fits)
}

fn count_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}
