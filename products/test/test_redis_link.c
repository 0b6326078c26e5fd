/* The link against a server that misbehaves as a real one cannot be made to on demand. */
#include <arpa/inet.h>
#include <netdb.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "redis_link.h"
#include "turns.h"

#define TIMEOUT_MS        5000
#define TIMEOUT_SHORT_MS  200
#define BEHIND_TIMEOUT_MS 2000               /* of which a quarter passes between two answers */
#define LARGE             (32 * 1024 * 1024) /* more than the sockets' buffers hold */
#define PENDING           (-1)
#define HOST              "redis.test" /* what it resolves to, the test says */
#define ADDRESSES_MAX     2

/* ---- Name servers -------------------------------------------------------------------------------------------------- */

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out);
void __wrap_freeaddrinfo(struct addrinfo *list);

static sem_t may_answer; /* a look-up waits for it */
static in_addr_t addresses[ADDRESSES_MAX];
static size_t addresses_count;

/* Runs in a thread of the look-up's own. */
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
    struct entry {
        struct addrinfo info;
        struct sockaddr_in address;
    } *entries = calloc(ADDRESSES_MAX, sizeof(*entries));

    while (sem_wait(&may_answer) != 0)
        continue;
    if (strcmp(host, HOST) != 0 || hints->ai_socktype != SOCK_STREAM) {
        free(entries);
        return EAI_NONAME;
    }
    for (size_t i = 0; i < addresses_count; i++) {
        entries[i].address = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(addresses[i])};
        entries[i].info = (struct addrinfo){.ai_family = AF_INET,
                                            .ai_addr = (struct sockaddr *)&entries[i].address,
                                            .ai_addrlen = sizeof(entries[i].address),
                                            .ai_next = i + 1 < addresses_count ? &entries[i + 1].info : NULL};
    }
    *out = &entries[0].info;
    return 0;
}

void __wrap_freeaddrinfo(struct addrinfo *list)
{
    free(list); /* the first entry begins with it */
}

/* ---- The fake ------------------------------------------------------------------------------------------------------ */

/* A server for one client at a time, which answers each command with what `answer` says. */
struct fake {
    int listener, client; /* -1: none */
    int port;
    struct rpc_loop_watch *accepts, *reads;
    redisReader *reader;
    int connections, commands; /* commands: of this connection */
    /* NULL: nothing, now or ever; "": hang up. */
    const char *(*answer)(struct fake *fake, const char *command);
    int countdown; /* for `answer` */
};

static struct turns *turns;

static void fake_hang_up(struct fake *fake)
{
    if (fake->client < 0)
        return;
    rpc_loop_watch_free(fake->reads);
    fake->reads = NULL;
    redisReaderFree(fake->reader);
    close(fake->client);
    fake->client = -1;
}

