/*
 * Filters for sentinel-wasm-agent, in freestanding C11: no libc, no imports but the log's. A whole one:
 *
 *     #include "sentinel.h"
 *
 *     static decision *decide(request *request) {
 *         if (contains(request->uri, "/admin"))
 *             return tag(block(403, "Forbidden"), "admin");
 *         return allow();
 *     }
 *     ON_REQUEST_HEADERS(decide)
 *
 * A hook owns the buffer that its event is in, so the event is unescaped and decoded where it lies, and texts of it are
 * good until the hook returns. An event that is not what the ABI says never reaches the filter: it is answered with
 * bad_input().
 */
#ifndef SENTINEL_H
#define SENTINEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No filter uses all of this. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

#define NOINLINE __attribute__((noinline)) /* a copy in every place would be larger, and no faster */

#ifdef __wasm__
#define EXPORT(name) __attribute__((export_name(#name))) name
#define IMPORT(module, name) __attribute__((import_module(#module), import_name(#name)))
#else
#define EXPORT(name) name
#define IMPORT(module, name)
#endif

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

/* ---- Memory ----
 *
 * A stack of blocks, from the end of our data upwards. A call has three at most, the event, its headers and the result,
 * and they are freed in any order: a block that is freed below a live one goes when that one goes. So nothing is lost,
 * however many calls there are. */

struct block {
    struct block *below;
    uintptr_t end;
    bool live;
} __attribute__((aligned(16)));

#ifdef __wasm__
extern u8 __heap_base[]; /* from the linker: the first byte behind our data */
#define HEAP __heap_base

static bool reach(uintptr_t end) {
    size_t have = __builtin_wasm_memory_size(0), need = (end >> 16) + 1; /* in pages of 64 KiB */
    return need <= have || __builtin_wasm_memory_grow(0, need - have) != SIZE_MAX;
}
#else
static u8 HEAP[16 << 20]; /* for tests on the host */

static bool reach(uintptr_t end) {
    return end <= (uintptr_t)HEAP + sizeof HEAP;
}
#endif

static struct block *top;

void *EXPORT(alloc)(u32 size) {
    uintptr_t start = top ? top->end : ((uintptr_t)HEAP + 15) & ~(uintptr_t)15;
    if (size > UINTPTR_MAX - 15 - sizeof(struct block) - start)
        return NULL;
    uintptr_t end = (start + sizeof(struct block) + size + 15) & ~(uintptr_t)15;
    if (!reach(end))
        return NULL;
    struct block *block = (struct block *)start;
    *block = (struct block){.below = top, .end = end, .live = true};
    top = block;
    return block + 1;
}

/* What is not one of our blocks is left alone. */
void EXPORT(dealloc)(void *at, u32 size) {
    (void)size;
    for (struct block *block = top; block; block = block->below)
        if (block + 1 == at)
            block->live = false;
    while (top && !top->live)
        top = top->below;
}

/* Where there is no memory left, no result would mean "allow" to the agent: the trap is an error that it reports. */
static void *alloc_or_trap(u32 size) {
    void *at = alloc(size);
    if (!at)
        __builtin_trap();
    return at;
}

/* Makes the topmost block longer, by a multiple of 16. */
static NOINLINE void lengthen_or_trap(u32 more) {
    if (more > UINTPTR_MAX - top->end || !reach(top->end + more))
        __builtin_trap();
    top->end += more;
}

/* ---- Texts ---- */

/* Bytes somewhere in memory, no NUL behind them. */
typedef struct {
    u8 *at;
    u32 len;
} text;

#define TEXT(literal) {(u8 *)(literal), sizeof(literal) - 1}

static text text_itself(text t) {
    return t;
}

static text text_of_string(const char *string) {
    text t = {(u8 *)string, 0};
    while (string[t.len])
        t.len++;
    return t;
}

/* Whatever is called as a function below takes a text or a C string where this is. */
#define AS_TEXT(t) _Generic((t), text: text_itself, char *: text_of_string, const char *: text_of_string)(t)

static bool text_equals(text a, text b) {
    if (a.len != b.len)
        return false;
    for (u32 i = 0; i < a.len; i++)
        if (a.at[i] != b.at[i])
            return false;
    return true;
}

static bool text_starts(text t, text start) {
    return t.len >= start.len && text_equals((text){t.at, start.len}, start);
}

static bool text_ends(text t, text end) {
    return t.len >= end.len && text_equals((text){t.at + (t.len - end.len), end.len}, end);
}

static bool text_contains(text t, text part) {
    for (u32 i = 0; i + part.len <= t.len; i++)
        if (text_starts((text){t.at + i, t.len - i}, part))
            return true;
    return false;
}

/* In one pass, past most bytes with one look: at the bits that the first bytes of the parts have in common. */
static bool text_contains_any(text t, const char *const *parts) {
    u64 firsts = 0;
    for (const char *const *part = parts; *part; part++)
        firsts |= (u64)1 << (**part & 63);
    for (u32 i = 0; i < t.len; i++) {
        if (!(firsts >> (t.at[i] & 63) & 1))
            continue;
        for (const char *const *part = parts; *part; part++)
            for (u32 k = 0; i + k < t.len && t.at[i + k] == (u8)(*part)[k]; k++)
                if (!(*part)[k + 1])
                    return true;
    }
    return false;
}

