/*
 * Texts, and JSON read in place and written: the part of the example that any filter can use as it is.
 * A header with static functions, so that there is nothing to link.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

/* ---- Texts ---- */

/* Bytes somewhere in memory, no NUL behind them. */
typedef struct {
    u8 *at;
    u32 len;
} text;

#define TEXT(literal) {(u8 *)(literal), sizeof(literal) - 1}

static bool equal(text a, text b) {
    if (a.len != b.len)
        return false;
    for (u32 i = 0; i < a.len; i++)
        if (a.at[i] != b.at[i])
            return false;
    return true;
}

static bool starts_with(text t, text start) {
    return t.len >= start.len && equal((text){t.at, start.len}, start);
}

static bool ends_with(text t, text end) {
    return t.len >= end.len && equal((text){t.at + (t.len - end.len), end.len}, end);
}

static bool is_digit(u8 c) {
    return c >= '0' && c <= '9';
}

/* The value of a hexadecimal digit, 16 for any other byte. */
static u32 hex(u8 c) {
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/* ---- Reading ----
 *
 * As strict as RFC 8259, on UTF-8. A mistake puts the reader at the end of its text for good, where nothing can be
 * read any more: every loop over items ends there, and only who began the reading has to look at `broken`. */

#define MAX_DEPTH 64 /* of values in values: the recursion has to end before the stack does */
#define NO_CHARACTER 0x110000

struct reader {
    u8 *at, *end;
    bool broken;
};

/* The types of values, as bits, because a field may allow several. COUNT: digits only, and they fit 64 bits. */
enum type { STRING = 1, COUNT = 2, NUMBER = 4, BOOLEAN = 8, NOTHING = 16, ARRAY = 32, OBJECT = 64 };

struct value {
    enum type type;
    text text; /* of a number, or of a string (unescaped); else empty */
};

static bool fail(struct reader *r) {
    r->at = r->end;
    r->broken = true;
    return false;
}

static bool take(struct reader *r, u8 c) {
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool take_word(struct reader *r, text word) {
    if (!starts_with((text){r->at, (u32)(r->end - r->at)}, word))
        return false;
    r->at += word.len;
    return true;
}

static bool take_digits(struct reader *r) {
    u8 *start = r->at;
    while (r->at < r->end && is_digit(*r->at))
        r->at++;
    return r->at > start;
}

static void skip_space(struct reader *r) {
    while (take(r, ' ') || take(r, '\n') || take(r, '\r') || take(r, '\t'))
        ;
}

/* The length of the UTF-8 sequence of two to four bytes at `at`, 0 when there is none (RFC 3629: no overlong forms,
 * no surrogates). */
static u32 utf8_length(const u8 *at, const u8 *end) {
    u8 c = *at;
    u32 len = c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if ((size_t)(end - at) < len)
        return 0;
    for (u32 i = 1; i < len; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] > 0x9f) || (c == 0xf0 && at[1] < 0x90) ||
        (c == 0xf4 && at[1] > 0x8f))
        return 0;
    return len;
}

static u8 *put_utf8(u8 *to, u32 code) {
    static const u8 lead[] = {0, 0xc0, 0xe0, 0xf0};
    u32 more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to++ = (u8)(lead[more] | code >> 6 * more);
    while (more--)
        *to++ = (u8)(0x80 | (code >> 6 * more & 0x3f));
    return to;
}

static u32 read_hex4(struct reader *r) {
    u32 code = 0;
    for (int i = 0; i < 4; i++) {
        if (r->at == r->end || hex(*r->at) > 15)
            return NO_CHARACTER;
        code = code << 4 | hex(*r->at++);
    }
    return code;
}

/* The character that an escape means, read from behind its backslash; NO_CHARACTER when it is no escape. */
static u32 read_escape(struct reader *r) {
    static const u8 short_forms[][2] = {{'"', '"'},  {'\\', '\\'}, {'/', '/'},  {'n', '\n'},
                                        {'t', '\t'}, {'r', '\r'},  {'b', '\b'}, {'f', '\f'}};
    for (u32 i = 0; i < COUNT_OF(short_forms); i++)
        if (take(r, short_forms[i][0]))
            return short_forms[i][1];
    if (!take(r, 'u'))
        return NO_CHARACTER;
    u32 code = read_hex4(r);
    if (code < 0xd800 || code > 0xdfff)
        return code;
    /* Half of a surrogate pair means nothing without the other half. */
    u32 low = code < 0xdc00 && take(r, '\\') && take(r, 'u') ? read_hex4(r) : NO_CHARACTER;
    return low >= 0xdc00 && low <= 0xdfff ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : NO_CHARACTER;
}

