/*
 * A security filter for the agent, in freestanding C: no libc, no imports.
 *
 * One call: the host gets a buffer from alloc(), writes the event's JSON into it and calls a hook. The hook works on
 * the JSON where it lies: unescaping, percent-decoding, base64 and masking never make a text longer, so all of them
 * happen in place and nothing is copied. The only block a hook may need is its result, and most results are constants.
 */
#include "json.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

/* ---- Memory ----
 *
 * A stack of blocks, from the end of our data upwards. A call has two at most, the event and the result, and they are
 * freed in any order: a block that is freed below a live one goes when that one goes. So nothing is lost, however many
 * calls there are. */

struct block {
    struct block *below;
    uintptr_t end;
    bool live;
} __attribute__((aligned(16)));

extern u8 __heap_base[]; /* from the linker: the first byte behind our data */
static struct block *top;

void *EXPORT(alloc)(u32 size) {
    uintptr_t start = top ? top->end : ((uintptr_t)__heap_base + 15) & ~(uintptr_t)15;
    if (size > UINTPTR_MAX - 15 - sizeof(struct block) - start)
        return NULL;
    uintptr_t end = (start + sizeof(struct block) + size + 15) & ~(uintptr_t)15;

    size_t have = __builtin_wasm_memory_size(0), need = (end >> 16) + 1; /* in pages of 64 KiB */
    if (need > have && __builtin_wasm_memory_grow(0, need - have) == SIZE_MAX)
        return NULL;

    struct block *block = (struct block *)start;
    *block = (struct block){.below = top, .end = end, .live = true};
    top = block;
    return block + 1;
}

/* What is not one of our blocks is left alone: the host frees every result, constants too. */
void EXPORT(dealloc)(void *at, u32 size) {
    (void)size;
    for (struct block *block = top; block; block = block->below)
        if (block + 1 == at)
            block->live = false;
    while (top && !top->live)
        top = top->below;
}

/* ---- Events ---- */

enum field {
    METHOD, URI, CLIENT_IP, CORRELATION_ID, HEADERS, STATUS, CHUNK_INDEX, IS_LAST, TOTAL_SIZE, BYTES_SEEN, ENCODING,
    DATA, FIELDS
};
enum header { AUTHORIZATION, USER_AGENT, CONTENT_TYPE, WANTED_HEADERS };

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
};
static const text header_names[WANTED_HEADERS] = {TEXT("Authorization"), TEXT("User-Agent"), TEXT("Content-Type")};

#define BIT(field) (1u << (field))
#define REQUEST (BIT(METHOD) | BIT(URI) | BIT(CLIENT_IP) | BIT(CORRELATION_ID) | BIT(HEADERS))
#define RESPONSE (BIT(STATUS) | BIT(CORRELATION_ID) | BIT(HEADERS))
#define BODY                                                                                                         \
    (BIT(CORRELATION_ID) | BIT(CHUNK_INDEX) | BIT(IS_LAST) | BIT(TOTAL_SIZE) | BIT(BYTES_SEEN) | BIT(ENCODING) |     \
     BIT(DATA))

struct event {
    u32 seen; /* a BIT for each field that is there and of the right type */
    text field[FIELDS];
    text header[WANTED_HEADERS]; /* empty when absent: no rule tells the two apart */
};

/* Reads the members of "headers". To us they are an object only when all values are strings. */
static struct value read_headers(struct reader *r, struct event *e) {
    struct value headers = {.type = OBJECT};
    bool first = true;
    for (u32 i = 0; i < WANTED_HEADERS; i++)
        e->header[i] = (text){NULL, 0};
    while (next_item(r, '}', &first)) {
        text name = read_name(r);
        struct value value = read_value(r, 2);
        if (value.type != STRING)
            headers.type = NOTHING;
        for (u32 i = 0; i < WANTED_HEADERS; i++)
            if (equal(name, header_names[i]))
                e->header[i] = value.text;
    }
    return headers;
}

/* True when the text is a JSON object with all of the needed fields. Fields of other names don't matter. */
static bool read_event(struct event *e, u8 *json, u32 len, u32 needed) {
    struct reader r = {json, json + len, false};
    bool first = true;
    e->seen = 0;
    skip_space(&r);
    if (!take(&r, '{'))
        return false;
    while (next_item(&r, '}', &first)) {
        text name = read_name(&r);
        u32 f = 0;
        while (f < FIELDS && !equal(name, fields[f].name))
            f++;
        struct value value = f == HEADERS && take(&r, '{') ? read_headers(&r, e) : read_value(&r, 1);
        if (f < FIELDS) {
            e->field[f] = value.text;
            e->seen = value.type & fields[f].types ? e->seen | BIT(f) : e->seen & ~BIT(f);
        }
    }
    skip_space(&r);
    return !r.broken && r.at == r.end && (e->seen & needed) == needed;
}

/* ---- Results ---- */

