/* The SDK's own tests, for the host: test.sh compiles and runs them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sentinel.h"

/* ---- A filter with every hook ---- */

static decision *(*decide_request)(request *);
static decision *(*decide_response)(response *);
static decision *(*decide_chunk)(body_chunk *);

static decision *on_request(request *request) {
    return decide_request(request);
}
ON_REQUEST_HEADERS(on_request)

static decision *on_response(response *response) {
    return decide_response(response);
}
ON_RESPONSE_HEADERS(on_response)

static decision *on_chunk(body_chunk *chunk) {
    return decide_chunk(chunk);
}
ON_REQUEST_BODY(on_chunk)

static text names[2];
static u32 name_count;

static const char *configure(reader *config) {
    text found[2];
    u32 count = 0;
    for (text name; next_member(config, &name);) {
        if (!equals(name, "names"))
            read_value(config);
        else if (!read_strings(config, found, COUNT_OF(found), &count))
            return "\"names\" must be at most two strings";
    }
    memcpy(names, found, sizeof names);
    name_count = count;
    return NULL;
}
ON_CONFIGURE(configure)

static char logged[64];

void sentinel_log(enum level level, const u8 *at, u32 len) {
    snprintf(logged, sizeof logged, "%d %.*s", level, (int)len, (const char *)at);
}

/* ---- Calls as the agent makes them ---- */

static int failures;

static void check(const char *what, bool good) {
    if (!good) {
        printf("FAILED: %s\n", what);
        failures++;
    }
}

static void check_text(const char *what, const char *found, const char *wanted) {
    if (strcmp(found, wanted)) {
        printf("FAILED: %s\n  wanted %s\n  found  %s\n", what, wanted, found);
        failures++;
    }
}

/* The hook's result, good until the next call. */
static const char *call(uint64_t (*hook)(u8 *, u32), const char *event) {
    static char copy[4096];
    u32 len = (u32)strlen(event);
    u8 *at = alloc(len);
    memcpy(at, event, len);
    uint64_t result = hook(at, len);
    dealloc(at, len);
    u8 *result_at = (u8 *)(uintptr_t)(result >> 32);
    u32 result_len = (u32)result;
    snprintf(copy, sizeof copy, "%.*s", (int)result_len, (const char *)result_at);
    dealloc(result_at, result_len);
    check("all memory is given back", top == NULL);
    return copy;
}

static decision *(*decide_frame)(frame *);

static decision *on_frame(frame *frame) {
    return decide_frame(frame);
}
ON_WEBSOCKET_FRAME(on_frame)

static findings *inspect(inspection *inspection) {
    check("content", equals(inspection->content, "a\xc3\xa9\"b") && equals(inspection->model, "m"));
    check("type", equals(inspection->inspection_type, "pii_detection") && inspection->route_id.len == 0);
    check("categories", inspection->category_count == 2 && equals(inspection->categories[1], "ssn"));
    findings *f = found(nothing_found(), "email", "an \"address\"", HIGH, 0, 3);
    return redacted(found(f, "ssn", "a number", LOW, 3, 5), AS_TEXT("***\"b"));
}
ON_GUARDRAIL(inspect)

#define REQUEST_START "{\"method\":\"GET\",\"client_ip\":\"203.0.113.7\",\"correlation_id\":\"c\",\"uri\":"
#define REQUEST REQUEST_START "\"/\",\"headers\":{}}"
#define RESPONSE "{\"status\":204,\"correlation_id\":\"c\",\"headers\":{\"Server\":\"s\"}}"
#define CHUNK(encoding, data)                                                                                        \
    "{\"correlation_id\":\"c\",\"chunk_index\":3,\"is_last\":true,\"total_size\":null,\"bytes_seen\":5,"             \
    "\"encoding\":\"" encoding "\",\"data\":\"" data "\"}"
#define BAD_INPUT "{\"decision\":\"block\",\"status\":400,\"body\":\"Bad Request\",\"tags\":[\"bad-input\"]}"

static const char *answer(decision *(*decide)(request *)) {
    decide_request = decide;
    return call(on_request_headers, REQUEST);
}

/* ---- Decisions ---- */

static decision *every_list(request *request) {
    decision *d = allow();
    set_request_header(d, "X-A", "1");
    set_request_header(d, "X-A", request->client_ip);
    append_request_header(d, "Via", "a");
    remove_request_header(d, "X-Debug");
    set_response_header(d, "X-B", "\"\\\n\x01\x1f");
    append_response_header(d, "Set-Cookie", "a=1");
    append_response_header(d, "X-C", "c");
    append_response_header(d, "Set-Cookie", "b=2");
    remove_response_header(d, "Server");
    remove_response_header(d, "X-Powered-By");
    rule_id(tag(tag(d, "one"), "two"), "R-1");
    reason_code(routing_metadata(d, "pool", "canary"), "A");
    return needs_more(confidence(d, 0.95));
}

