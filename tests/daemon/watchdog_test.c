/* SPDX-License-Identifier: MIT */
/* What gttd tells a service manager: READY, signs of life as often as asked, STOPPING. */
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "rig.h"

/* The next notification, within 10 s; joined lines. */
static void next(int sock, char text[512])
{
    struct pollfd p = {.fd = sock, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 10000), 1);
    ssize_t n = recv(sock, text, 511, 0);
    CHECK(n > 0);
    text[n] = '\0';
}

static void expect(int sock, const char *want)
{
    char text[512];
    do {
        next(sock, text);
    } while (!strstr(text, want));
}

int main(void)
{
    struct rig rig = {0};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "/tmp/gttd-notify-%d", (int)getpid());
    int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(sock >= 0);
    CHECK_EQ(bind(sock, (struct sockaddr *)&addr, sizeof addr), 0);
    setenv("NOTIFY_SOCKET", addr.sun_path, 1);
    setenv("WATCHDOG_USEC", "100000", 1);
    rig_start(&rig, NULL);
    expect(sock, "READY=1");
    for (int i = 0; i < 5; i++) {
        expect(sock, "WATCHDOG=1");
    }
    rig_stop(&rig);
    expect(sock, "STOPPING=1");
    close(sock);
    unlink(addr.sun_path);
    return 0;
}
