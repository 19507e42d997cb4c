/* Challenges bots and turns scanners away. The configuration names bots that may pass: {"allowed": ["Googlebot"]}. */
#include "sentinel.h"

#define MOST_ALLOWED 64

static text allowed[MOST_ALLOWED];
static u32 allowed_count;

static const char *configure(reader *config) {
    text names[MOST_ALLOWED]; /* `allowed` stays as it is until all of the configuration is sound */
    u32 count = 0;
    for (text member; next_member(config, &member);) {
        if (!equals(member, "allowed"))
            read_value(config);
        else if (!read_strings(config, names, MOST_ALLOWED, &count))
            return "allowed: at most 64 strings in a list are wanted";
    }
    for (u32 i = 0; i < count; i++)
        if (names[i].len == 0)
            return "allowed has an empty name, which every User-Agent contains";
    for (u32 i = 0; i < count; i++)
        allowed[i] = names[i];
    allowed_count = count;
    return NULL;
}
ON_CONFIGURE(configure)

static bool is_allowed(text user_agent) {
    for (u32 i = 0; i < allowed_count; i++)
        if (contains(user_agent, allowed[i]))
            return true;
    return false;
}

static decision *decide(request *request) {
    text user_agent = header(request, "User-Agent");
    if (user_agent.len == 0)
        return tag(challenge("js_challenge"), "no-user-agent");
    if (is_allowed(user_agent))
        return tag(allow(), "allowed-bot");
    lowered(user_agent);
    if (contains_any(user_agent, "sqlmap", "nikto"))
        return tag(block(403, "Forbidden"), "scanner");
    if (contains(user_agent, "bot"))
        return tag(challenge("captcha"), "bot");
    return allow();
}
ON_REQUEST_HEADERS(decide)