static decision *blocks(request *request) {
    (void)request;
    return block(403, "Forbidden");
}

static decision *redirects(request *request) {
    return redirect(307, request->uri);
}

static decision *challenges(request *request) {
    (void)request;
    return challenge_param(challenge("captcha"), "site_key", "k");
}

static decision *is_sure(request *request) {
    (void)request;
    return confidence(allow(), 1);
}

static void test_decisions(void) {
    check_text("block", answer(blocks), "{\"decision\":\"block\",\"status\":403,\"body\":\"Forbidden\"}");
    check_text("redirect", answer(redirects), "{\"decision\":\"redirect\",\"status\":307,\"body\":\"/\"}");
    check_text("challenge", answer(challenges),
               "{\"decision\":\"challenge\",\"challenge_type\":\"captcha\",\"challenge_params\":{\"site_key\":\"k\"}}");
    check_text("confidence", answer(is_sure), "{\"decision\":\"allow\",\"confidence\":1.0000}");
    check_text("lists", answer(every_list),
               "{\"decision\":\"allow\",\"add_request_headers\":{\"X-A\":\"203.0.113.7\"},"
               "\"append_request_headers\":{\"Via\":[\"a\"]},\"remove_request_headers\":[\"X-Debug\"],"
               "\"add_response_headers\":{\"X-B\":\"\\\"\\\\\\n\\u0001\\u001f\"},"
               "\"append_response_headers\":{\"Set-Cookie\":[\"a=1\",\"b=2\"],\"X-C\":[\"c\"]},"
               "\"remove_response_headers\":[\"Server\",\"X-Powered-By\"],\"tags\":[\"one\",\"two\"],"
               "\"rule_ids\":[\"R-1\"],\"reason_codes\":[\"A\"],\"routing_metadata\":{\"pool\":\"canary\"},"
               "\"confidence\":0.9500,\"needs_more\":true}");
}

/* ---- Events ---- */

static decision *sees_request(request *request) {
    check("method", equals(request->method, "GET"));
    check("uri", equals(request->uri, "/\"\xc3\xa9\xf0\x9f\x98\x80"));
    check("client_ip", equals(request->client_ip, "203.0.113.7"));
    check("correlation_id", equals(request->correlation_id, "c"));
    check("header", equals(header(request, "User-Agent"), "curl/8"));
    check("the last of two", equals(header(request, "X-A"), "2"));
    check("absent header", header(request, "user-agent").len == 0);
    return allow();
}

static decision *sees_response(response *response) {
    check("status", response->status == 204);
    return set_response_header(allow(), "X-Was", header(response, "Server"));
}

static decision *sees_text(body_chunk *chunk) {
    check("chunk", chunk->chunk_index == 3 && chunk->is_last && chunk->bytes_seen == 5);
    check("total_size", chunk->total_size == UNKNOWN);
    check("text", chunk->is_text && equals(chunk->data, "hello"));
    return drop_response_body(replace_request_body(allow(), chunk, "text"), chunk);
}

static decision *sees_bytes(body_chunk *chunk) {
    check("bytes", !chunk->is_text && chunk->data.len == 2 && !memcmp(chunk->data.at, "\xff\0", 2));
    return drop_request_body(replace_response_body(allow(), chunk, chunk->data), chunk);
}

static void test_events(void) {
    decide_request = sees_request;
    call(on_request_headers, " " REQUEST_START "\"\\/\\\"\\u00e9\\ud83d\\ude00\",\"later\":[{}],\"headers\":"
                             "{\"User-Agent\":\"curl/8\",\"X-A\":\"1\",\"X-A\":\"2\"}} ");
    decide_response = sees_response;
    check_text("response", call(on_response_headers, RESPONSE),
               "{\"decision\":\"allow\",\"add_response_headers\":{\"X-Was\":\"s\"}}");
    decide_chunk = sees_text;
    check_text("text chunk", call(on_request_body, CHUNK("utf-8", "hello")),
               "{\"decision\":\"allow\",\"request_body_mutation\":{\"action\":\"replace\",\"chunk_index\":3,"
               "\"data\":\"text\"},\"response_body_mutation\":{\"action\":\"drop\",\"chunk_index\":3}}");
    decide_chunk = sees_bytes;
    check_text("bytes chunk", call(on_request_body, CHUNK("base64", "/wA=")),
               "{\"decision\":\"allow\",\"request_body_mutation\":{\"action\":\"drop\",\"chunk_index\":3},"
               "\"response_body_mutation\":{\"action\":\"replace\",\"chunk_index\":3,\"encoding\":\"base64\","
               "\"data\":\"/wA=\"}}");
}

