/* SPDX-License-Identifier: MIT */
/* Any bytes as the body of a chat completion: read or refused, never anything else. */
#include <errno.h>
#include <stdint.h>

#include "check.h"
#include "openai.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_request(const struct openai_request *request)
{
    CHECK(request->n_messages > 0);
    for (size_t i = 0; i < request->n_messages; i++) {
        const struct openai_message *m = &request->messages[i];
        CHECK(m->role <= OPENAI_ASSISTANT && strlen(m->text) == m->size);
    }
    CHECK(request->temperature >= 0 && request->temperature <= 2);
    CHECK(request->top_p >= 0 && request->top_p <= 1);
    CHECK(request->min_p >= 0 && request->min_p <= 1);
    CHECK(request->repetition_penalty > 0 && request->n_stops <= OPENAI_MAX_STOPS);
    for (size_t i = 0; i < request->n_stops; i++) {
        CHECK(request->stops[i][0]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct openai_request request;
    struct openai_error error;
    int r = openai_request_parse(data, size, &request, &error);
    if (r == 0) {
        check_request(&request);
        /* what was read can be written */
        struct openai_reply reply = {"chatcmpl-1", "m", "fp_0", 0, true};
        char *json = openai_text_chunk(&reply, request.messages[0].text, request.messages[0].size);
        CHECK(json);
        free(json);
        openai_request_finish(&request);
    } else {
        CHECK(r == -EINVAL && (error.status == 400 || error.status == 413) && error.message[0]);
        char *json = openai_error_json(&error);
        CHECK(json);
        free(json);
    }
    return 0;
}
