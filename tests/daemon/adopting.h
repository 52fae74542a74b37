/* SPDX-License-Identifier: MIT */
/*
 * For tests of adopted segments: device memory to hand over, for which memfds stand (that is also
 * what drivers that run on the CPU export), and looking at what has become of it.
 */
#ifndef TESTS_ADOPTING_H
#define TESTS_ADOPTING_H

#include "rig.h"

#define N_CHUNKS 3 /* of 2 MiB */

extern const struct gtt_device gpu; /* "device 0", "driver 1.2" */

/* What a driver might export: it cannot grow. */
int device_fd(uint64_t size_bytes);

struct copy {
    struct gtt_adopt_params params;
    int fds[N_CHUNKS];
};

void copy_init(struct copy *copy, const char *name);
void copy_finish(struct copy *copy);

/* Hand one over under this name. */
void adopt(struct gtt *gtt, const char *name);

struct gtt_status status_of(struct gtt *gtt);
bool find(struct gtt *gtt, const char *name, struct gtt_entry *ret);

/* OPEN, naming a device and a driver: its error. */
int open_as(struct gtt *gtt, const char *name, const char *device, const char *driver);

/* It is there, with everything that was said of it, and its chunks are these files in this order.
 */
void expect_copy(struct gtt *gtt, const char *name, const struct copy *copy);

/* Message by message: the id, or 0 if it is to fail; the status. */
uint64_t raw_adopt(int sock, const char *name, int want);
int raw_give(int sock, uint64_t id, uint32_t index, int fd);

#endif