#define FRAME(encoding, data)                                                                                        \
    "{\"correlation_id\":\"c\",\"opcode\":\"text\",\"client_to_server\":false,\"frame_index\":7,\"fin\":true,"           \
    "\"route_id\":null,\"client_ip\":\"::1\",\"encoding\":\"" encoding "\",\"data\":\"" data "\"}"

static decision *sees_frame(frame *frame) {
    check("frame", equals(frame->opcode, "text") && !frame->to_server && frame->frame_index == 7 && frame->fin);
    check("whose", equals(frame->client_ip, "::1") && equals(frame->correlation_id, "c") && !frame->route_id.len);
    check("data", equals(frame->data, "hello") && frame->is_text);
    return tag(close_socket(1003, "no \"hello\""), "rude");
}

static decision *drops_bytes(frame *frame) {
    check("frame of bytes", !frame->is_text && frame->data.len == 2);
    return drop_frame();
}

static void test_frames(void) {
    decide_frame = sees_frame;
    check_text("close", call(on_websocket_frame, FRAME("utf-8", "hello")),
               "{\"decision\":\"close\",\"code\":1003,\"reason\":\"no \\\"hello\\\"\",\"tags\":[\"rude\"]}");
    decide_frame = drops_bytes;
    check_text("drop", call(on_websocket_frame, FRAME("base64", "/wA=")), "{\"decision\":\"drop\"}");
    check_text("broken base64 frame", call(on_websocket_frame, FRAME("base64", "Zg=")), BAD_INPUT);
    check_text("no frame", call(on_websocket_frame, REQUEST), BAD_INPUT);
}

#define INSPECTION(categories)                                                                                       \
    "{\"correlation_id\":\"c\",\"inspection_type\":\"pii_detection\",\"content\":\"a\\u00e9\\\"b\",\"model\":\"m\","  \
    "\"categories\":" categories ",\"route_id\":null,\"metadata\":{}}"
#define NOT_INSPECTED                                                                                                \
    "{\"detected\":true,\"detections\":[{\"category\":\"bad-input\",\"description\":\"the event cannot be read\","   \
    "\"severity\":\"high\",\"span\":{\"start\":0,\"end\":0}}]}"

static void test_inspections(void) {
    check_text("findings", call(on_guardrail, INSPECTION("[\"email\",\"ssn\"]")),
               "{\"detected\":true,\"detections\":[{\"category\":\"email\",\"description\":\"an \\\"address\\\"\","
               "\"severity\":\"high\",\"span\":{\"start\":0,\"end\":3}},{\"category\":\"ssn\",\"description\":\"a number\","
               "\"severity\":\"low\",\"span\":{\"start\":3,\"end\":5}}],\"redacted_content\":\"***\\\"b\"}");
    check_text("categories of another type", call(on_guardrail, INSPECTION("[1]")), NOT_INSPECTED);
    check_text("no inspection", call(on_guardrail, REQUEST), NOT_INSPECTED);
}

static decision *never(request *request) {
    (void)request;
    check("a filter that sees no bad input", false);
    return allow();
}

static decision *never_a_chunk(body_chunk *chunk) {
    (void)chunk;
    return never(NULL);
}

static decision *allows(request *request) {
    (void)request;
    return allow();
}

/* A request that has arrays in one another, too. */
static const char *nested(int arrays) {
    static char event[512];
    char open[65] = "", close[65] = "";
    memset(open, '[', (size_t)arrays);
    memset(close, ']', (size_t)arrays);
    snprintf(event, sizeof event, "%s\"/\",\"headers\":{},\"later\":%s%s}", REQUEST_START, open, close);
    return event;
}

