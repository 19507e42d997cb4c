/* Turns scripts in request bodies away, and masks a word in response bodies. Each chunk is looked at by itself: what a
 * chunk's end cuts in two is not seen. */
#include "sentinel.h"

static decision *on_request(request *request) {
    (void)request;
    return allow();
}
ON_REQUEST_HEADERS(on_request)

static decision *inspect(body_chunk *chunk) {
    if (contains(lowered(chunk->data), "<script"))
        return tag(block(403, "Forbidden"), "body-attack");
    return allow();
}
ON_REQUEST_BODY(inspect)

/* Puts stars over a word wherever it is. False where it is not. */
static bool mask_word(text data, text word) {
    bool masked = false;
    for (u32 i = 0; i + word.len <= data.len; i++)
        if (starts_with(((text){data.at + i, data.len - i}), word)) {
            for (u32 k = 0; k < word.len; k++)
                data.at[i + k] = '*';
            masked = true;
        }
    return masked;
}

static decision *mask(body_chunk *chunk) {
    if (!chunk->is_text || !mask_word(chunk->data, (text)TEXT("secret")))
        return allow();
    return tag(replace_response_body(allow(), chunk, chunk->data), "masked");
}
ON_RESPONSE_BODY(mask)