static uint64_t result(const void *at, u32 len) {
    return (uint64_t)(uintptr_t)at << 32 | len;
}

#define CONSTANT(json) result(json, sizeof(json) - 1)
#define BAD_INPUT CONSTANT("{\"decision\":\"block\",\"status\":400,\"body\":\"Bad Request\",\"tags\":[\"bad-input\"]}")
#define BLOCK(status, body, tag, rule, reason, more)                                                                 \
    CONSTANT("{\"decision\":\"block\",\"status\":" #status ",\"body\":\"" body "\",\"tags\":[\"" tag "\"],"          \
             "\"rule_ids\":[\"" rule "\"],\"reason_codes\":[\"" reason "\"]" more "}")

/* Puts the parts together in a block of their own. The second is the inside of a string, the others are JSON. */
static uint64_t compose(const text *parts, u32 count) {
    u32 len = 0;
    for (u32 i = 0; i < count; i++)
        len += i == 1 ? put_escaped(NULL, parts[i]) : parts[i].len;
    u8 *at = alloc(len), *to = at;
    if (!at)
        __builtin_trap(); /* no result would mean "allow as it is" to the host; the trap is an error that it reports */
    for (u32 i = 0; i < count; i++) {
        if (i == 1)
            to += put_escaped(to, parts[i]);
        else
            for (u32 k = 0; k < parts[i].len; k++)
                *to++ = parts[i].at[k];
    }
    return result(at, len);
}

/* ---- What the rules do to texts ---- */

