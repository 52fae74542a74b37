/* SPDX-License-Identifier: MIT */
/* A raw HTTP client for tests: see http_client.h. */
#include "http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

int dial(int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
    return fd;
}

void send_bytes(int fd, const void *bytes, size_t size)
{
    const char *p = bytes;
    while (size > 0) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0) {
            return; /* the server said all it wanted: the reply will tell */
        }
        p += n;
        size -= (size_t)n;
    }
}

void send_text(int fd, const char *text)
{
    send_bytes(fd, text, strlen(text));
}

/* -1: closed or reset. */
static ssize_t read_some(int fd, char *buf, size_t capacity)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK(poll(&p, 1, 60000) == 1);
    ssize_t n = recv(fd, buf, capacity, 0);
    return n > 0 ? n : -1;
}

char *read_to_end(int fd, size_t *ret_size)
{
    size_t size = 0, capacity = 4096;
    char *text = malloc(capacity);
    CHECK(text);
    for (;;) {
        if (capacity - size < 2048) {
            capacity *= 2;
            text = realloc(text, capacity);
            CHECK(text);
        }
        ssize_t n = read_some(fd, text + size, capacity - size - 1);
        if (n < 0) {
            break;
        }
        size += (size_t)n;
    }
    text[size] = '\0';
    *ret_size = size;
    return text;
}

bool read_until(int fd, const char *text, char **got)
{
    size_t size = *got ? strlen(*got) : 0;
    for (;;) {
        char *grown = realloc(*got, size + 4097);
        CHECK(grown);
        *got = grown;
        grown[size] = '\0';
        if (strstr(grown, text)) {
            return true;
        }
        ssize_t n = read_some(fd, grown + size, 4096);
        if (n < 0) {
            return false;
        }
        size += (size_t)n;
        grown[size] = '\0';
    }
}

/* The value of a header, or NULL. */
static const char *header_value(const char *head, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, n) == 0 && line[2 + n] == ':') {
            return line + 2 + n + 1 + strspn(line + 2 + n + 1, " ");
        }
    }
    return NULL;
}

/* In place. False if the last chunk is missing. */
static bool unchunk(char *body, size_t *size)
{
    char *in = body, *out = body, *end = body + *size;
    for (;;) {
        char *after;
        size_t n = strtoul(in, &after, 16);
        if (after == in || after + 2 > end || n > (size_t)(end - after) - 2) {
            break;
        }
        memmove(out, after + 2, n);
        out += n;
        in = after + 2 + n + 2;
        if (n == 0) {
            *out = '\0';
            *size = (size_t)(out - body);
            return true;
        }
        if (in > end) {
            break;
        }
    }
    *out = '\0';
    *size = (size_t)(out - body);
    return false;
}

void receive(int fd, struct reply *ret)
{
    *ret = (struct reply){0};
    size_t size;
    char *text = read_to_end(fd, &size);
    close(fd);
    char *body = strstr(text, "\r\n\r\n");
    if (!body) {
        free(text);
        return;
    }
    *body = '\0';
    body += 4;
    CHECK(strncmp(text, "HTTP/1.", 7) == 0);
    ret->head = text;
    ret->status = atoi(text + 9);
    ret->size = size - (size_t)(body - text);
    ret->body = malloc(ret->size + 1);
    CHECK(ret->body);
    memcpy(ret->body, body, ret->size + 1);
    const char *length = header_value(text, "Content-Length");
    const char *coding = header_value(text, "Transfer-Encoding");
    if (coding && strncasecmp(coding, "chunked", 7) == 0) {
        ret->whole = unchunk(ret->body, &ret->size);
    } else {
        ret->whole = !length || strtoul(length, NULL, 10) == ret->size;
    }
}

void reply_finish(struct reply *reply)
{
    free(reply->head);
    free(reply->body);
    *reply = (struct reply){0};
}

void exchange(int port, const char *head, const char *body, struct reply *ret)
{
    int fd = dial(port);
    send_text(fd, head);
    send_text(fd, body);
    receive(fd, ret);
}

void get(int port, const char *path, struct reply *ret)
{
    char head[512];
    snprintf(head, sizeof head,
             "GET %s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", path, port);
    exchange(port, head, "", ret);
}

int post_start(int port, const char *headers, const char *json)
{
    char head[1024];
    int n = snprintf(head, sizeof head,
                     "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                     "Connection: close\r\n%sContent-Length: %zu\r\n\r\n",
                     port, headers, strlen(json));
    CHECK(n < (int)sizeof head);
    int fd = dial(port);
    send_text(fd, head);
    send_text(fd, json);
    return fd;
}

void post(int port, const char *headers, const char *json, struct reply *ret)
{
    receive(post_start(port, headers, json), ret);
}

bool has_header(const struct reply *reply, const char *line_start)
{
    char text[256];
    snprintf(text, sizeof text, "\r\n%s", line_start);
    return strcasestr(reply->head, text) != NULL;
}
