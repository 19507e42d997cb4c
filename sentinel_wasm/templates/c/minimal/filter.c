/* Allows every request, and says that it has seen it. */
#include "sentinel.h"

static decision *decide(request *request) {
    (void)request;
    return tag(allow(), "seen");
}
ON_REQUEST_HEADERS(decide)
