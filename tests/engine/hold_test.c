/* SPDX-License-Identifier: MIT */
/*
 * `gttrun serve` while gttd restarts under it: no request fails, and the weights are held again
 * afterwards. Real programs, the bundled model, and the stand-in for a service manager that the
 * daemon's tests use.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "chat_client.h"
#include "spawn.h"
#include "supervisor.h"

#define MODEL "models/wordbook-22m"

static struct supervisor sup;
static int port;
static atomic_bool stop;
static atomic_int n_answers;

static void *ask(void *data)
{
    (void)data;
    while (!stop) {
        struct chat chat = chat_ask(port, false, "What does the word candle mean?",
                                    ",\"temperature\":0,\"max_tokens\":24");
        CHECK_EQ(chat.status, 200);
        CHECK(chat.done && strstr(chat.text, "candle"));
        chat_finish(&chat);
        n_answers++;
    }
    return NULL;
}

static void wait_for_lease(void)
{
    for (int ms = 0; rig_count(&sup.rig).n_leases != 1; ms += 20) {
        CHECK(ms < 20000);
        sleep_ms(20);
    }
}

int main(void)
{
    char socket_arg[160];
    pthread_t asker;
    sup_start(&sup, 64, NULL);
    atexit(spawn_clean_up);
    snprintf(socket_arg, sizeof socket_arg, "--socket=%s", sup.rig.socket);
    struct process serve =
        spawn_gttrun((const char *[]){"serve", "-m", MODEL, "--backend", "cpu", "--listen",
                                      "127.0.0.1:0", socket_arg, NULL});
    spawn_expect(&serve, true, "listening on http://127.0.0.1:");
    char *errors = spawn_errors(&serve);
    CHECK(strstr(errors, "pool-fill"));
    port = atoi(strstr(errors, "listening on http://127.0.0.1:") + 30);
    free(errors);
    CHECK_EQ(pthread_create(&asker, NULL, ask, NULL), 0);
    wait_for_lease();
    for (int i = 0; i < 3; i++) {
        sup_restart(&sup, i % 2 ? SIGTERM : SIGKILL);
        wait_for_lease();
    }
    /* gone for longer, and back */
    close(sup.listen_fd);
    sup_end(&sup, SIGKILL);
    spawn_expect(&serve, true, "is not back");
    spawn_expect(&serve, true, "serving goes on");
    sup_listen(&sup);
    sup_launch(&sup);
    wait_for_lease();
    spawn_expect(&serve, true, "gttd is back and holds the weights");
    int before = n_answers;
    while (n_answers < before + 2) {
        sleep_ms(10);
    }
    stop = true;
    pthread_join(asker, NULL);
    kill(serve.pid, SIGTERM);
    CHECK_EQ(spawn_wait(&serve), 0);
    spawn_close(&serve);
    CHECK_EQ(rig_count(&sup.rig).n_leases, 0);
    sup_stop(&sup);
    return 0;
}