static void fake_say(struct fake *fake, const char *text)
{
    assert_int_equal(send(fake->client, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void fake_on_data(int fd, unsigned events, void *arg)
{
    struct fake *fake = arg;
    char bytes[65536];
    ssize_t size = read(fd, bytes, sizeof(bytes));
    redisReply *command = NULL;

    (void)events;
    if (size <= 0) {
        fake_hang_up(fake);
        return;
    }
    redisReaderFeed(fake->reader, bytes, (size_t)size);
    while (fake->client >= 0 && redisReaderGetReply(fake->reader, (void **)&command) == REDIS_OK && command != NULL) {
        const char *answer = fake->answer(fake, command->element[0]->str);

        fake->commands++;
        freeReplyObject(command);
        if (answer != NULL && answer[0] == '\0')
            fake_hang_up(fake);
        else if (answer != NULL)
            fake_say(fake, answer);
    }
}

static void fake_on_client(int fd, unsigned events, void *arg)
{
    struct fake *fake = arg;

    (void)events;
    fake_hang_up(fake);
    fake->client = accept(fd, NULL, NULL);
    assert_true(fake->client >= 0);
    fake->connections++;
    fake->commands = 0;
    fake->reader = redisReaderCreate();
    fake->reads = rpc_loop_watch_new(turns_loop(turns), fake->client, RPC_LOOP_READ, fake_on_data, fake);
}

/* A port of 0: any that is free. */
static void fake_begin_at(struct fake *fake, in_addr_t host, int port,
                          const char *(*answer)(struct fake *fake, const char *command))
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(host), .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof(address);

    *fake = (struct fake){.client = -1, .answer = answer};
    fake->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fake->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fake->listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(listen(fake->listener, 16), 0);
    fake->port = ntohs(address.sin_port);
    fake->accepts = rpc_loop_watch_new(turns_loop(turns), fake->listener, RPC_LOOP_READ, fake_on_client, fake);
}

static void fake_begin(struct fake *fake, const char *(*answer)(struct fake *fake, const char *command))
{
    fake_begin_at(fake, INADDR_LOOPBACK, 0, answer);
}

static void fake_end(struct fake *fake)
{
    fake_hang_up(fake);
    rpc_loop_watch_free(fake->accepts);
    close(fake->listener);
}

/* ---- The link under test ------------------------------------------------------------------------------------------- */

static struct redis_link *link_new_to(const char *host, int port, int timeout_ms)
{
    char name[16], password[] = "sesame";
    struct redis_uri uri = {.host = name, .port = (uint16_t)port, .password = password, .database = 3};

    snprintf(name, sizeof(name), "%s", host);
    return redis_link_new(
        &(struct redis_link_options){.loop = turns_loop(turns), .uri = &uri, .name = "test", .timeout_ms = timeout_ms});
}

static struct redis_link *link_new(const struct fake *fake, int timeout_ms)
{
    return link_new_to("127.0.0.1", fake->port, timeout_ms);
}

static bool is_up(void *arg)
{
    return redis_link_is_up(arg);
}

static bool is_down(void *arg)
{
    return !is_up(arg);
}

static const char *expected_reason;

static bool reason_is_expected(void *arg)
{
    return strstr(redis_link_reason(arg), expected_reason) != NULL;
}

static void wait_reason(struct redis_link *link, const char *reason)
{
    expected_reason = reason;
    if (!turns_until(turns, reason_is_expected, link))
        fail_msg("\"%s\", not \"%s\"", redis_link_reason(link), reason);
    assert_false(redis_link_is_up(link));
}

struct sent {
    struct redis_command command; /* first */
    int result;
    char text[64];
};

static void sent_on_done(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct sent *sent = (struct sent *)command;

    assert_int_equal(sent->result, PENDING);
    sent->result = (int)result;
    assert_int_equal(reply != NULL, result == REDIS_ANSWERED || result == REDIS_REFUSED);
    if (reply != NULL && reply->str != NULL)
        snprintf(sent->text, sizeof(sent->text), "%s", reply->str);
}

static bool sent_is_done(void *arg)
{
    return ((struct sent *)arg)->result != PENDING;
}

static enum redis_result send_words(struct redis_link *link, struct sent *sent, const char *command, const char *word,
                                    size_t size)
{
    const char *words[] = {command, word};
    const size_t sizes[] = {strlen(command), size};

    *sent = (struct sent){.result = PENDING};
    return redis_link_send(link, &sent->command, 2, words, sizes, sent_on_done);
}

static const char *answer_well(struct fake *fake, const char *command)
{
    (void)fake;
    if (strcmp(command, "EXISTS") == 0)
        return ":0\r\n";
    return strcmp(command, "GET") == 0 ? "$5\r\nhello\r\n" : "+OK\r\n";
}

/* ---- Tests --------------------------------------------------------------------------------------------------------- */

static void test_greeting(void **state)
{
    struct fake fake;
    struct redis_link *link;
    struct sent sent;

    (void)state;
    fake_begin(&fake, answer_well);
    link = link_new(&fake, TIMEOUT_MS);
    assert_int_equal(send_words(link, &sent, "GET", "a", 1), REDIS_OFFLINE);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(fake.commands, 4); /* AUTH, SELECT, EXISTS, CLIENT */
    assert_int_equal(send_words(link, &sent, "GET", "a", 1), REDIS_ANSWERED);
    assert_int_equal(redis_link_in_flight(link), 1);
    assert_true(turns_until(turns, sent_is_done, &sent));
    assert_int_equal(sent.result, REDIS_ANSWERED);
    assert_string_equal(sent.text, "hello");
    assert_int_equal(redis_link_in_flight(link), 0);
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_loading(struct fake *fake, const char *command)
{
    if (strcmp(command, "EXISTS") == 0 && fake->countdown-- > 0)
        return "-LOADING Redis is loading the dataset in memory\r\n";
    return answer_well(fake, command);
}

static void test_loading(void **state)
{
    struct fake fake;
    struct redis_link *link;

    (void)state;
    fake_begin(&fake, answer_loading);
    fake.countdown = 3;
    link = link_new(&fake, TIMEOUT_MS);
    wait_reason(link, "LOADING");
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(fake.connections, 4);
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_nameless(struct fake *fake, const char *command)
{
    return strcmp(command, "CLIENT") == 0 ? "-NOPERM this user has no permissions\r\n" : answer_well(fake, command);
}

static void test_a_name_is_a_courtesy(void **state)
{
    struct fake fake;
    struct redis_link *link;
    struct sent sent;

    (void)state;
    fake_begin(&fake, answer_nameless);
    link = link_new(&fake, TIMEOUT_MS);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(send_words(link, &sent, "GET", "a", 1), REDIS_ANSWERED);
    assert_true(turns_until(turns, sent_is_done, &sent));
    assert_int_equal(sent.result, REDIS_ANSWERED);
    assert_int_equal(fake.connections, 1);
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_full(struct fake *fake, const char *command)
{
    (void)command;
    if (fake->countdown-- <= 0)
        return answer_well(fake, command);
    fake_say(fake, "-ERR max number of clients reached\r\n");
    return "";
}

static void test_too_many_clients(void **state)
{
    struct fake fake;
    struct redis_link *link;

    (void)state;
    fake_begin(&fake, answer_full);
    fake.countdown = 2;
    link = link_new(&fake, TIMEOUT_MS);
    wait_reason(link, "max number of clients");
    assert_true(turns_until(turns, is_up, link));
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_without_auth(struct fake *fake, const char *command)
{
    if (strcmp(command, "AUTH") != 0 || fake->countdown-- <= 0)
        return answer_well(fake, command);
    return fake->countdown % 2 == 0 ? "-ERR unknown command 'AUTH', with args beginning with: 'ses\r\n"
                                    : "-DENIED no command AUTH sesame here\r\n";
}

static void test_the_password_is_not_repeated(void **state)
{
    struct fake fake;
    struct redis_link *link;

    (void)state;
    fake_begin(&fake, answer_without_auth);
    fake.countdown = 4;
    link = link_new(&fake, TIMEOUT_MS);
    wait_reason(link, "it refuses the login: DENIED");
    assert_string_equal(redis_link_reason(link), "it refuses the login: DENIED");
    wait_reason(link, "it refuses the login: ERR");
    assert_string_equal(redis_link_reason(link), "it refuses the login: ERR");
    assert_true(turns_until(turns, is_up, link));
    redis_link_free(link);
    fake_end(&fake);
}

/* An error that nobody asked for, as a server says before it hangs up. */
static void test_a_spontaneous_error(void **state)
{
    struct fake fake;
    struct redis_link *link;
    struct sent sent;

    (void)state;
    fake_begin(&fake, answer_well);
    link = link_new(&fake, TIMEOUT_MS);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(send_words(link, &sent, "GET", "a", 1), REDIS_ANSWERED);
    assert_true(turns_until(turns, sent_is_done, &sent)); /* CLIENT SETNAME is answered too */
    fake_say(&fake, "-ERR goodbye\r\n");
    assert_true(turns_until(turns, is_down, link));
    assert_non_null(strstr(redis_link_reason(link), "goodbye"));
    assert_true(turns_until(turns, is_up, link));
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_hang_up_on_get(struct fake *fake, const char *command)
{
    return strcmp(command, "GET") == 0 ? "" : answer_well(fake, command);
}

static const char *answer_as_replica(struct fake *fake, const char *command)
{
    if (strcmp(command, "SET") == 0 && fake->countdown-- > 0)
        return "-READONLY You can't write against a read only replica.\r\n";
    return answer_well(fake, command);
}

static void wait_refused(struct sent *sent)
{
    assert_true(turns_until(turns, sent_is_done, sent));
    assert_int_equal(sent->result, REDIS_REFUSED);
    assert_non_null(strstr(sent->text, "READONLY"));
}

/* A failover made it a replica: it is left, but not before it has answered what was sent. */
static void test_a_server_that_turns_into_a_replica(void **state)
{
    struct sent refused, read, also_refused, late;
    struct redis_link *link;
    struct fake fake;

    (void)state;
    fake_begin(&fake, answer_as_replica);
    fake.countdown = 2;
    link = link_new(&fake, TIMEOUT_MS);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(send_words(link, &refused, "SET", "a", 1), REDIS_ANSWERED);
    assert_int_equal(send_words(link, &read, "GET", "a", 1), REDIS_ANSWERED);
    assert_int_equal(send_words(link, &also_refused, "SET", "a", 1), REDIS_ANSWERED);
    wait_refused(&refused);
    assert_false(redis_link_is_up(link));
    assert_non_null(strstr(redis_link_reason(link), "READONLY"));
    assert_int_equal(send_words(link, &late, "GET", "a", 1), REDIS_OFFLINE);
    wait_refused(&also_refused);
    assert_int_equal(read.result, REDIS_ANSWERED);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(fake.connections, 2);
    assert_int_equal(send_words(link, &late, "SET", "a", 1), REDIS_ANSWERED);
    assert_true(turns_until(turns, sent_is_done, &late));
    assert_int_equal(late.result, REDIS_ANSWERED);
    redis_link_free(link);
    fake_end(&fake);
}

/* There is no other: what can be read there is, and what it refuses costs a connection now and then, not each time. */
static void test_a_replica_that_cannot_be_got_away_from(void **state)
{
    uint64_t began_ms = rpc_loop_now_ms(turns_loop(turns)), took_ms;
    struct redis_link *link;
    struct fake fake;
    struct sent sent;

    (void)state;
    fake_begin(&fake, answer_as_replica);
    fake.countdown = INT32_MAX;
    link = link_new(&fake, TIMEOUT_MS);
    for (int round = 0; round < 50 || fake.connections < 3; round++) {
        assert_true(turns_until(turns, is_up, link));
        assert_int_equal(send_words(link, &sent, "GET", "a", 1), REDIS_ANSWERED);
        assert_true(turns_until(turns, sent_is_done, &sent));
        assert_int_equal(sent.result, REDIS_ANSWERED);
        assert_int_equal(send_words(link, &sent, "SET", "a", 1), REDIS_ANSWERED);
        wait_refused(&sent);
        took_ms = rpc_loop_now_ms(turns_loop(turns)) - began_ms;
        assert_in_range(fake.connections, 1, 2 + took_ms / REDIS_LEAVE_INTERVAL_MS);
        assert_true(took_ms < TURNS_DEADLINE_MS);
    }
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_replica_that_hangs(struct fake *fake, const char *command)
{
    return strcmp(command, "GET") == 0 ? NULL : answer_as_replica(fake, command);
}

/* What it was sent and never answers holds nobody up for longer than any command may. */
static void test_a_replica_that_falls_silent(void **state)
{
    struct redis_link *link;
    struct sent refused, read;
    struct fake fake;

    (void)state;
    fake_begin(&fake, answer_replica_that_hangs);
    fake.countdown = 1;
    link = link_new(&fake, TIMEOUT_SHORT_MS);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(send_words(link, &refused, "SET", "a", 1), REDIS_ANSWERED);
    assert_int_equal(send_words(link, &read, "GET", "a", 1), REDIS_ANSWERED);
    wait_refused(&refused);
    assert_true(turns_until(turns, sent_is_done, &read));
    assert_int_equal(read.result, REDIS_LOST);
    assert_true(turns_until(turns, is_up, link));
    redis_link_free(link);
    fake_end(&fake);
}

/* Behind the name are a replica and, at its second address, the server that took over. */
static void test_another_address_has_the_server_that_took_over(void **state)
{
    struct fake replica, master;
    struct redis_link *link;
    struct sent sent;

    (void)state;
    fake_begin(&replica, answer_as_replica);
    replica.countdown = INT32_MAX;
    fake_begin_at(&master, INADDR_LOOPBACK + 1, replica.port, answer_well);
    addresses[0] = INADDR_LOOPBACK;
    addresses[1] = INADDR_LOOPBACK + 1;
    addresses_count = 2;
    sem_post(&may_answer);
    link = link_new_to(HOST, replica.port, TIMEOUT_MS);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(replica.connections, 1);
    assert_int_equal(send_words(link, &sent, "SET", "a", 1), REDIS_ANSWERED);
    wait_refused(&sent);
    assert_int_equal(master.connections, 0);
    sem_post(&may_answer); /* the host is looked up anew */
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(master.connections, 1);
    assert_int_equal(send_words(link, &sent, "SET", "a", 1), REDIS_ANSWERED);
    assert_true(turns_until(turns, sent_is_done, &sent));
    assert_int_equal(sent.result, REDIS_ANSWERED);
    redis_link_free(link);
    fake_end(&replica);
    fake_end(&master);
}

/* Name servers that are silent hold nothing up: the look-up is given up, and another one begun. */
static void test_a_name_that_is_not_looked_up_in_time(void **state)
{
    struct redis_link *link;
    struct fake fake;

    (void)state;
    fake_begin(&fake, answer_well);
    addresses[0] = INADDR_LOOPBACK;
    addresses_count = 1;
    link = link_new_to(HOST, fake.port, TIMEOUT_MS);
    wait_reason(link, "its host's name is not looked up in time");
    assert_int_equal(fake.connections, 0);
    sem_post(&may_answer); /* for the one that was given up, and its late answer is nobody's */
    sem_post(&may_answer);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(fake.connections, 1);
    redis_link_free(link);
    fake_end(&fake);
}

/* Debian's hiredis would end the process. */
static void test_a_reply_that_nobody_asked_for(void **state)
{
    static const char *const replies[] = {"+EXTRA\r\n", ":1\r\n", "$-1\r\n", "*0\r\n", "*2\r\n$1\r\na\r\n-ERR\r\n",
                                          "$1\r\na"};
    struct redis_link *link;
    struct fake fake;
    struct sent sent;

    (void)state;
    fake_begin(&fake, answer_well);
    link = link_new(&fake, TIMEOUT_MS);
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        assert_true(turns_until(turns, is_up, link));
        assert_int_equal(send_words(link, &sent, "GET", "a", 1), REDIS_ANSWERED);
        assert_true(turns_until(turns, sent_is_done, &sent));
        assert_int_equal(sent.result, REDIS_ANSWERED);
        fake_say(&fake, replies[i]);
        if (replies[i][strlen(replies[i]) - 1] != '\n')
            fake_say(&fake, "\r\n");
        assert_true(turns_until(turns, is_down, link));
        assert_string_equal(redis_link_reason(link), "a reply that nobody asked for");
    }
    redis_link_free(link);
    fake_end(&fake);
}

static void test_hang_ups(void **state)
{
    struct fake fake;
    struct redis_link *link;
    struct sent sent[3];

    (void)state;
    fake_begin(&fake, answer_hang_up_on_get);
    link = link_new(&fake, TIMEOUT_MS);
    for (int round = 1; round <= 5; round++) {
        assert_true(turns_until(turns, is_up, link));
        for (int i = 0; i < 3; i++)
            assert_int_equal(send_words(link, &sent[i], "GET", "a", 1), REDIS_ANSWERED);
        for (int i = 0; i < 3; i++) {
            assert_true(turns_until(turns, sent_is_done, &sent[i]));
            assert_int_equal(sent[i].result, REDIS_LOST);
        }
        assert_int_equal(fake.connections, round);
        assert_int_equal(redis_link_in_flight(link), 0);
        assert_int_equal(send_words(link, &sent[0], "GET", "a", 1), REDIS_OFFLINE);
    }
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_nothing(struct fake *fake, const char *command)
{
    (void)fake;
    (void)command;
    return NULL;
}

static void test_a_server_that_never_answers(void **state)
{
    struct fake fake;
    struct redis_link *link;

    (void)state;
    fake_begin(&fake, answer_nothing);
    link = link_new(&fake, TIMEOUT_MS);
    wait_reason(link, "does not answer in time");
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_only_greetings(struct fake *fake, const char *command)
{
    return strcmp(command, "GET") == 0 ? NULL : answer_well(fake, command);
}

static void test_a_command_that_is_never_answered(void **state)
{
    struct fake fake;
    struct redis_link *link;
    struct sent answered, first, second;

    (void)state;
    fake_begin(&fake, answer_only_greetings);
    link = link_new(&fake, TIMEOUT_SHORT_MS);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(send_words(link, &answered, "PING", "a", 1), REDIS_ANSWERED);
    assert_int_equal(send_words(link, &first, "GET", "a", 1), REDIS_ANSWERED);
    assert_int_equal(send_words(link, &second, "GET", "a", 1), REDIS_ANSWERED);
    assert_true(turns_until(turns, sent_is_done, &second));
    assert_int_equal(answered.result, REDIS_ANSWERED);
    assert_int_equal(first.result, REDIS_LOST);
    assert_int_equal(second.result, REDIS_LOST);
    assert_non_null(strstr(redis_link_reason(link), "no answer within 200 ms"));
    assert_true(turns_until(turns, is_up, link));
    redis_link_free(link);
    fake_end(&fake);
}

/* ---- Commands behind others: their turn begins with the answer before theirs ---- */

#define BEHIND_COUNT   8
#define GREETING_COUNT 4 /* AUTH, SELECT, EXISTS, CLIENT */

struct behind {
    struct fake fake;
    struct redis_link *link;
    struct sent sent[BEHIND_COUNT];
    struct rpc_loop_timer *timer; /* the next one is answered */
    int interval_ms;
};

static void behind_on_timer(void *arg)
{
    struct behind *behind = arg;

    if (behind->fake.client >= 0 && behind->fake.commands == GREETING_COUNT + BEHIND_COUNT)
        fake_say(&behind->fake, "$5\r\nhello\r\n");
    rpc_loop_timer_start(behind->timer, (uint64_t)behind->interval_ms);
}

/* All are sent at once, and answered one an interval, until the last has ended. */
static void behind_run(struct behind *behind, int timeout_ms, int interval_ms)
{
    *behind = (struct behind){.interval_ms = interval_ms};
    fake_begin(&behind->fake, answer_only_greetings);
    behind->timer = rpc_loop_timer_new(turns_loop(turns), behind_on_timer, behind);
    behind->link = link_new(&behind->fake, timeout_ms);
    assert_true(turns_until(turns, is_up, behind->link));
    for (int i = 0; i < BEHIND_COUNT; i++)
        assert_int_equal(send_words(behind->link, &behind->sent[i], "GET", "a", 1), REDIS_ANSWERED);
    rpc_loop_timer_start(behind->timer, (uint64_t)interval_ms);
    assert_true(turns_until(turns, sent_is_done, &behind->sent[BEHIND_COUNT - 1]));
}

static void behind_end(struct behind *behind)
{
    redis_link_free(behind->link);
    rpc_loop_timer_free(behind->timer);
    fake_end(&behind->fake);
}

static void test_a_command_behind_slow_answers_is_not_given_up(void **state)
{
    struct behind behind;

    (void)state;
    behind_run(&behind, BEHIND_TIMEOUT_MS,
               BEHIND_TIMEOUT_MS * 2 / BEHIND_COUNT); /* the last one after two time limits */
    for (int i = 0; i < BEHIND_COUNT; i++)
        assert_int_equal(behind.sent[i].result, REDIS_ANSWERED);
    assert_int_equal(behind.fake.connections, 1);
    behind_end(&behind);
}

static void test_patience_with_a_server_that_drips_has_an_end(void **state)
{
    struct behind behind;

    (void)state;
    behind_run(&behind, TIMEOUT_SHORT_MS, TIMEOUT_SHORT_MS / 2); /* the last one's would come after four */
    assert_int_equal(behind.sent[0].result, REDIS_ANSWERED);
    assert_int_equal(behind.sent[BEHIND_COUNT - 1].result, REDIS_LOST);
    behind_end(&behind);
}

static const char *answer_nonsense(struct fake *fake, const char *command)
{
    return strcmp(command, "GET") == 0 ? "HTTP/1.1 400 Bad Request\r\n\r\n" : answer_well(fake, command);
}

static void test_no_redis_at_all(void **state)
{
    struct fake fake;
    struct redis_link *link;
    struct sent sent;

    (void)state;
    fake_begin(&fake, answer_nonsense);
    link = link_new(&fake, TIMEOUT_MS);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(send_words(link, &sent, "GET", "a", 1), REDIS_ANSWERED);
    assert_true(turns_until(turns, sent_is_done, &sent));
    assert_int_equal(sent.result, REDIS_LOST);
    assert_non_null(strstr(redis_link_reason(link), "Protocol error"));
    redis_link_free(link);
    fake_end(&fake);
}

static const char *answer_then_sleep(struct fake *fake, const char *command)
{
    if (strcmp(command, "CLIENT") == 0)
        rpc_loop_watch_set(fake->reads, 0);
    return answer_well(fake, command);
}

/* Half a command is none to the server: what did not leave whole was not done, what did may have been. */
static void test_half_a_command(void **state)
{
    struct fake fake;
    struct redis_link *link;
    struct sent whole, half, unsent;
    char *large = calloc(1, LARGE);

    (void)state;
    fake_begin(&fake, answer_then_sleep);
    link = link_new(&fake, TIMEOUT_SHORT_MS);
    assert_true(turns_until(turns, is_up, link));
    assert_int_equal(send_words(link, &whole, "GET", "a", 1), REDIS_ANSWERED);
    assert_int_equal(send_words(link, &half, "SET", large, LARGE), REDIS_ANSWERED);
    assert_int_equal(send_words(link, &unsent, "GET", "a", 1), REDIS_ANSWERED);
    assert_true(turns_until(turns, sent_is_done, &unsent));
    assert_int_equal(whole.result, REDIS_LOST);
    assert_int_equal(half.result, REDIS_OFFLINE);
    assert_int_equal(unsent.result, REDIS_OFFLINE);
    redis_link_free(link);
    fake_end(&fake);
    free(large);
}

/* A callback sends the next command, also when the connection has just died under it. */
struct chain {
    struct redis_command command; /* first */
    struct redis_link *link;
    int answered, offline;
    bool is_done;
};

static void chain_on_done(struct redis_command *command, enum redis_result result, const redisReply *reply)
{
    struct chain *chain = (struct chain *)command;
    const char *words[] = {"GET", "a"};
    const size_t sizes[] = {3, 1};

    (void)reply;
    chain->answered += result == REDIS_ANSWERED;
    switch (redis_link_send(chain->link, &chain->command, 2, words, sizes, chain_on_done)) {
    case REDIS_ANSWERED:
        break;
    case REDIS_OFFLINE:
        chain->offline++;
        chain->is_done = true;
        break;
    case REDIS_BUSY:
    case REDIS_REFUSED:
    case REDIS_LOST:
        fail_msg("no such answer");
    }
}

static bool chain_is_done(void *arg)
{
    return ((struct chain *)arg)->is_done;
}

static const char *answer_ten(struct fake *fake, const char *command)
{
    return fake->commands == 4 + 10 ? "" : answer_well(fake, command);
}

static void test_a_callback_sends(void **state)
{
    struct chain chain = {.is_done = false};
    struct fake fake;

    (void)state;
    fake_begin(&fake, answer_ten);
    chain.link = link_new(&fake, TIMEOUT_MS);
    assert_true(turns_until(turns, is_up, chain.link));
    chain_on_done(&chain.command, REDIS_LOST, NULL);
    assert_true(turns_until(turns, chain_is_done, &chain));
    assert_int_equal(chain.answered, 10);
    assert_int_equal(chain.offline, 1);
    redis_link_free(chain.link);
    fake_end(&fake);
}

static void test_freeing_at_any_time(void **state)
{
    struct fake fake;

    (void)state;
    fake_begin(&fake, answer_well);
    for (int count = 0; count < 8; count++) {
        struct redis_link *link = link_new(&fake, TIMEOUT_MS);
        struct sent sent;
        bool is_sent;

        for (int i = 0; i < count; i++)
            turns_once(turns);
        is_sent = send_words(link, &sent, "GET", "a", 1) == REDIS_ANSWERED;
        redis_link_free(link);
        if (is_sent)
            assert_int_equal(sent.result, REDIS_OFFLINE);
    }
    fake_end(&fake);
}

static int group_begin(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    sem_init(&may_answer, 0, 0);
    turns = turns_new();
    return 0;
}

static int group_end(void **state)
{
    (void)state;
    turns_free(turns);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting),
        cmocka_unit_test(test_loading),
        cmocka_unit_test(test_a_name_is_a_courtesy),
        cmocka_unit_test(test_too_many_clients),
        cmocka_unit_test(test_the_password_is_not_repeated),
        cmocka_unit_test(test_a_spontaneous_error),
        cmocka_unit_test(test_a_server_that_turns_into_a_replica),
        cmocka_unit_test(test_a_replica_that_cannot_be_got_away_from),
        cmocka_unit_test(test_a_replica_that_falls_silent),
        cmocka_unit_test(test_another_address_has_the_server_that_took_over),
        cmocka_unit_test(test_a_name_that_is_not_looked_up_in_time),
        cmocka_unit_test(test_a_reply_that_nobody_asked_for),
        cmocka_unit_test(test_hang_ups),
        cmocka_unit_test(test_a_server_that_never_answers),
        cmocka_unit_test(test_a_command_that_is_never_answered),
        cmocka_unit_test(test_a_command_behind_slow_answers_is_not_given_up),
        cmocka_unit_test(test_patience_with_a_server_that_drips_has_an_end),
        cmocka_unit_test(test_no_redis_at_all),
        cmocka_unit_test(test_half_a_command),
        cmocka_unit_test(test_a_callback_sends),
        cmocka_unit_test(test_freeing_at_any_time),
    };

    return cmocka_run_group_tests(tests, group_begin, group_end);
}
