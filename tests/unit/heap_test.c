/* SPDX-License-Identifier: MIT */
/* The heaps that need no device, through the seam: a chunk's life, and its adoption by another
 * gttd. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "gttd_util.h"
#include "heap.h"

#define MIB (1ull << 20)

static struct heap heap;
static struct reason why;

static struct heap_chunk describe(uint64_t size_bytes)
{
    struct heap_chunk chunk = {.size_bytes = size_bytes, .fd = -1, .backing_fd = -1};
    strcpy(chunk.label, "gttd:7:0");
    return chunk;
}

static void make(struct heap_chunk *chunk)
{
    CHECK_EQ(heap.ops->chunk_begin(&heap, chunk, &why), 0);
    CHECK_EQ(heap.ops->chunk_populate(&heap, chunk, 0, chunk->size_bytes, &why), 0);
    CHECK_EQ(heap.ops->chunk_export(&heap, chunk, &why), 0);
}

/* Sealing never takes a lock that a client can hold: what one has had, it has sealed itself or not.
 */
static void test_handed_out(void)
{
    struct heap_chunk chunk = describe(2 * MIB);
    make(&chunk);
    chunk.handed_out = true;
    int writable = fcntl(chunk.fd, F_DUPFD_CLOEXEC, 0);
    CHECK(!heap.ops->chunk_seal(&heap, &chunk));
    CHECK_EQ(fcntl(writable, F_GET_SEALS) & F_SEAL_WRITE, 0);
    CHECK_EQ(fcntl(writable, F_ADD_SEALS, F_SEAL_WRITE), 0);
    CHECK(heap.ops->chunk_seal(&heap, &chunk));
    close(writable);
    heap.ops->chunk_free(&heap, &chunk);
}

static void test_adopt(void)
{
    struct heap_chunk chunk = describe(4 * MIB), heir = describe(4 * MIB);
    struct stat before, after;
    make(&chunk);
    CHECK_EQ(pwrite(chunk.fd, "kept", 4, 0), 4);
    CHECK_EQ(fstat(chunk.fd, &before), 0);
    CHECK(heap.ops->chunk_seal(&heap, &chunk));
    heir.hold = HEAP_PINNED; /* whatever was said: shmem is not */
    CHECK_EQ(heap.ops->chunk_adopt(&heap, &heir, fcntl(chunk.fd, F_DUPFD_CLOEXEC, 0), &why), 0);
    heap.ops->chunk_free(&heap, &chunk);
    CHECK_EQ(fstat(heir.fd, &after), 0);
    CHECK(before.st_ino == after.st_ino && heir.hold == HEAP_SWAPPABLE);
    char text[4];
    CHECK(pread(heir.fd, text, 4, 0) == 4 && !memcmp(text, "kept", 4));
    CHECK(heap.ops->chunk_seal(&heap, &heir)); /* what a restart does to a sealed one */
    CHECK(heap.ops->chunk_seal(&heap, &heir));
    heap.ops->chunk_free(&heap, &heir);
}

/* What is no chunk of this heap and size is refused, and its fd is gone. */
static void test_adopt_refused(void)
{
    struct heap_chunk chunk = describe(4 * MIB), heir = describe(2 * MIB);
    make(&chunk);
    CHECK_EQ(heap.ops->chunk_adopt(&heap, &heir, chunk.fd, &why), -EBADMSG);
    CHECK(strstr(why.text, "bytes"));
    CHECK_EQ(fcntl(chunk.fd, F_GETFD), -1);
    chunk.fd = -1;
    heap.ops->chunk_free(&heap, &chunk);
    int loose = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING); /* its size may change */
    CHECK_EQ(ftruncate(loose, 2 * MIB), 0);
    CHECK_EQ(heap.ops->chunk_adopt(&heap, &heir, loose, &why), -EBADMSG);
    int other = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    CHECK_EQ(heap.ops->chunk_adopt(&heap, &heir, other, &why), -EBADMSG);
    CHECK_EQ(heir.fd, -1);
}

static void test_choice(void)
{
    struct heap none;
    struct heap_choice choice = {.heap = "memfd", .device = "/dev/dri/renderD128"};
    CHECK_EQ(heap_open(&none, &choice, &why), -EINVAL);
    CHECK(strstr(why.text, "memfd"));
    CHECK(heap_choice_exists("auto") && heap_choice_exists("memfd"));
    CHECK(!heap_choice_exists("memf") && !heap_choice_exists(""));
}

int main(void)
{
    const struct heap_choice choice = {.heap = "memfd"};
    int n_fds = count_fds(NULL);
    CHECK_EQ(heap_open(&heap, &choice, &why), 0);
    test_handed_out();
    test_adopt();
    test_adopt_refused();
    test_choice();
    struct heap_room room = heap_room(&heap);
    CHECK_EQ(room.total_bytes, 0);
    heap_close(&heap);
    CHECK_EQ(count_fds(NULL), n_fds);
    return 0;
}
