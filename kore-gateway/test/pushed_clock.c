/*
 * The monotonic clock of a gateway that test/test_http_bounds.py stops and pushes on: what takes a minute is seen at once, and a
 * busy machine makes nothing late.  Preloaded (LD_PRELOAD); CLOCK_FILE names the file that holds a struct pushed.  That is
 * mapped before Kore's sandbox is on, so that looking at it needs no system call.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct pushed {
    int64_t offset_ms;
    int64_t stopped_ms; /* the time at which it stands, without the offset; 0: it goes */
};

typedef int clock_gettime_fn(clockid_t id, struct timespec *now);

static const volatile struct pushed *pushed;
static clock_gettime_fn *real;

__attribute__((constructor)) static void pushed_begin(void)
{
    const char *path = getenv("CLOCK_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    void *page = fd == -1 ? MAP_FAILED : mmap(NULL, sizeof(struct pushed), PROT_READ, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED) {
        fputs("pushed_clock: CLOCK_FILE cannot be read\n", stderr);
        _exit(2);
    }
    close(fd);
    pushed = page;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int64_t offset_ms, stopped_ms, nanoseconds;
    int status;

    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    status = real(id, now);
    if (status != 0 || id != CLOCK_MONOTONIC || pushed == NULL)
        return status;
    offset_ms = pushed->offset_ms;
    stopped_ms = pushed->stopped_ms;
    nanoseconds = stopped_ms > 0 ? stopped_ms * 1000000 : (int64_t)now->tv_sec * 1000000000 + now->tv_nsec;
    nanoseconds += offset_ms * 1000000;
    *now = (struct timespec){.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    return 0;
}