/* A character of one byte that stands for itself in a string. */
static bool is_plain(u8 c) {
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* The same of eight at once. A byte that is not plain sets its top bit in one of the four terms: not ASCII, below
 * 0x20, a quote, a backslash (Hacker's Delight, 6-1). */
static bool are_plain(u64 eight) {
    const u64 ones = 0x0101010101010101, quote = eight ^ ones * '"', backslash = eight ^ ones * '\\';
    const u64 odd = eight | ((eight - ones * 0x20) & ~eight) | ((quote - ones) & ~quote) |
                    ((backslash - ones) & ~backslash);
    return !(odd & ones * 0x80);
}

/* Reads a string and unescapes it in place. Writing never overtakes reading: no escape is shorter than its UTF-8. */
static text read_string(struct reader *r) {
    if (!take(r, '"'))
        fail(r);
    u8 *start = r->at, *to = start;
    while (!r->broken) {
        u8 *at = r->at; /* for the compiler, each byte written might change r->at: this copy keeps the loop short */
        for (u64 eight; r->end - at >= 8; at += 8, to += 8) {
            __builtin_memcpy(&eight, at, 8);
            if (!are_plain(eight))
                break;
            __builtin_memcpy(to, &eight, 8);
        }
        while (at < r->end && is_plain(*at))
            *to++ = *at++;
        r->at = at;
        if (take(r, '"'))
            return (text){start, (u32)(to - start)};
        if (take(r, '\\')) {
            u32 code = read_escape(r);
            if (code == NO_CHARACTER)
                fail(r);
            else
                to = put_utf8(to, code);
        } else {
            u32 len = at < r->end ? utf8_length(at, r->end) : 0;
            if (len == 0)
                fail(r);
            while (len--)
                *to++ = *r->at++;
        }
    }
    return (text){start, 0};
}

static struct value read_number(struct reader *r) {
    text t = {r->at, 0};
    bool whole = !take(r, '-');
    bool good = take(r, '0') || take_digits(r);
    if (take(r, '.')) {
        whole = false;
        good = take_digits(r) && good;
    }
    if (take(r, 'e') || take(r, 'E')) {
        whole = false;
        if (!take(r, '+'))
            take(r, '-');
        good = take_digits(r) && good;
    }
    t.len = (u32)(r->at - t.at);
    if (!good)
        fail(r);
    return (struct value){whole && t.len <= 19 ? COUNT : NUMBER, t};
}

/* Goes to the next item of an array or object, from behind the opening bracket or behind an item. */
static bool next_item(struct reader *r, u8 closing, bool *first) {
    skip_space(r);
    if (take(r, closing))
        return false;
    if (!*first && !take(r, ','))
        return fail(r);
    *first = false;
    skip_space(r);
    return true; /* at the end of the text, too: reading the item fails there */
}

/* Reads the name of an object's member, and goes to its value. */
static text read_name(struct reader *r) {
    text name = read_string(r);
    skip_space(r);
    if (!take(r, ':'))
        fail(r);
    skip_space(r);
    return name;
}

/* Reads any value. Arrays and objects are checked and passed over. */
static struct value read_value(struct reader *r, u32 depth) {
    static const struct {
        text word;
        enum type type;
    } words[] = {{TEXT("null"), NOTHING}, {TEXT("true"), BOOLEAN}, {TEXT("false"), BOOLEAN}};
    bool first = true;
    if (depth > MAX_DEPTH)
        fail(r);
    u8 c = r->at < r->end ? *r->at : 0;
    if (c == '"')
        return (struct value){STRING, read_string(r)};
    if (c == '-' || is_digit(c))
        return read_number(r);
    if (take(r, '{')) {
        while (next_item(r, '}', &first)) {
            read_name(r);
            read_value(r, depth + 1);
        }
        return (struct value){.type = OBJECT};
    }
    if (take(r, '[')) {
        while (next_item(r, ']', &first))
            read_value(r, depth + 1);
        return (struct value){.type = ARRAY};
    }
    for (u32 i = 0; i < COUNT_OF(words); i++)
        if (take_word(r, words[i].word))
            return (struct value){.type = words[i].type};
    fail(r);
    return (struct value){.type = NOTHING};
}

/* ---- Writing ---- */

/* The letter behind the backslash, 0 for a byte that needs none. */
static u8 escape_letter(u8 c) {
    switch (c) {
    case '"': return '"';
    case '\\': return '\\';
    case '\n': return 'n';
    case '\t': return 't';
    case '\r': return 'r';
    case '\b': return 'b';
    case '\f': return 'f';
    default: return c < 0x20 ? 'u' : 0;
    }
}

/* Writes what stands between the quotes of a JSON string to `to`, or only counts it when `to` is NULL. */
static u32 put_escaped(u8 *to, text t) {
    u32 len = 0;
    for (u32 i = 0; i < t.len; i++) {
        u8 c = t.at[i], letter = escape_letter(c);
        u8 out[6] = {'\\', letter, '0', '0', (u8)('0' + (c >> 4)), (u8)("0123456789abcdef"[c & 15])};
        if (!letter)
            out[0] = c;
        u32 n = letter == 'u' ? 6 : letter ? 2 : 1;
        for (u32 k = 0; to && k < n; k++)
            to[len + k] = out[k];
        len += n;
    }
    return len;
}

#endif
