#undef _FORTIFY_SOURCE /* what it checks is made here */
#include "torture.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RUNS_MAX      20000 /* of one scenario */
#define LIBRARIES_MAX 8
#define FRAMES_MAX    24 /* shown of where something fails */

#if defined(__has_feature) /* clang */
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED
#endif

/* Where the calls go on to; the names are parts of what glibc and the sanitizer's library promise. */
#ifdef SANITIZED
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif

/*
 * The dynamic linker and the sanitizers' own start call them before there is the memory that instrumented code looks into.  So
 * what stands here for the C library's functions is not instrumented, and calls nothing that is before a scenario runs.  The
 * compiler inlines neither kind into the other.
 */
#define UNINSTRUMENTED __attribute__((no_sanitize("address", "undefined")))

void *REAL(malloc)(size_t size);
void *REAL(calloc)(size_t count, size_t size);
void *REAL(realloc)(void *memory, size_t size);

static struct torture_options options;
static pthread_t thread;
static bool runs;   /* a scenario does */
static bool spares; /* nothing may fail now */
static enum torture_fault fault;
static long countdown; /* until the one that fails */
static bool fell;      /* it came */
static bool tells;     /* TORTURE_N is set */
static bool failed;    /* something did not hold */
static const char *scenario;
static long scenario_n;

/* Where the code is that counts. */
static struct {
    uintptr_t from, to;
} code[LIBRARIES_MAX + 1];
static size_t code_count;

/* ---- Whose call it is -------------------------------------------------------------------------------------------- */

static void code_add(const struct dl_phdr_info *object)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];

        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X) || code_count > LIBRARIES_MAX)
            continue;
        code[code_count].from = (uintptr_t)(object->dlpi_addr + part->p_vaddr);
        code[code_count].to = code[code_count].from + (uintptr_t)part->p_memsz;
        code_count++;
    }
}

/* The program's own name is empty. */
static int on_object(struct dl_phdr_info *object, size_t size, void *arg)
{
    bool wanted = object->dlpi_name[0] == '\0' && code_count == 0;

    (void)size;
    (void)arg;
    for (size_t i = 0; !wanted && options.libraries != NULL && options.libraries[i] != NULL; i++)
        wanted = strstr(object->dlpi_name, options.libraries[i]) != NULL;
    if (wanted)
        code_add(object);
    return 0;
}

static bool counts_now(void)
{
    return runs && !spares && *options.when && pthread_equal(pthread_self(), thread);
}

static bool counts(const void *caller)
{
    if (!counts_now())
        return false;
    for (size_t i = 0; i < code_count; i++)
        if ((uintptr_t)caller >= code[i].from && (uintptr_t)caller < code[i].to)
            return true;
    return false;
}

static void tell(void)
{
    void *frames[FRAMES_MAX];

    runs = false; /* what tells may allocate */
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), STDERR_FILENO);
    runs = true;
}