#define equals(a, b) text_equals(AS_TEXT(a), AS_TEXT(b))
#define starts_with(t, start) text_starts(AS_TEXT(t), AS_TEXT(start))
#define ends_with(t, end) text_ends(AS_TEXT(t), AS_TEXT(end))
#define contains(t, part) text_contains(AS_TEXT(t), AS_TEXT(part))
/* Of several C strings, none of them empty: contains_any(uri, "../", "..\\"). */
#define contains_any(t, ...) text_contains_any(AS_TEXT(t), (const char *const[]){__VA_ARGS__, NULL})

static u8 lower(u8 c) {
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* ASCII letters only, and where they lie: the text itself changes. */
static text lowered(text t) {
    for (u32 i = 0; i < t.len; i++)
        t.at[i] = lower(t.at[i]);
    return t;
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

/* ---- Reading JSON ----
 *
 * As strict as RFC 8259, on UTF-8. A mistake puts the reader at the end of its text for good, where nothing can be
 * read any more: every loop over items ends there, and only who began the reading has to look at `broken`. */

#define MAX_DEPTH 64 /* of values in values: the recursion has to end before the stack does */
#define NO_CHARACTER 0x110000

typedef struct {
    u8 *at, *end;
    u32 depth;
    bool first; /* an array or object has been opened, and nothing of it been read */
    bool broken;
} reader;

/* The types of values, as bits, because a field may allow several. COUNT: digits only, and they fit 64 bits. */
enum type { STRING = 1, COUNT = 2, NUMBER = 4, BOOLEAN = 8, NOTHING = 16, ARRAY = 32, OBJECT = 64 };

typedef struct {
    enum type type;
    text text; /* of a string (unescaped), a number, or the words null, true and false; else empty */
} value;

static bool fail(reader *r) {
    r->at = r->end;
    r->broken = true;
    return false;
}

static bool take(reader *r, u8 c) {
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool take_word(reader *r, text word) {
    if (!text_starts((text){r->at, (u32)(r->end - r->at)}, word))
        return false;
    r->at += word.len;
    return true;
}

static bool take_digits(reader *r) {
    u8 *start = r->at;
    while (r->at < r->end && is_digit(*r->at))
        r->at++;
    return r->at > start;
}

static void skip_space(reader *r) {
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

static u32 read_hex4(reader *r) {
    u32 code = 0;
    for (int i = 0; i < 4; i++) {
        if (r->at == r->end || hex(*r->at) > 15)
            return NO_CHARACTER;
        code = code << 4 | hex(*r->at++);
    }
    return code;
}

/* The character that an escape means, read from behind its backslash; NO_CHARACTER when it is no escape. */
static u32 read_escape(reader *r) {
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
static text read_string(reader *r) {
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

static value read_number(reader *r) {
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
    return (value){whole && t.len <= 19 ? COUNT : NUMBER, t};
}

/* Goes into an array or object. */
static bool enter(reader *r, u8 opening) {
    if (!take(r, opening))
        return false;
    r->first = true;
    return ++r->depth <= MAX_DEPTH || fail(r);
}

static bool next_in(reader *r, u8 closing) {
    bool first = r->first;
    r->first = false;
    skip_space(r);
    if (take(r, closing)) {
        r->depth--;
        return false;
    }
    if (!first && !take(r, ','))
        return fail(r);
    skip_space(r);
    return true; /* at the end of the text, too: reading the item fails there */
}

/* Goes to the next item of an array; the one before has to be read. */
static bool next_item(reader *r) {
    return next_in(r, ']');
}

/* Goes to the value of an object's next member. */
static bool next_member(reader *r, text *name) {
    if (!next_in(r, '}'))
        return false;
    *name = read_string(r);
    skip_space(r);
    if (!take(r, ':'))
        fail(r);
    skip_space(r);
    return true;
}

/* Reads any value. Arrays and objects are checked and passed over. */
static value read_value(reader *r) {
    static const value words[] = {{NOTHING, TEXT("null")}, {BOOLEAN, TEXT("true")}, {BOOLEAN, TEXT("false")}};
    u8 c = r->at < r->end ? *r->at : 0;
    if (c == '"')
        return (value){STRING, read_string(r)};
    if (c == '-' || is_digit(c))
        return read_number(r);
    if (enter(r, '{')) {
        for (text name; next_member(r, &name);)
            read_value(r);
        return (value){.type = OBJECT};
    }
    if (enter(r, '[')) {
        while (next_item(r))
            read_value(r);
        return (value){.type = ARRAY};
    }
    for (u32 i = 0; i < COUNT_OF(words); i++)
        if (take_word(r, words[i].text))
            return words[i];
    fail(r);
    return (value){.type = NOTHING};
}

/* Reads an array of at most `room` strings. False when it is something else. */
static bool read_strings(reader *r, text *strings, u32 room, u32 *count) {
    bool good = enter(r, '[');
    *count = 0;
    while (good && next_item(r)) {
        value item = read_value(r);
        good = item.type == STRING && *count < room;
        if (good)
            strings[(*count)++] = item.text;
    }
    return good && !r->broken;
}

/* The number that a COUNT is. */
static u64 count_of(text digits) {
    u64 count = 0;
    for (u32 i = 0; i < digits.len; i++)
        count = count * 10 + (digits.at[i] - '0');
    return count;
}

/* 64 for a byte that base64 does not use. */
static u32 base64_value(u8 c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (is_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* Decodes base64 where it lies, as RFC 4648 has it, padded and nothing else in it. False when it is something else. */
static bool from_base64(text *t) {
    u32 letters = t->len, bits = 0, held = 0; /* `held` bits are still to be written, the low ones of `bits` */
    u8 *to = t->at;
    while (letters && t->len - letters < 2 && t->at[letters - 1] == '=')
        letters--;
    for (u32 i = 0; i < letters; i++) {
        u32 value = base64_value(t->at[i]);
        if (value > 63)
            return false;
        bits = bits << 6 | value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            *to++ = (u8)(bits >> held);
        }
    }
    bool good = t->len % 4 == 0 && (bits & ((1u << held) - 1)) == 0;
    t->len = (u32)(to - t->at);
    return good;
}

/* ---- Events ---- */

struct header {
    text name, value;
};

typedef struct {
    struct header *at; /* in a block of their own */
    u32 count;
} headers;

typedef struct {
    text method, uri, client_ip, correlation_id;
    headers headers;
} request;

typedef struct {
    u32 status;
    text correlation_id;
    headers headers;
} response;

#define UNKNOWN UINT64_MAX

typedef struct {
    text correlation_id;
    u64 chunk_index;
    bool is_last;
    u64 total_size; /* in bytes, or UNKNOWN */
    u64 bytes_seen; /* with this chunk */
    bool is_text;   /* valid UTF-8 */
    text data;      /* the chunk itself, whether text or not */
} body_chunk;

typedef struct {
    text correlation_id, opcode; /* "text", "binary", "continuation", "ping", "pong", "close" */
    bool to_server;
    u64 frame_index; /* of its direction */
    bool fin;
    text route_id, client_ip;
    bool is_text; /* valid UTF-8 */
    text data;    /* the frame's payload, whether text or not */
} frame;

#ifndef MAX_CATEGORIES
#define MAX_CATEGORIES 32 /* of a guardrail's event; more are bad input */
#endif

typedef struct {
    text correlation_id, inspection_type; /* "prompt_injection", "pii_detection" */
    text content, model, route_id;
    text categories[MAX_CATEGORIES]; /* what to look for; none: everything */
    u32 category_count;
} inspection;

/* Names are in canonical form: "User-Agent". Empty when the header is absent. */
static text header_value(headers headers, text name) {
    for (u32 i = headers.count; i--;)
        if (text_equals(headers.at[i].name, name))
            return headers.at[i].value;
    return (text){NULL, 0};
}

/* The value of a header of a request or response. */
#define header(event, name) header_value((event)->headers, AS_TEXT(name))

enum field {
    METHOD, URI, CLIENT_IP, CORRELATION_ID, HEADERS, STATUS, CHUNK_INDEX, IS_LAST, TOTAL_SIZE, BYTES_SEEN, ENCODING,
    DATA, OPCODE, CLIENT_TO_SERVER, FRAME_INDEX, FIN, ROUTE_ID, INSPECTION_TYPE, CONTENT, MODEL, CATEGORIES, FIELDS
};

static const struct {
    text name;
    u32 types;
} fields[FIELDS] = {
    [METHOD] = {TEXT("method"), STRING},
    [URI] = {TEXT("uri"), STRING},
    [CLIENT_IP] = {TEXT("client_ip"), STRING},
    [CORRELATION_ID] = {TEXT("correlation_id"), STRING},
    [HEADERS] = {TEXT("headers"), OBJECT},
    [STATUS] = {TEXT("status"), COUNT},
    [CHUNK_INDEX] = {TEXT("chunk_index"), COUNT},
    [IS_LAST] = {TEXT("is_last"), BOOLEAN},
    [TOTAL_SIZE] = {TEXT("total_size"), COUNT | NOTHING},
    [BYTES_SEEN] = {TEXT("bytes_seen"), COUNT},
    [ENCODING] = {TEXT("encoding"), STRING},
    [DATA] = {TEXT("data"), STRING},
    [OPCODE] = {TEXT("opcode"), STRING},
    [CLIENT_TO_SERVER] = {TEXT("client_to_server"), BOOLEAN},
    [FRAME_INDEX] = {TEXT("frame_index"), COUNT},
    [FIN] = {TEXT("fin"), BOOLEAN},
    [ROUTE_ID] = {TEXT("route_id"), STRING | NOTHING},
    [INSPECTION_TYPE] = {TEXT("inspection_type"), STRING},
    [CONTENT] = {TEXT("content"), STRING},
    [MODEL] = {TEXT("model"), STRING | NOTHING},
    [CATEGORIES] = {TEXT("categories"), ARRAY},
};

#define BIT(field) (1u << (field))

struct event {
    u32 seen; /* a BIT for each field that is there and of the right type */
    text field[FIELDS];
    headers headers;
    inspection *inspection; /* where categories are read to; NULL: they are passed over */
};

/* Reads the members of "headers". To us they are an object only when all values are strings. */
static value read_headers(reader *r, headers *headers) {
    value object = {.type = OBJECT};
    if (!headers->at)
        headers->at = alloc_or_trap(0);
    headers->count = 0;
    for (text name; next_member(r, &name);) {
        value value = read_value(r);
        if (value.type != STRING)
            object.type = NOTHING;
        lengthen_or_trap(sizeof *headers->at);
        headers->at[headers->count++] = (struct header){name, value.text};
    }
    return object;
}

/* Headers that are not needed are passed over: nobody would free them. */
static value read_field(reader *r, struct event *e, u32 f, u32 needed) {
    if (f == HEADERS && needed & BIT(HEADERS) && enter(r, '{'))
        return read_headers(r, &e->headers);
    inspection *i = e->inspection;
    if (f == CATEGORIES && i)
        return (value){.type = read_strings(r, i->categories, MAX_CATEGORIES, &i->category_count) ? ARRAY : NOTHING};
    return read_value(r);
}

/* True when the text is a JSON object with all of the needed fields. Fields of other names don't matter. */
static bool read_event(struct event *e, u8 *json, u32 len, u32 needed) {
    reader r = {.at = json, .end = json + len};
    e->seen = 0;
    e->headers.at = NULL;
    skip_space(&r);
    if (!enter(&r, '{'))
        return false;
    for (text name; next_member(&r, &name);) {
        u32 f = 0;
        while (f < FIELDS && !text_equals(name, fields[f].name))
            f++;
        value value = read_field(&r, e, f, needed);
        if (f < FIELDS) {
            e->field[f] = value.text;
            e->seen = value.type & fields[f].types ? e->seen | BIT(f) : e->seen & ~BIT(f);
        }
    }
    skip_space(&r);
    return !r.broken && r.at == r.end && (e->seen & needed) == needed;
}

static bool read_request(request *request, u8 *json, u32 len) {
    struct event e = {.inspection = NULL};
    bool good = read_event(&e, json, len, BIT(METHOD) | BIT(URI) | BIT(CLIENT_IP) | BIT(CORRELATION_ID) | BIT(HEADERS));
    request->headers = e.headers;
    if (!good)
        return false;
    request->method = e.field[METHOD];
    request->uri = e.field[URI];
    request->client_ip = e.field[CLIENT_IP];
    request->correlation_id = e.field[CORRELATION_ID];
    return true;
}

static bool read_response(response *response, u8 *json, u32 len) {
    struct event e = {.inspection = NULL};
    bool good = read_event(&e, json, len, BIT(STATUS) | BIT(CORRELATION_ID) | BIT(HEADERS));
    response->headers = e.headers;
    if (!good || count_of(e.field[STATUS]) > UINT16_MAX)
        return false;
    response->status = (u32)count_of(e.field[STATUS]);
    response->correlation_id = e.field[CORRELATION_ID];
    return true;
}

/* False where it is neither text nor base64. */
static bool read_data(const struct event *e, bool *is_text, text *data) {
    *is_text = equals(e->field[ENCODING], "utf-8");
    *data = e->field[DATA];
    return *is_text || (equals(e->field[ENCODING], "base64") && from_base64(data));
}

static bool read_chunk(body_chunk *chunk, u8 *json, u32 len) {
    struct event e = {.inspection = NULL};
    if (!read_event(&e, json, len,
                    BIT(CORRELATION_ID) | BIT(CHUNK_INDEX) | BIT(IS_LAST) | BIT(TOTAL_SIZE) | BIT(BYTES_SEEN) |
                        BIT(ENCODING) | BIT(DATA)))
        return false;
    chunk->correlation_id = e.field[CORRELATION_ID];
    chunk->chunk_index = count_of(e.field[CHUNK_INDEX]);
    chunk->is_last = equals(e.field[IS_LAST], "true");
    chunk->total_size = equals(e.field[TOTAL_SIZE], "null") ? UNKNOWN : count_of(e.field[TOTAL_SIZE]);
    chunk->bytes_seen = count_of(e.field[BYTES_SEEN]);
    return read_data(&e, &chunk->is_text, &chunk->data);
}

static text or_empty(text t) {
    return equals(t, "null") ? (text){NULL, 0} : t;
}

static bool read_frame(frame *frame, u8 *json, u32 len) {
    struct event e = {.inspection = NULL};
    if (!read_event(&e, json, len,
                    BIT(CORRELATION_ID) | BIT(OPCODE) | BIT(CLIENT_TO_SERVER) | BIT(FRAME_INDEX) | BIT(FIN) |
                        BIT(ROUTE_ID) | BIT(CLIENT_IP) | BIT(ENCODING) | BIT(DATA)))
        return false;
    frame->correlation_id = e.field[CORRELATION_ID];
    frame->opcode = e.field[OPCODE];
    frame->to_server = equals(e.field[CLIENT_TO_SERVER], "true");
    frame->frame_index = count_of(e.field[FRAME_INDEX]);
    frame->fin = equals(e.field[FIN], "true");
    frame->route_id = or_empty(e.field[ROUTE_ID]);
    frame->client_ip = e.field[CLIENT_IP];
    return read_data(&e, &frame->is_text, &frame->data);
}

static bool read_inspection(inspection *inspection, u8 *json, u32 len) {
    struct event e = {.inspection = inspection};
    if (!read_event(&e, json, len,
                    BIT(CORRELATION_ID) | BIT(INSPECTION_TYPE) | BIT(CONTENT) | BIT(MODEL) | BIT(ROUTE_ID) |
                        BIT(CATEGORIES)))
        return false;
    inspection->correlation_id = e.field[CORRELATION_ID];
    inspection->inspection_type = e.field[INSPECTION_TYPE];
    inspection->content = e.field[CONTENT];
    inspection->model = or_empty(e.field[MODEL]);
    inspection->route_id = or_empty(e.field[ROUTE_ID]);
    return true;
}

/* ---- Writing JSON ---- */

/* Of a result, which is the topmost block and grows as it is written. */
typedef struct {
    u8 *start, *to;
} writer;

static writer begin_result(void) {
    u8 *start = alloc_or_trap(256);
    return (writer){start, start};
}

static void reserve(writer *w, u32 more) {
    uintptr_t room = top->end - (uintptr_t)w->to;
    if (more > room)
        lengthen_or_trap((more - (u32)room + 15) & ~15u);
}

static void put_byte(writer *w, u8 c) {
    reserve(w, 1);
    *w->to++ = c;
}

static NOINLINE void put_text(writer *w, text t) {
    reserve(w, t.len);
    for (u32 i = 0; i < t.len; i++)
        *w->to++ = t.at[i];
}

#define put(w, literal) put_text(w, (text)TEXT(literal))

static void put_number(writer *w, u64 number) {
    if (number > 9)
        put_number(w, number / 10);
    put_byte(w, (u8)('0' + number % 10));
}

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

static void put_escaped(writer *w, u8 c) {
    u8 letter = escape_letter(c);
    if (letter)
        put_byte(w, '\\');
    put_byte(w, letter ? letter : c);
    if (letter == 'u') {
        put_text(w, text_of_string(c < 0x10 ? "000" : "001"));
        put_byte(w, (u8)"0123456789abcdef"[c & 15]);
    }
}

static void put_quoted(writer *w, text t) {
    put_byte(w, '"');
    for (u32 i = 0; i < t.len;) {
        u32 start = i;
        for (u64 eight; t.len - i >= 8; i += 8) {
            __builtin_memcpy(&eight, t.at + i, 8);
            if (!are_plain(eight))
                break;
        }
        while (i < t.len && is_plain(t.at[i]))
            i++;
        put_text(w, (text){t.at + start, i - start});
        for (; i < t.len && !is_plain(t.at[i]); i++)
            put_escaped(w, t.at[i]);
    }
    put_byte(w, '"');
}

static void put_base64(writer *w, text t) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (u32 i = 0; i < t.len; i += 3) {
        u32 have = t.len - i, bits = (u32)t.at[i] << 16;
        bits |= have > 1 ? (u32)t.at[i + 1] << 8 : 0;
        bits |= have > 2 ? t.at[i + 2] : 0;
        put_byte(w, (u8)digits[bits >> 18]);
        put_byte(w, (u8)digits[bits >> 12 & 63]);
        put_byte(w, have > 1 ? (u8)digits[bits >> 6 & 63] : '=');
        put_byte(w, have > 2 ? (u8)digits[bits & 63] : '=');
    }
}

static bool is_utf8(text t) {
    for (u8 *at = t.at, *end = t.at + t.len; at < end;) {
        u64 eight = ~(u64)0;
        if (end - at >= 8)
            __builtin_memcpy(&eight, at, 8);
        u32 len = !(eight & 0x8080808080808080) ? 8 : *at < 0x80 ? 1 : utf8_length(at, end);
        if (!len)
            return false;
        at += len;
    }
    return true;
}

/* ---- Decisions ----
 *
 * One at a time: allow(), block(), redirect(), challenge(), drop_frame() and close_socket() begin it, and what follows adds to it and returns it:
 * tag(block(403, "Forbidden"), "scanner"). Texts are not copied: they have to be there until the hook returns. */

#ifndef MAX_ENTRIES
#define MAX_ENTRIES 64 /* of all lists together; one more is a trap */
#endif

enum list {
    CHALLENGE_PARAMS, ADD_REQUEST_HEADERS, APPEND_REQUEST_HEADERS, REMOVE_REQUEST_HEADERS, ADD_RESPONSE_HEADERS,
    APPEND_RESPONSE_HEADERS, REMOVE_RESPONSE_HEADERS, TAGS, RULE_IDS, REASON_CODES, ROUTING_METADATA, LISTS
};
enum shape { NAMES, PAIRS, GROUPS }; /* ["a", "b"], {"name": "value"}, {"name": ["value", "value"]} */

static const struct {
    text name;
    enum shape shape;
} lists[LISTS] = {
    [CHALLENGE_PARAMS] = {TEXT("challenge_params"), PAIRS},
    [ADD_REQUEST_HEADERS] = {TEXT("add_request_headers"), PAIRS},
    [APPEND_REQUEST_HEADERS] = {TEXT("append_request_headers"), GROUPS},
    [REMOVE_REQUEST_HEADERS] = {TEXT("remove_request_headers"), NAMES},
    [ADD_RESPONSE_HEADERS] = {TEXT("add_response_headers"), PAIRS},
    [APPEND_RESPONSE_HEADERS] = {TEXT("append_response_headers"), GROUPS},
    [REMOVE_RESPONSE_HEADERS] = {TEXT("remove_response_headers"), NAMES},
    [TAGS] = {TEXT("tags"), NAMES},
    [RULE_IDS] = {TEXT("rule_ids"), NAMES},
    [REASON_CODES] = {TEXT("reason_codes"), NAMES},
    [ROUTING_METADATA] = {TEXT("routing_metadata"), PAIRS},
};

struct entry {
    enum list list;
    text name, value;
};

enum side { OF_REQUEST, OF_RESPONSE };

struct mutation {
    const char *action; /* NULL: none */
    u64 chunk_index;
    text data;
};

typedef struct {
    const char *kind;
    u32 status; /* 0: none */
    text body, challenge_type, reason;
    u32 code; /* of a WebSocket's end; 0: none */
    struct mutation bodies[2];
    u32 confidence; /* in ten thousandths, or NO_CONFIDENCE */
    bool needs_more;
    u32 count;
    struct entry entries[MAX_ENTRIES];
} decision;

#define NO_CONFIDENCE UINT32_MAX

static decision *decide_anew(const char *kind, u32 status, text body, text challenge_type) {
    static decision the;
    the.kind = kind;
    the.status = status;
    the.body = body;
    the.challenge_type = challenge_type;
    the.reason = (text){NULL, 0};
    the.code = 0;
    the.bodies[OF_REQUEST].action = the.bodies[OF_RESPONSE].action = NULL;
    the.confidence = NO_CONFIDENCE;
    the.needs_more = false;
    the.count = 0;
    return &the;
}

static decision *allow(void) {
    return decide_anew("allow", 0, (text){NULL, 0}, (text){NULL, 0});
}

#define block(status, body) decide_anew("block", status, AS_TEXT(body), (text){NULL, 0})
#define redirect(status, url) decide_anew("redirect", status, AS_TEXT(url), (text){NULL, 0})
#define challenge(type) decide_anew("challenge", 0, (text){NULL, 0}, AS_TEXT(type))

/* Of a WebSocket's frame: it is not passed on. */
static decision *drop_frame(void) {
    return decide_anew("drop", 0, (text){NULL, 0}, (text){NULL, 0});
}

/* RFC 6455, section 7.4, has the codes; the reason has at most 123 bytes. */
static decision *close_with(u32 code, text reason) {
    decision *d = decide_anew("close", 0, (text){NULL, 0}, (text){NULL, 0});
    d->code = code;
    d->reason = reason;
    return d;
}

#define close_socket(code, reason) close_with(code, AS_TEXT(reason))

static NOINLINE decision *add_entry(decision *d, enum list list, text name, text value) {
    u32 i = d->count;
    /* JSON has no place for two values of one name: the last counts. */
    if (lists[list].shape == PAIRS)
        for (i = 0; i < d->count; i++)
            if (d->entries[i].list == list && text_equals(d->entries[i].name, name))
                break;
    if (i == MAX_ENTRIES)
        __builtin_trap();
    d->entries[i] = (struct entry){list, name, value};
    d->count += i == d->count;
    return d;
}

#define add_pair(d, list, name, value) add_entry(d, list, AS_TEXT(name), AS_TEXT(value))
#define add_name(d, list, name) add_entry(d, list, AS_TEXT(name), (text){NULL, 0})

#define challenge_param(d, name, value) add_pair(d, CHALLENGE_PARAMS, name, value)
/* set: in the place of what is there of that name. append: beside it. */
#define set_request_header(d, name, value) add_pair(d, ADD_REQUEST_HEADERS, name, value)
#define append_request_header(d, name, value) add_pair(d, APPEND_REQUEST_HEADERS, name, value)
#define remove_request_header(d, name) add_name(d, REMOVE_REQUEST_HEADERS, name)
#define set_response_header(d, name, value) add_pair(d, ADD_RESPONSE_HEADERS, name, value)
#define append_response_header(d, name, value) add_pair(d, APPEND_RESPONSE_HEADERS, name, value)
#define remove_response_header(d, name) add_name(d, REMOVE_RESPONSE_HEADERS, name)
#define tag(d, name) add_name(d, TAGS, name)
#define rule_id(d, name) add_name(d, RULE_IDS, name)
#define reason_code(d, name) add_name(d, REASON_CODES, name)
#define routing_metadata(d, name, value) add_pair(d, ROUTING_METADATA, name, value)

static decision *change_body(decision *d, enum side side, const char *action, const body_chunk *chunk, text data) {
    d->bodies[side] = (struct mutation){action, chunk->chunk_index, data};
    return d;
}

/* Proxies take text only for a request. */
#define replace_request_body(d, chunk, data) change_body(d, OF_REQUEST, "replace", chunk, AS_TEXT(data))
#define drop_request_body(d, chunk) change_body(d, OF_REQUEST, "drop", chunk, (text){NULL, 0})
/* The proxy keeps a Content-Length that is not removed in on_response_headers. */
#define replace_response_body(d, chunk, data) change_body(d, OF_RESPONSE, "replace", chunk, AS_TEXT(data))
#define drop_response_body(d, chunk) change_body(d, OF_RESPONSE, "drop", chunk, (text){NULL, 0})

/* From 0 to 1; anything else is a trap. */
static decision *confidence(decision *d, double confidence) {
    if (!(confidence >= 0 && confidence <= 1))
        __builtin_trap();
    d->confidence = (u32)(confidence * 10000 + 0.5);
    return d;
}

/* The decision is provisional: the body may still tell against the request. */
static decision *needs_more(decision *d) {
    d->needs_more = true;
    return d;
}

/* What to say of what cannot be read: a filter that lets it through is no filter. */
static decision *bad_input(void) {
    return tag(block(400, "Bad Request"), "bad-input");
}

/* Writes `,"name":`. */
static void put_name(writer *w, text name) {
    put(w, ",\"");
    put_text(w, name);
    put(w, "\":");
}

static void put_field(writer *w, text name, text string) {
    if (string.at) {
        put_name(w, name);
        put_quoted(w, string);
    }
}

/* The values of entry `i` and of those behind it that have its name; nothing where one before it has it. */
static void put_group(writer *w, const decision *d, u32 i, bool *first) {
    const struct entry *entry = &d->entries[i];
    for (u32 k = 0; k < i; k++)
        if (d->entries[k].list == entry->list && text_equals(d->entries[k].name, entry->name))
            return;
    if (!*first)
        put_byte(w, ',');
    put_quoted(w, entry->name);
    for (u32 k = i; k < d->count; k++)
        if (d->entries[k].list == entry->list && text_equals(d->entries[k].name, entry->name)) {
            if (k == i)
                put(w, ":[");
            else
                put_byte(w, ',');
            put_quoted(w, d->entries[k].value);
        }
    put_byte(w, ']');
    *first = false;
}

static void put_list(writer *w, const decision *d, enum list list) {
    enum shape shape = lists[list].shape;
    bool any = false, first = true;
    for (u32 i = 0; i < d->count; i++) {
        if (d->entries[i].list != list)
            continue;
        if (!any) {
            put_name(w, lists[list].name);
            put_byte(w, shape == NAMES ? '[' : '{');
            any = true;
        }
        if (shape == GROUPS) {
            put_group(w, d, i, &first);
            continue;
        }
        if (!first)
            put_byte(w, ',');
        put_quoted(w, d->entries[i].name);
        if (shape == PAIRS) {
            put_byte(w, ':');
            put_quoted(w, d->entries[i].value);
        }
        first = false;
    }
    if (any)
        put_byte(w, shape == NAMES ? ']' : '}');
}

static void put_mutation(writer *w, text name, const struct mutation *mutation) {
    if (!mutation->action)
        return;
    put_name(w, name);
    put(w, "{\"action\":\"");
    put_text(w, text_of_string(mutation->action));
    put(w, "\",\"chunk_index\":");
    put_number(w, mutation->chunk_index);
    if (mutation->data.at && is_utf8(mutation->data)) {
        put_field(w, (text)TEXT("data"), mutation->data);
    } else if (mutation->data.at) {
        put(w, ",\"encoding\":\"base64\",\"data\":\"");
        put_base64(w, mutation->data);
        put_byte(w, '"');
    }
    put_byte(w, '}');
}

static void put_confidence(writer *w, u32 ten_thousandths) {
    put(w, ",\"confidence\":");
    put_number(w, ten_thousandths / 10000);
    put_byte(w, '.');
    for (u32 unit = 1000; unit; unit /= 10)
        put_byte(w, (u8)('0' + ten_thousandths / unit % 10));
}

static void put_decision(writer *w, const decision *d) {
    put(w, "{\"decision\":\"");
    put_text(w, text_of_string(d->kind));
    put_byte(w, '"');
    if (d->status) {
        put(w, ",\"status\":");
        put_number(w, d->status);
    }
    if (d->code) {
        put(w, ",\"code\":");
        put_number(w, d->code);
    }
    put_field(w, (text)TEXT("reason"), d->reason);
    put_field(w, (text)TEXT("body"), d->body);
    put_field(w, (text)TEXT("challenge_type"), d->challenge_type);
    for (u32 list = 0; d->count && list < LISTS; list++)
        put_list(w, d, list);
    put_mutation(w, (text)TEXT("request_body_mutation"), &d->bodies[OF_REQUEST]);
    put_mutation(w, (text)TEXT("response_body_mutation"), &d->bodies[OF_RESPONSE]);
    if (d->confidence != NO_CONFIDENCE)
        put_confidence(w, d->confidence);
    if (d->needs_more)
        put(w, ",\"needs_more\":true");
    put_byte(w, '}');
}

/* ---- Findings ----
 *
 * What a guardrail says of a content: nothing_found(), and then found() for each thing. Texts are not copied. */

#ifndef MAX_FINDINGS
#define MAX_FINDINGS 64 /* one more is a trap */
#endif

enum severity { LOW, MEDIUM, HIGH, CRITICAL };

typedef struct {
    struct {
        text category, description;
        enum severity severity;
        u32 start, end; /* in bytes of the content, the end exclusive */
    } found[MAX_FINDINGS];
    u32 count;
    text redacted; /* NULL: none */
} findings;

static findings *nothing_found(void) {
    static findings the;
    the.count = 0;
    the.redacted = (text){NULL, 0};
    return &the;
}

static findings *add_finding(findings *f, text category, text description, enum severity severity, u32 start, u32 end) {
    if (f->count == MAX_FINDINGS)
        __builtin_trap();
    f->found[f->count].category = category;
    f->found[f->count].description = description;
    f->found[f->count].severity = severity;
    f->found[f->count].start = start;
    f->found[f->count++].end = end;
    return f;
}

#define found(f, category, description, severity, start, end)                                                        \
    add_finding(f, AS_TEXT(category), AS_TEXT(description), severity, start, end)

/* The content without what was found. */
static findings *redacted(findings *f, text content) {
    f->redacted = content;
    return f;
}

static void put_findings(writer *w, const findings *f) {
    static const char *const severities[] = {"low", "medium", "high", "critical"};
    put(w, "{\"detected\":");
    put_text(w, text_of_string(f->count ? "true" : "false"));
    put(w, ",\"detections\":[");
    for (u32 i = 0; i < f->count; i++) {
        put_text(w, text_of_string(i ? ",{\"category\":" : "{\"category\":"));
        put_quoted(w, f->found[i].category);
        put_field(w, (text)TEXT("description"), f->found[i].description);
        put_field(w, (text)TEXT("severity"), text_of_string(severities[f->found[i].severity]));
        put(w, ",\"span\":{\"start\":");
        put_number(w, f->found[i].start);
        put(w, ",\"end\":");
        put_number(w, f->found[i].end);
        put(w, "}}");
    }
    put_byte(w, ']');
    put_field(w, (text)TEXT("redacted_content"), f->redacted);
    put_byte(w, '}');
}

/* ---- Hooks ---- */

/* Where a result is: the address in the upper half, the length in the lower. */
static uint64_t pack(writer w) {
    return (uint64_t)(uintptr_t)w.start << 32 | (u32)(w.to - w.start);
}

static uint64_t written(const decision *d) {
    writer w = begin_result();
    put_decision(&w, d);
    return pack(w);
}

#define ON_HEADERS(hook, type, read, decide)                                                                         \
    uint64_t EXPORT(hook)(u8 *json, u32 len) {                                                                       \
        type event;                                                                                                  \
        uint64_t result = written(read(&event, json, len) ? decide(&event) : bad_input());                           \
        dealloc(event.headers.at, 0);                                                                                \
        return result;                                                                                               \
    }
#define ON_BODY(hook, decide)                                                                                        \
    uint64_t EXPORT(hook)(u8 *json, u32 len) {                                                                       \
        body_chunk chunk;                                                                                            \
        return written(read_chunk(&chunk, json, len) ? decide(&chunk) : bad_input());                                \
    }

/* Each exports a hook, which asks a function: decision *decide(request *), of (response *), (body_chunk *) or
 * (frame *); findings *inspect(inspection *). */
#define ON_REQUEST_HEADERS(decide) ON_HEADERS(on_request_headers, request, read_request, decide)
#define ON_RESPONSE_HEADERS(decide) ON_HEADERS(on_response_headers, response, read_response, decide)
#define ON_REQUEST_BODY(decide) ON_BODY(on_request_body, decide)
#define ON_RESPONSE_BODY(decide) ON_BODY(on_response_body, decide)
#define ON_WEBSOCKET_FRAME(decide)                                                                                   \
    uint64_t EXPORT(on_websocket_frame)(u8 *json, u32 len) {                                                         \
        frame frame;                                                                                                 \
        return written(read_frame(&frame, json, len) ? decide(&frame) : bad_input());                                \
    }
#define ON_GUARDRAIL(inspect)                                                                                        \
    uint64_t EXPORT(on_guardrail)(u8 *json, u32 len) {                                                               \
        static inspection inspection;                                                                                \
        bool good = read_inspection(&inspection, json, len);                                                         \
        findings *found = good ? inspect(&inspection)                                                                \
                               : found(nothing_found(), "bad-input", "the event cannot be read", HIGH, 0, 0);        \
        writer w = begin_result();                                                                                   \
        put_findings(&w, found);                                                                                     \
        return pack(w);                                                                                              \
    }

/* ---- Configuration ---- */

#ifndef CONFIG_ROOM
#define CONFIG_ROOM 4096 /* bytes that a configuration may have, as JSON */
#endif

/* Finds the object that "config" is, in the text. False when there is none. */
static bool find_config(u8 *json, u32 len, text *config) {
    reader r = {.at = json, .end = json + len};
    config->at = NULL;
    if (!enter(&r, '{'))
        return false;
    for (text name; next_member(&r, &name);) {
        u8 *start = r.at;
        if (read_value(&r).type == OBJECT && equals(name, "config"))
            *config = (text){start, (u32)(r.at - start)};
    }
    return !r.broken && config->at;
}

static uint64_t refused(const char *error) {
    writer w = begin_result();
    put(&w, "{\"error\":");
    put_quoted(&w, text_of_string(error));
    put_byte(&w, '}');
    return pack(w);
}

/* The configuration stays in one of two rooms, so that the texts in it are good until another is taken. */
static uint64_t configured(u8 *json, u32 len, const char *(*configure)(reader *)) {
    static u8 rooms[2][CONFIG_ROOM];
    static u32 taken;
    u8 *room = rooms[1 - taken];
    if (len > CONFIG_ROOM)
        return refused("the configuration is too long");
    for (u32 i = 0; i < len; i++)
        room[i] = json[i];
    text config; /* reading it unescapes it: the copy is still as it came */
    if (!find_config(json, len, &config))
        return refused("the configuration is not an object");
    reader r = {.at = room + (config.at - json), .end = room + (config.at - json) + config.len};
    enter(&r, '{');
    const char *error = configure(&r);
    if (error)
        return refused(error);
    taken = 1 - taken;
    return 0;
}

/* Exports on_configure, which asks const char *configure(reader *): NULL, or why the configuration is refused. The
 * reader is within the object, which is sound JSON: for (text name; next_member(config, &name);) read_value(config). Of
 * a configuration that is refused, nothing may be kept. */
#define ON_CONFIGURE(configure)                                                                                      \
    uint64_t EXPORT(on_configure)(u8 *json, u32 len) {                                                               \
        return configured(json, len, configure);                                                                     \
    }

/* ---- The agent's log ---- */

enum level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR }; /* the first two are hidden at the usual level */

/* On the host, whoever uses it defines it. */
IMPORT(sentinel, log) void sentinel_log(enum level level, const u8 *at, u32 len);

static void log_line(enum level level, text line) {
    sentinel_log(level, line.at, line.len);
}

/* Writes a line to the agent's log. */
#define log_text(level, line) log_line(level, AS_TEXT(line))

#pragma GCC diagnostic pop
#endif
