/* rpc_resolve: addresses and "localhost" at once, names by a thread that asks what the test answers. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_loop.h"
#include "rpclib/resolve.h"

#define WAIT_MS 10000

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out);
void __wrap_freeaddrinfo(struct addrinfo *list);

static sem_t may_answer; /* the thread waits for it */
static sem_t freed;      /* the thread has let go of the system's answer */
static unsigned addresses_count;
static int answer_code;
static struct sockaddr_in asked_addresses[20];
static struct addrinfo list[20];

int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
    sem_wait(&may_answer);
    if (strcmp(host, "broker.test") != 0 || hints->ai_socktype != SOCK_STREAM)
        return EAI_NONAME;
    for (unsigned i = 0; i < addresses_count; i++) {
        asked_addresses[i] = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr.s_addr = htonl(0x0a000001 + i)};
        list[i] = (struct addrinfo){.ai_family = AF_INET,
                                    .ai_addr = (struct sockaddr *)&asked_addresses[i],
                                    .ai_addrlen = sizeof(asked_addresses[i]),
                                    .ai_next = i + 1 < addresses_count ? &list[i + 1] : NULL};
    }
    *out = addresses_count > 0 ? list : NULL;
    return answer_code;
}

void __wrap_freeaddrinfo(struct addrinfo *freed_list)
{
    assert_ptr_equal(freed_list, list);
    sem_post(&freed);
}

static struct fake_loop *loop;
static char story[600];
static unsigned answers;

static void on_answer(const struct rpc_resolve_answer *answer, void *arg)
{
    size_t used = 0;

    assert_ptr_equal(arg, &answers);
    answers++;
    story[0] = '\0';
    for (unsigned i = 0; i < answer->count; i++) {
        const struct sockaddr_storage *address = &answer->addresses[i].address;
        char text[INET6_ADDRSTRLEN];
        bool v6 = address->ss_family == AF_INET6;
        const struct sockaddr_in *v4_address = (const struct sockaddr_in *)address;
        const struct sockaddr_in6 *v6_address = (const struct sockaddr_in6 *)address;

        inet_ntop(address->ss_family, v6 ? (const void *)&v6_address->sin6_addr : &v4_address->sin_addr, text,
                  sizeof(text));
        assert_int_equal(answer->addresses[i].size, v6 ? sizeof(*v6_address) : sizeof(*v4_address));
        used += (size_t)snprintf(story + used, sizeof(story) - used, "%s%s %u", i == 0 ? "" : "; ", text,
                                 ntohs(v6 ? v6_address->sin6_port : v4_address->sin_port));
    }
    if (answer->count == 0)
        snprintf(story, sizeof(story), "no: %s", answer->error);
}

static int setup(void **state)
{
    (void)state;
    sem_init(&may_answer, 0, 0);
    sem_init(&freed, 0, 0);
    answers = 0;
    answer_code = 0;
    addresses_count = 1;
    story[0] = '\0';
    loop = fake_loop_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_loop_free(loop);
    return 0;
}

static void known_is_at(const char *host, const char *expected, int line)
{
    assert_non_null(rpc_resolve_start(fake_loop_base(loop), host, 5672, on_answer, &answers));
    assert_string_equal(story, ""); /* never from inside */
    fake_loop_turn(loop);
    if (strcmp(story, expected) != 0)
        fail_msg("line %d: %s", line, story);
    story[0] = '\0';
    assert_int_equal(fake_loop_handles(loop), 0);
}

#define known_is(host, expected) known_is_at(host, expected, __LINE__)

static void test_known(void **state)
{
    (void)state;
    known_is("127.0.0.1", "127.0.0.1 5672");
    known_is("10.1.2.3", "10.1.2.3 5672");
    known_is("::1", "::1 5672");
    known_is("fe80::1", "fe80::1 5672");
    known_is("localhost", "127.0.0.1 5672; ::1 5672");
    known_is("LocalHost", "127.0.0.1 5672; ::1 5672");
}

static int watched_fd(void)
{
    for (int fd = 3; fd < 200; fd++) {
        if (fake_loop_watched(loop, fd) != 0)
            return fd;
    }
    return -1;
}

static void ask_and_wait(void)
{
    struct pollfd ready;

    assert_non_null(rpc_resolve_start(fake_loop_base(loop), "broker.test", 5671, on_answer, &answers));
    fake_loop_turn(loop);
    assert_int_equal(answers, 0);
    sem_post(&may_answer);
    ready = (struct pollfd){.fd = watched_fd(), .events = POLLIN};
    assert_int_equal(poll(&ready, 1, WAIT_MS), 1);
    fake_loop_fire(loop, ready.fd, RPC_LOOP_READ);
    assert_int_equal(answers, 1);
    assert_int_equal(fake_loop_handles(loop), 0);
}

static void test_name(void **state)
{
    (void)state;
    addresses_count = 2;
    ask_and_wait();
    assert_string_equal(story, "10.0.0.1 5671; 10.0.0.2 5671");
}

static void test_name_with_many_addresses(void **state)
{
    (void)state;
    addresses_count = 20;
    ask_and_wait();
    assert_non_null(strstr(story, "10.0.0.8 5671"));
    assert_null(strstr(story, "10.0.0.9 5671"));
}

static void test_unknown_name(void **state)
{
    (void)state;
    answer_code = EAI_NONAME;
    addresses_count = 0;
    ask_and_wait();
    assert_string_equal(story, "no: Name or service not known");
}

/* The thread answers to nobody, and frees what it shared. */
static void test_cancel(void **state)
{
    struct rpc_resolve *resolve = rpc_resolve_start(fake_loop_base(loop), "broker.test", 5671, on_answer, &answers);

    (void)state;
    assert_non_null(resolve);
    rpc_resolve_cancel(resolve);
    assert_int_equal(fake_loop_handles(loop), 0);
    sem_post(&may_answer);
    sem_wait(&freed);
    fake_loop_turn(loop);
    assert_int_equal(answers, 0);
    resolve = rpc_resolve_start(fake_loop_base(loop), "127.0.0.1", 5671, on_answer, &answers);
    rpc_resolve_cancel(resolve);
    rpc_resolve_cancel(NULL);
    fake_loop_turn(loop);
    assert_int_equal(answers, 0);
}

static void test_out_of_handles(void **state)
{
    (void)state;
    fake_loop_fail_after(loop, 0);
    assert_null(rpc_resolve_start(fake_loop_base(loop), "127.0.0.1", 5671, on_answer, &answers));
    fake_loop_fail_after(loop, 0);
    assert_null(rpc_resolve_start(fake_loop_base(loop), "broker.test", 5671, on_answer, &answers));
    assert_int_equal(fake_loop_handles(loop), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_known),        TEST(test_name),   TEST(test_name_with_many_addresses),
        TEST(test_unknown_name), TEST(test_cancel), TEST(test_out_of_handles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
