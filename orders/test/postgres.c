#include "postgres.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BIN             "/usr/lib/postgresql/15/bin/"
#define START_TIMEOUT_S 60
#define POLL_MS         20
#define PROCESSES_MAX   256

struct postgres {
    char folder[64], data[80], log[80], uri[128];
    int port;
    bool durable;
    pid_t pid; /* 0: not running */
    pid_t paused[PROCESSES_MAX];
    size_t paused_count;
    PGconn *db; /* the test's own connection */
};

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
}

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        fail("no free port: %s", strerror(errno));
    close(fd);
    return ntohs(address.sin_port);
}

/* PostgreSQL refuses to run as root. */
static const struct passwd *account(void)
{
    const struct passwd *entry = geteuid() == 0 ? getpwnam("postgres") : NULL;

    if (geteuid() == 0 && entry == NULL)
        fail("PostgreSQL does not run as root, and there is no user postgres");
    return entry;
}

/* Start a program as the server's account, its output in the log.  It does not outlive the test. */
static pid_t spawn(const struct postgres *postgres, const char *const argv[])
{
    const struct passwd *entry = account();
    pid_t pid = fork();
    int log;

    if (pid != 0)
        return pid;
    if (entry != NULL && (setgroups(0, NULL) != 0 || setgid(entry->pw_gid) != 0 || setuid(entry->pw_uid) != 0))
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    log = open(postgres->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0 || chdir("/") != 0)
        _exit(126);
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

static void run(const struct postgres *postgres, const char *const argv[])
{
    int status = -1;
    pid_t pid = spawn(postgres, argv);

    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        fail("%s failed, see %s", argv[0], postgres->log);
}

static void connect_own(struct postgres *postgres)
{
    time_t limit = time(NULL) + START_TIMEOUT_S;

    for (;;) {
        PQfinish(postgres->db);
        postgres->db = PQconnectdb(postgres->uri);
        if (PQstatus(postgres->db) == CONNECTION_OK)
            return;
        if (time(NULL) > limit || waitpid(postgres->pid, NULL, WNOHANG) == postgres->pid)
            fail("PostgreSQL did not start, see %s", postgres->log);
        nap();
    }
}

void postgres_start(struct postgres *postgres)
{
    char port[24], fsync[16];

    snprintf(port, sizeof(port), "port=%d", postgres->port);
    snprintf(fsync, sizeof(fsync), "fsync=%s", postgres->durable ? "on" : "off");
    postgres->pid =
        spawn(postgres, (const char *[]){BIN "postgres", "-D", postgres->data, "-c", "listen_addresses=127.0.0.1", "-c",
                                         port, "-c", "unix_socket_directories=", "-c", fsync, "-c",
                                         "max_connections=100", "-c", "log_lock_waits=on", NULL});
    connect_own(postgres);
}

/* By psql, as the user who runs the test: the server's account may not read the sources. */
static void deploy_file(const struct postgres *postgres, const char *path)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        execl(BIN "psql", "psql", "--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--file", path, "--dbname",
              postgres->uri, (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        fail("psql failed with %s", path);
}

/* What Sqitch would do: the changes of its plan, in its order.  Each of its other lines begins with %, @ or nothing. */
static void deploy(const struct postgres *postgres)
{
    FILE *plan = fopen(MIGRATIONS "/sqitch.plan", "r");
    char line[1024], name[128], path[1024];
    unsigned count = 0;

    while (plan != NULL && fgets(line, sizeof(line), plan) != NULL) {
        if (sscanf(line, "%127s", name) != 1 || name[0] == '%' || name[0] == '@')
            continue;
        snprintf(path, sizeof(path), MIGRATIONS "/deploy/%s.sql", name);
        deploy_file(postgres, path);
        count++;
    }
    if (count == 0)
        fail("no changes in " MIGRATIONS "/sqitch.plan");
    fclose(plan);
}

struct postgres *postgres_new(bool durable)
{
    struct postgres *postgres = calloc(1, sizeof(*postgres));
    const struct passwd *entry = account();

    if (postgres == NULL)
        fail("out of memory");
    strcpy(postgres->folder, "/tmp/orders-test-XXXXXX");
    if (mkdtemp(postgres->folder) == NULL ||
        (entry != NULL && chown(postgres->folder, entry->pw_uid, entry->pw_gid) != 0))
        fail("no folder %s: %s", postgres->folder, strerror(errno));
    snprintf(postgres->data, sizeof(postgres->data), "%s/data", postgres->folder);
    snprintf(postgres->log, sizeof(postgres->log), "%s/log", postgres->folder);
    postgres->durable = durable;
    postgres->port = free_port();
    snprintf(postgres->uri, sizeof(postgres->uri), "postgresql://postgres@127.0.0.1:%d/postgres", postgres->port);
    run(postgres, (const char *[]){BIN "initdb", "-D", postgres->data, "-U", "postgres", "--auth=trust",
                                   "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", NULL});
    postgres_start(postgres);
    deploy(postgres);
    return postgres;
}

static void remove_folder(const char *folder)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl("/bin/rm", "rm", "-rf", folder, (char *)NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
}

void postgres_free(struct postgres *postgres)
{
    PQfinish(postgres->db);
    postgres_resume(postgres);
    if (postgres->pid > 0) {
        kill(postgres->pid, SIGQUIT);
        waitpid(postgres->pid, NULL, 0);
    }
    remove_folder(postgres->folder);
    free(postgres);
}

const char *postgres_uri(const struct postgres *postgres)
{
    return postgres->uri;
}

char *postgres_sql(struct postgres *postgres, const char *sql)
{
    PGresult *rows = PQexec(postgres->db, sql);
    char *value;

    if (PQresultStatus(rows) != PGRES_COMMAND_OK && PQresultStatus(rows) != PGRES_TUPLES_OK)
        fail("%s: %s", sql, PQerrorMessage(postgres->db));
    value = strdup(PQntuples(rows) > 0 && PQnfields(rows) > 0 ? PQgetvalue(rows, 0, 0) : "");
    PQclear(rows);
    return value;
}

long postgres_number(struct postgres *postgres, const char *sql)
{
    char *text = postgres_sql(postgres, sql);
    long number = strtol(text, NULL, 10);

    free(text);
    return number;
}

/* The server's own process and its children: each of these is the leader of a session of its own. */
static size_t processes(const struct postgres *postgres, pid_t out[PROCESSES_MAX])
{
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    size_t count = 0;

    out[count++] = postgres->pid;
    while (folder != NULL && (entry = readdir(folder)) != NULL && count < PROCESSES_MAX) {
        char path[300];
        FILE *file;
        int pid, parent;

        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        file = fopen(path, "r");
        if (file == NULL)
            continue;
        if (fscanf(file, "%d (%*[^)]) %*c %d", &pid, &parent) == 2 && parent == postgres->pid)
            out[count++] = pid;
        fclose(file);
    }
    if (folder != NULL)
        closedir(folder);
    return count;
}

void postgres_kill(struct postgres *postgres)
{
    pid_t pids[PROCESSES_MAX];
    size_t count, index;

    kill(postgres->pid, SIGSTOP); /* so that it starts no more of them */
    count = processes(postgres, pids);
    for (index = count; index-- > 0;)
        kill(pids[index], SIGKILL);
    waitpid(postgres->pid, NULL, 0);
    postgres->pid = 0;
    for (index = 1; index < count; index++)
        while (kill(pids[index], 0) == 0) /* they hold on to the shared memory */
            nap();
}

void postgres_pause(struct postgres *postgres)
{
    size_t index;

    kill(postgres->pid, SIGSTOP);
    postgres->paused_count = processes(postgres, postgres->paused);
    for (index = 0; index < postgres->paused_count; index++)
        kill(postgres->paused[index], SIGSTOP);
}

void postgres_resume(struct postgres *postgres)
{
    while (postgres->paused_count > 0)
        kill(postgres->paused[--postgres->paused_count], SIGCONT);
}