static void test_bad_input(void) {
    static const char *const events[] = {
        "",
        "{}",
        "null",
        "[]",
        REQUEST "x",
        "{\"method\":\"GET\"",
        REQUEST_START "null,\"headers\":{}}",
        REQUEST_START "\"\\x\",\"headers\":{}}",
        REQUEST_START "\"\\ud800\",\"headers\":{}}",
        REQUEST_START "\"\xff\",\"headers\":{}}",
        REQUEST_START "\"/\" \"headers\":{}}",
        REQUEST_START "\"/\",\"headers\":[]}",
        REQUEST_START "\"/\",\"headers\":{\"X-A\":1}}",
        REQUEST_START "\"/\",\"headers\":{\"X-A\":[\"1\"]}}",
        REQUEST_START "\"/\",\"headers\":{},}",
    };
    decide_request = never;
    for (u32 i = 0; i < COUNT_OF(events); i++)
        check_text(events[i], call(on_request_headers, events[i]), BAD_INPUT);
    check_text("status", call(on_response_headers,
                              "{\"status\":65536,\"correlation_id\":\"c\",\"headers\":{}}"), BAD_INPUT);
    decide_chunk = never_a_chunk;
    check_text("unknown encoding", call(on_request_body, CHUNK("latin-1", "a")), BAD_INPUT);
    check_text("broken base64", call(on_request_body, CHUNK("base64", "Zg=")), BAD_INPUT);

    decide_request = allows;
    check_text("64 deep", call(on_request_headers, nested(63)), "{\"decision\":\"allow\"}");
    check_text("too deep", call(on_request_headers, nested(64)), BAD_INPUT);
}

static void test_many_headers(void) {
    size_t room = 64 * 1024, len = 0;
    char *event = malloc(room);
    len += (size_t)snprintf(event, room, "%s\"/\",\"headers\":{", REQUEST_START);
    for (int i = 0; i < 1000; i++)
        len += (size_t)snprintf(event + len, room - len, "\"X-%d\":\"%d\",", i, i);
    snprintf(event + len, room - len, "\"User-Agent\":\"last\"}}");
    decide_request = every_list;
    check("a thousand headers", strstr(call(on_request_headers, event), "\"tags\":[\"one\",\"two\"]") != NULL);
    free(event);
}

/* ---- Texts, configuration, log ---- */

static void test_texts(void) {
    char line[] = "A Bot/1.0";
    check("contains", contains(line, "Bot") && !contains(line, "bot") && !contains("Bo", "Bot") && contains(line, ""));
    check("contains_any", contains_any(line, "x", "1.0") && !contains_any(line, "1.0 ", "2") && !contains_any("", "a"));
    check("starts_with", starts_with(line, "A ") && !starts_with("A", "A "));
    check("ends_with", ends_with(line, ".0") && !ends_with("0", ".0"));
    check("lowered", equals(lowered(AS_TEXT(line)), "a bot/1.0"));
}

static void test_configuration(void) {
    check_text("taken", call(on_configure, "{\"config\":{\"other\":{},\"names\":[\"a\",\"\\u0062\"]}}"), "");
    check("names", name_count == 2 && equals(names[0], "a") && equals(names[1], "b"));
    check_text("too many", call(on_configure, "{\"config\":{\"names\":[\"x\",\"y\",\"z\"]}}"),
               "{\"error\":\"\\\"names\\\" must be at most two strings\"}");
    check_text("not strings", call(on_configure, "{\"config\":{\"names\":[1]}}"),
               "{\"error\":\"\\\"names\\\" must be at most two strings\"}");
    check_text("no list", call(on_configure, "{\"config\":{\"names\":\"x\"}}"),
               "{\"error\":\"\\\"names\\\" must be at most two strings\"}");
    check_text("no object", call(on_configure, "{\"config\":[]}"),
               "{\"error\":\"the configuration is not an object\"}");
    check_text("broken", call(on_configure, "{\"config\":{"), "{\"error\":\"the configuration is not an object\"}");
    static char large[CONFIG_ROOM + 2];
    memset(large, ' ', CONFIG_ROOM + 1);
    check_text("too long", call(on_configure, large), "{\"error\":\"the configuration is too long\"}");
    check("the old one stays", name_count == 2 && equals(names[0], "a") && equals(names[1], "b"));
    check_text("none", call(on_configure, "{\"config\":{}}"), "");
    check("nothing left", name_count == 0);
}

static void test_log(void) {
    log_text(LOG_WARNING, "hello");
    check_text("log", logged, "3 hello");
}

static void test_memory(void) {
    void *a = alloc(5), *b = alloc(0), *c = alloc(7);
    dealloc(b, 0);
    dealloc(a, 5);
    check("a live block keeps those below", top != NULL);
    dealloc(&a, 1);
    dealloc(c, 7);
    check("nothing is left", top == NULL);
    check("no memory", alloc(UINT32_MAX) == NULL && top == NULL);
}

int main(void) {
    test_decisions();
    test_events();
    test_frames();
    test_inspections();
    test_bad_input();
    test_many_headers();
    test_texts();
    test_configuration();
    test_log();
    test_memory();
    printf("%d failed\n", failures);
    return failures != 0;
}
