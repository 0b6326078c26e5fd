/*
 * The launcher: checks the settings, then becomes Kore with the gateway's module.
 *
 * It stays the same process, so whoever started it can signal it and wait for it.  Kore is given its configuration, and a
 * place to write its process id, in memory: nothing is written to disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "settings.h"

#define DESCRIPTORS_SPARE 64   /* besides the clients' connections */
#define OPTIONS_SIZE      4096 /* bytes of a sanitizer's options */

/* Where the files are: beside the launcher in the build tree, or where they were installed. */
struct place {
    char module[PATH_MAX];
    char conf[PATH_MAX];
};

static int fail(const char *what, const char *reason)
{
    fprintf(stderr, "kore-gateway: %s: %s\n", what, reason);
    return RPC_EXIT_FAILED;
}

static bool join(char out[PATH_MAX], const char *folder, const char *name)
{
    int size = snprintf(out, PATH_MAX, "%s/%s", folder, name);

    return size > 0 && size < PATH_MAX;
}

static bool place_in(struct place *place, const char *folder, const char *module, const char *conf)
{
    char path[PATH_MAX];

    return join(path, folder, module) && realpath(path, place->module) != NULL && join(path, folder, conf) &&
           realpath(path, place->conf) != NULL;
}

static bool place_find(struct place *place)
{
    char path[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
    const char *folder;

    if (size <= 0)
        return false;
    path[size] = '\0';
    folder = dirname(path);
    return place_in(place, folder, "gateway.so", "kore.conf") ||
           place_in(place, folder, GATEWAY_RELATIVE_MODULE, GATEWAY_RELATIVE_CONF);
}

/* Kore parts what follows "load" at spaces. */
static bool module_name(char out[PATH_MAX], const char *path)
{
    int fd = -1;

    if (strpbrk(path, " \t") == NULL)
        return snprintf(out, PATH_MAX, "%s", path) < PATH_MAX;
    fd = open(path, O_RDONLY); /* stays open */
    return fd != -1 && snprintf(out, PATH_MAX, "/proc/self/fd/%d", fd) < PATH_MAX;
}

/*
 * What is known only now; the rest is kore.conf.  Kore reads the file before it writes its process id, so one can serve
 * for both.  Returns the descriptor, or -1.
 */
static int conf_write(const struct place *place, int64_t connections)
{
    char module[PATH_MAX];
    int fd = memfd_create("kore.conf", 0);

    if (fd == -1 || !module_name(module, place->module))
        return -1;
    if (dprintf(fd,
                "load %s\npidfile /proc/self/fd/%d\nworker_max_connections %lld\nhttp_request_limit %lld\n"
                "worker_rlimit_nofiles %lld\ninclude %s\n",
                module, fd, (long long)connections, (long long)(2 * connections),
                (long long)(connections + DESCRIPTORS_SPARE), place->conf) < 0)
        return -1;
    return fd;
}

/*
 * Kore tries every descriptor up to the limit once, so a limit of millions would cost the start; and raises the limit
 * only as far as it may.
 */
static bool limit_descriptors(int64_t connections)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)(connections + 2 * DESCRIPTORS_SPARE);

    if (getrlimit(RLIMIT_NOFILE, &limit) == -1 || (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < wanted))
        return false;
    limit.rlim_cur = wanted;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* Kore handles SIGHUP whatever it was before; whoever had it ignored (nohup) would still have it so. */
static void keep_hangup_ignored(void)
{
    struct sigaction action;
    sigset_t hangup;

    sigemptyset(&hangup);
    sigaddset(&hangup, SIGHUP);
    if (sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
        sigprocmask(SIG_BLOCK, &hangup, NULL);
}

/*
 * What Kore never frees is not our leak: a sandbox's filter, which the kernel has copied by then, and the parent's buffer
 * for lines of its access log, which a worker inherits.  Each is named by the function of Kore's that asks for it and that
 * calls nothing of ours.
 */
#define LEAKS_OF_KORE "leak:^kore_seccomp_enable$\nleak:^kore_accesslog_gather$\n"

/*
 * The sanitizers want to be there before everything else, and Kore itself is built without them.  It keeps no frame
 * pointers either, so that stacks are to be found by the unwind tables: otherwise they end before such a function.
 */
static void prepare_sanitizers(void)
{
#ifdef GATEWAY_SANITIZER_RUNTIME
    const char *options = getenv("LSAN_OPTIONS");
    char with_ours[OPTIONS_SIZE];
    int fd = memfd_create("suppressions", 0);

    setenv("LD_PRELOAD", GATEWAY_SANITIZER_RUNTIME, 1);
    dprintf(fd, LEAKS_OF_KORE);
    snprintf(with_ours, sizeof(with_ours),
             "%s%ssuppressions=/proc/self/fd/%d:print_suppressions=0:fast_unwind_on_malloc=0",
             options == NULL ? "" : options, options == NULL ? "" : ":", fd);
    setenv("LSAN_OPTIONS", with_ours, 1);
#endif
}

/* READY_FILE tells that this process is ready, not one before it. */
static bool forget_ready(const struct rpc_settings *settings)
{
    const char *path = rpc_settings_text(settings, "READY_FILE");

    return path == NULL || unlink(path) == 0 || errno == ENOENT;
}

static int launch(const struct rpc_settings *settings)
{
    int64_t connections = rpc_settings_integer(settings, "CONNECTIONS_MAX");
    struct place place;
    char conf[32];
    int fd;

    if (!forget_ready(settings))
        return rpc_settings_refuse(settings, "READY_FILE", strerror(errno));
    if (!place_find(&place))
        return fail("gateway.so and kore.conf", "not found beside the launcher, nor where they are installed");
    if (!limit_descriptors(connections))
        return rpc_settings_refuse(settings, "CONNECTIONS_MAX", "more than the limit of open files (ulimit -n) allows");
    fd = conf_write(&place, connections);
    if (fd == -1)
        return fail("the configuration for Kore", strerror(errno));
    snprintf(conf, sizeof(conf), "/proc/self/fd/%d", fd);
    keep_hangup_ignored();
    prepare_sanitizers();
    /* Foreground, no chroot, no change of user, quiet. */
    execl(KORE_PATH, "kore", "-c", conf, "-f", "-n", "-r", "-q", NULL);
    return fail(KORE_PATH, strerror(errno));
}

int main(int argc, char *argv[])
{
    struct rpc_settings *settings = NULL;
    int exit_code = RPC_EXIT_FAILED;

    if (!rpc_settings_load(&settings, &gateway_program, argc, argv, &exit_code))
        return exit_code;
    if (gateway_settings_check(settings, &exit_code))
        exit_code = launch(settings);
    rpc_settings_free(settings);
    return exit_code;
}