static u8 lower(u8 c) {
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static text lowered(text t) {
    for (u32 i = 0; i < t.len; i++)
        t.at[i] = lower(t.at[i]);
    return t;
}

/* Takes percent-encoding off once, turns '+' into a blank, and lowers ASCII letters. */
static text decoded(text t) {
    u8 *to = t.at;
    for (u32 i = 0; i < t.len; i++) {
        u8 c = t.at[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%' && t.len - i > 2 && hex(t.at[i + 1]) < 16 && hex(t.at[i + 2]) < 16) {
            c = (u8)(hex(t.at[i + 1]) << 4 | hex(t.at[i + 2]));
            i += 2;
        }
        *to++ = lower(c);
    }
    return (text){t.at, (u32)(to - t.at)};
}

static bool contains_any(text t, const text *patterns, u32 count) {
    for (u32 i = 0; i < t.len; i++)
        for (u32 k = 0; k < count; k++)
            if (t.at[i] == *patterns[k].at && starts_with((text){t.at + i, t.len - i}, patterns[k]))
                return true;
    return false;
}

#define CONTAINS(t, patterns) contains_any(t, patterns, COUNT_OF(patterns))

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

/* Decodes base64 as RFC 4648 has it, padded and nothing else in it. False when it is something else. */
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

static u32 digits_at(text t, u32 i) {
    u32 start = i;
    while (i < t.len && is_digit(t.at[i]))
        i++;
    return i - start;
}

static bool dash_and_four_at(text t, u32 i) {
    return i < t.len && t.at[i] == '-' && digits_at(t, i + 1) == 4;
}

/* Masks card numbers, 16 digits or four times four, but for the last four digits. True when there were any. */
static bool mask_cards(text t) {
    bool masked = false;
    for (u32 i = 0; i < t.len;) {
        u32 run = digits_at(t, i), card = 0;
        if (run == 16)
            card = 16;
        else if (run == 4 && dash_and_four_at(t, i + 4) && dash_and_four_at(t, i + 9) && dash_and_four_at(t, i + 14))
            card = 19;
        for (u32 k = 0; k + 4 < card; k++)
            if (t.at[i + k] != '-')
                t.at[i + k] = '*';
        masked = masked || card;
        i += card ? card : run ? run : 1; /* a card begins where a run of digits does, never within it */
    }
    return masked;
}

/* ---- Hooks ---- */

static const text traversal[] = {TEXT("../"), TEXT("..\\")};
static const text sql[] = {TEXT("union select"), TEXT("' or "), TEXT("drop table"), TEXT("; --")};
static const text script[] = {TEXT("<script"), TEXT("javascript:")};
static const text body_attacks[] = {TEXT("<script"), TEXT("union select"), TEXT("drop table")};
static const text scanners[] = {TEXT("sqlmap"), TEXT("nikto")};
static const text bot[] = {TEXT("bot")};
static const text dots_at_end = TEXT("/.."), admin_area = TEXT("/admin"), below_admin = TEXT("/admin/");
static const text methods_with_body[] = {TEXT("POST"), TEXT("PUT"), TEXT("PATCH")};
static const text text_types = TEXT("text/"), json_types = TEXT("application/json");
static const text base64 = TEXT("base64");

static uint64_t allow_request(const struct event *e, bool admin) {
    bool needs_more = false;
    for (u32 i = 0; i < COUNT_OF(methods_with_body); i++)
        needs_more = needs_more || equal(e->field[METHOD], methods_with_body[i]);
    text parts[] = {
        TEXT("{\"decision\":\"allow\",\"add_request_headers\":{\"X-Wasm-Processed\":\"true\",\"X-Client-IP\":\""),
        e->field[CLIENT_IP],
        TEXT("\"},\"remove_request_headers\":[\"X-Debug\"],\"tags\":[\"processed\""),
        admin ? (text)TEXT(",\"admin-access\"]") : (text)TEXT("]"),
        needs_more ? (text)TEXT(",\"needs_more\":true}") : (text)TEXT("}"),
    };
    return compose(parts, COUNT_OF(parts));
}

uint64_t EXPORT(on_request_headers)(u8 *json, u32 len) {
    struct event e;
    if (!read_event(&e, json, len, REQUEST))
        return BAD_INPUT;

    text uri = decoded(e.field[URI]), path = {uri.at, 0};
    while (path.len < uri.len && path.at[path.len] != '?' && path.at[path.len] != '#')
        path.len++;
    if (CONTAINS(uri, traversal) || ends_with(path, dots_at_end))
        return BLOCK(403, "Forbidden", "path-traversal", "SEC-001", "PATH_TRAVERSAL", ",\"confidence\":0.95");
    if (CONTAINS(uri, sql))
        return BLOCK(403, "Forbidden", "sql-injection", "SEC-002", "SQL_INJECTION", ",\"confidence\":0.9");
    if (CONTAINS(uri, script))
        return BLOCK(403, "Forbidden", "script-injection", "SEC-003", "SCRIPT_INJECTION", ",\"confidence\":0.9");

    bool admin = equal(path, admin_area) || starts_with(path, below_admin);
    if (admin && e.header[AUTHORIZATION].len == 0)
        return BLOCK(401, "Authentication required", "admin-auth", "SEC-010", "AUTHORIZATION_MISSING", "");

    text user_agent = lowered(e.header[USER_AGENT]);
    if (user_agent.len == 0)
        return CONSTANT("{\"decision\":\"challenge\",\"challenge_type\":\"js_challenge\","
                        "\"tags\":[\"no-user-agent\"]}");
    if (CONTAINS(user_agent, scanners))
        return BLOCK(403, "Forbidden", "scanner", "SEC-020", "SCANNER", "");
    if (CONTAINS(user_agent, bot))
        return CONSTANT("{\"decision\":\"challenge\",\"challenge_type\":\"captcha\","
                        "\"challenge_params\":{\"site_key\":\"your-site-key\"},\"tags\":[\"suspicious-user-agent\"]}");
    return allow_request(&e, admin);
}

uint64_t EXPORT(on_request_body)(u8 *json, u32 len) {
    struct event e;
    if (!read_event(&e, json, len, BODY))
        return BAD_INPUT;
    text data = e.field[DATA];
    if (equal(e.field[ENCODING], base64) && !from_base64(&data))
        return BAD_INPUT;
    if (CONTAINS(decoded(data), body_attacks))
        return BLOCK(403, "Forbidden", "body-attack", "SEC-030", "BODY_ATTACK", "");
    return CONSTANT("{\"decision\":\"allow\",\"tags\":[\"body-clean\"]}");
}

#define HARDENED(more)                                                                                               \
    CONSTANT("{\"decision\":\"allow\",\"add_response_headers\":{\"X-Content-Type-Options\":\"nosniff\","             \
             "\"X-Frame-Options\":\"DENY\",\"Referrer-Policy\":\"no-referrer\"},"                                    \
             "\"remove_response_headers\":[\"Server\",\"X-Powered-By\"" more "],\"tags\":[\"hardened\"]}")

uint64_t EXPORT(on_response_headers)(u8 *json, u32 len) {
    struct event e;
    if (!read_event(&e, json, len, RESPONSE))
        return BAD_INPUT;
    /* on_response_body may change the body of these types, and the proxy would keep the length it had. */
    text type = lowered(e.header[CONTENT_TYPE]);
    if (starts_with(type, text_types) || starts_with(type, json_types))
        return HARDENED(",\"Content-Length\"");
    return HARDENED("");
}

uint64_t EXPORT(on_response_body)(u8 *json, u32 len) {
    struct event e;
    if (!read_event(&e, json, len, BODY))
        return BAD_INPUT;
    if (equal(e.field[ENCODING], base64) || !mask_cards(e.field[DATA]))
        return CONSTANT("{\"decision\":\"allow\"}");
    const text parts[] = {
        TEXT("{\"decision\":\"allow\",\"response_body_mutation\":{\"action\":\"replace\",\"data\":\""),
        e.field[DATA],
        TEXT("\",\"chunk_index\":"),
        e.field[CHUNK_INDEX],
        TEXT("},\"tags\":[\"masked\"]}"),
    };
    return compose(parts, COUNT_OF(parts));
}
