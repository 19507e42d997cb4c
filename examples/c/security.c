/*
 * A security filter of headers and bodies: attack patterns and scanners are turned away, bots challenged, responses
 * hardened, card numbers masked. examples/cases.json has what it answers to what.
 *
 * Percent-decoding and masking never make a text longer, so both happen where the text lies and nothing is copied.
 */
#include "sentinel.h"

/* Takes percent-encoding off once, turns '+' into a blank and lowers ASCII letters, where they lie. */
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

static decision *forbidden(const char *name, const char *rule, const char *reason) {
    return reason_code(rule_id(tag(block(403, "Forbidden"), name), rule), reason);
}

static decision *decide_request(request *request) {
    text uri = decoded(request->uri), path = {uri.at, 0};
    while (path.len < uri.len && path.at[path.len] != '?' && path.at[path.len] != '#')
        path.len++;
    if (contains_any(uri, "../", "..\\") || ends_with(path, "/.."))
        return confidence(forbidden("path-traversal", "SEC-001", "PATH_TRAVERSAL"), 0.95);
    if (contains_any(uri, "union select", "' or ", "drop table", "; --"))
        return confidence(forbidden("sql-injection", "SEC-002", "SQL_INJECTION"), 0.9);
    if (contains_any(uri, "<script", "javascript:"))
        return confidence(forbidden("script-injection", "SEC-003", "SCRIPT_INJECTION"), 0.9);

    /* Whether the credentials are right is the upstream's business: they only have to be there. */
    bool admin = equals(path, "/admin") || starts_with(path, "/admin/");
    if (admin && header(request, "Authorization").len == 0) {
        decision *d = tag(block(401, "Authentication required"), "admin-auth");
        return reason_code(rule_id(d, "SEC-010"), "AUTHORIZATION_MISSING");
    }

    text user_agent = lowered(header(request, "User-Agent"));
    if (user_agent.len == 0)
        return tag(challenge("js_challenge"), "no-user-agent");
    if (contains_any(user_agent, "sqlmap", "nikto"))
        return forbidden("scanner", "SEC-020", "SCANNER");
    if (contains(user_agent, "bot"))
        return tag(challenge_param(challenge("captcha"), "site_key", "your-site-key"), "suspicious-user-agent");

    decision *d = tag(allow(), "processed");
    set_request_header(d, "X-Wasm-Processed", "true");
    set_request_header(d, "X-Client-IP", request->client_ip);
    remove_request_header(d, "X-Debug");
    if (admin)
        tag(d, "admin-access");
    /* Of a request with a body the decision is provisional: the body may still tell against it. */
    if (equals(request->method, "POST") || equals(request->method, "PUT") || equals(request->method, "PATCH"))
        needs_more(d);
    return d;
}
ON_REQUEST_HEADERS(decide_request)

/* Looks at each chunk by itself: an attack that is cut in two by a chunk's end is not seen. */
static decision *decide_request_body(body_chunk *chunk) {
    if (contains_any(decoded(chunk->data), "<script", "union select", "drop table"))
        return forbidden("body-attack", "SEC-030", "BODY_ATTACK");
    return tag(allow(), "body-clean");
}
ON_REQUEST_BODY(decide_request_body)

static decision *decide_response(response *response) {
    decision *d = tag(allow(), "hardened");
    set_response_header(d, "X-Content-Type-Options", "nosniff");
    set_response_header(d, "X-Frame-Options", "DENY");
    set_response_header(d, "Referrer-Policy", "no-referrer");
    remove_response_header(d, "Server");
    remove_response_header(d, "X-Powered-By");
    /* A body of text may get masked, and the proxy would keep the old length. */
    text type = lowered(header(response, "Content-Type"));
    if (starts_with(type, "text/") || starts_with(type, "application/json"))
        remove_response_header(d, "Content-Length");
    return d;
}
ON_RESPONSE_HEADERS(decide_response)

static decision *decide_response_body(body_chunk *chunk) {
    /* What is no text is left alone: an image, an archive. */
    if (!chunk->is_text || !mask_cards(chunk->data))
        return allow();
    return tag(replace_response_body(allow(), chunk, chunk->data), "masked");
}
ON_RESPONSE_BODY(decide_response_body)