static bool falls(void)
{
    if (--countdown != 0)
        return false;
    fell = true;
    if (tells)
        tell();
    return true;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

UNINSTRUMENTED static bool allocation_falls(const void *caller, size_t size, bool again)
{
    return runs && fault == TORTURE_NO_MEMORY && counts(caller) &&
           (options.spared == NULL || !options.spared(size, again)) && falls();
}

#define CALLER __builtin_return_address(0)

UNINSTRUMENTED void *malloc(size_t size)
{
    if (allocation_falls(CALLER, size, false)) {
        errno = ENOMEM;
        return NULL;
    }
    return REAL(malloc)(size);
}

UNINSTRUMENTED void *calloc(size_t count, size_t size)
{
    if (allocation_falls(CALLER, count * size, false)) {
        errno = ENOMEM;
        return NULL;
    }
    return REAL(calloc)(count, size);
}

UNINSTRUMENTED void *realloc(void *memory, size_t size)
{
    if (allocation_falls(CALLER, size, true)) {
        errno = ENOMEM;
        return NULL;
    }
    return REAL(realloc)(memory, size);
}

UNINSTRUMENTED void *reallocarray(void *memory, size_t count, size_t size)
{
    size_t product;

    if (__builtin_mul_overflow(count, size, &product) || allocation_falls(CALLER, product, true)) {
        errno = ENOMEM;
        return NULL;
    }
    return REAL(realloc)(memory, product);
}

UNINSTRUMENTED char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = allocation_falls(CALLER, size, false) ? NULL : REAL(malloc)(size);

    if (copy == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    return memcpy(copy, text, size);
}

/* ---- Sockets ----------------------------------------------------------------------------------------------------- */

static bool is_socket(int fd)
{
    int type;
    socklen_t size = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

static bool counted_transfer_goes_on(size_t *size)
{
    if (!falls())
        return true;
    if (fault == TORTURE_SHORT) {
        *size = *size > 0 ? 1 : 0;
        return true;
    }
    errno = fault == TORTURE_RESET ? ECONNRESET : EAGAIN;
    return false;
}

/* Whether this one goes on; how many bytes of it, in *size; if not, errno says why. */
UNINSTRUMENTED static bool transfer_goes_on(const void *caller, int fd, size_t *size)
{
    return !runs || fault == TORTURE_NO_MEMORY || !counts(caller) || !is_socket(fd) || counted_transfer_goes_on(size);
}

bool torture_transfer(size_t *size)
{
    return fault == TORTURE_NO_MEMORY || !counts_now() || counted_transfer_goes_on(size);
}

UNINSTRUMENTED ssize_t read(int fd, void *bytes, size_t size)
{
    return transfer_goes_on(CALLER, fd, &size) ? (ssize_t)syscall(SYS_read, fd, bytes, size) : -1;
}

UNINSTRUMENTED ssize_t write(int fd, const void *bytes, size_t size)
{
    return transfer_goes_on(CALLER, fd, &size) ? (ssize_t)syscall(SYS_write, fd, bytes, size) : -1;
}

UNINSTRUMENTED ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
    return transfer_goes_on(CALLER, fd, &size) ? (ssize_t)syscall(SYS_recvfrom, fd, bytes, size, flags, NULL, NULL)
                                               : -1;
}

UNINSTRUMENTED ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
    return transfer_goes_on(CALLER, fd, &size) ? (ssize_t)syscall(SYS_sendto, fd, bytes, size, flags, NULL, 0) : -1;
}

/* ---- The runs ---------------------------------------------------------------------------------------------------- */

static const char *fault_name(void)
{
    switch (fault) {
    case TORTURE_NO_MEMORY:
        return "allocation";
    case TORTURE_RESET:
        return "read or write (reset)";
    case TORTURE_AGAIN:
        return "read or write (again)";
    case TORTURE_SHORT:
        return "read or write (short)";
    }
    return "?";
}

void torture_begin(const struct torture_options *given)
{
    void *frame[1];

    setvbuf(stdout, NULL, _IOLBF, 0);
    options = *given;
    code_count = 0;
    thread = pthread_self();
    tells = getenv("TORTURE_N") != NULL;
    dl_iterate_phdr(on_object, NULL);
    (void)backtrace(frame, 1); /* it loads a library the first time */
}

void torture(const char *name, enum torture_fault of, void (*run)(void))
{
    scenario = name;
    fault = of;
    for (scenario_n = 1; scenario_n < RUNS_MAX; scenario_n++) {
        countdown = scenario_n;
        fell = false;
        if (tells)
            fprintf(stderr, "%s, %s %ld\n", name, fault_name(), scenario_n);
        runs = true;
        run();
        runs = false;
        if (!fell)
            break;
    }
    printf("%s: %s: %ld failed, one after another\n", name, fault_name(), scenario_n - 1);
    if (scenario_n == RUNS_MAX)
        torture_violated("it never ends");
    if (scenario_n == 1)
        torture_violated("nothing was there to fail");
}

void torture_spare(bool spared)
{
    spares = spared;
}

bool torture_fell(void)
{
    return fell;
}

void torture_violated(const char *format, ...)
{
    bool did_run = runs;
    va_list arguments;

    runs = false;
    printf("%s, %s %ld: ", scenario, fault_name(), scenario_n);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    failed = true;
    runs = did_run;
}

int torture_end(void)
{
    return failed;
}
