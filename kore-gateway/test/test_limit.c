/* limit: a service that is quick refuses nobody; behind one that is slow nobody waits for longer than agreed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "limit.h"

#define WAIT_MS     2500u
#define TIMEOUT_MS  5000u
#define CALLS_MAX   1000u
#define SETTLED_MS  10000u /* from then on all must be as it should */
#define DURATION_MS 40000u

/* A service that answers in turn, one every 1000 / rate ms, or `batch` at once as rarely; in virtual time. */
struct service {
    struct limit limit;
    uint64_t now_ms;
    uint64_t began_ms[CALLS_MAX]; /* a ring: who waits, the oldest first */
    unsigned first, count;
    double work; /* answers that it could have given and has not */
    unsigned rate, batch;
    unsigned answered, expired, refused;
    uint64_t waited_most_ms;
};

static void service_init(struct service *service, unsigned rate, unsigned batch)
{
    *service = (struct service){.now_ms = 1000000, .rate = rate, .batch = batch};
    limit_init(&service->limit, WAIT_MS, service->now_ms);
}

static void service_call(struct service *service)
{
    if (service->count == CALLS_MAX || !limit_enter(&service->limit, service->now_ms)) {
        service->refused++;
        return;
    }
    service->began_ms[(service->first + service->count++) % CALLS_MAX] = service->now_ms;
}

static uint64_t service_take(struct service *service)
{
    uint64_t began_ms = service->began_ms[service->first];

    service->first = (service->first + 1) % CALLS_MAX;
    service->count--;
    return began_ms;
}

static void service_answer(struct service *service)
{
    uint64_t began_ms = service_take(service), waited_ms = service->now_ms - began_ms;

    limit_leave(&service->limit, LIMIT_ANSWERED, service->now_ms, began_ms);
    service->answered++;
    if (waited_ms > service->waited_most_ms)
        service->waited_most_ms = waited_ms;
}

static void service_pass_ms(struct service *service)
{
    service->now_ms++;
    while (service->count > 0 && service->now_ms - service->began_ms[service->first] >= TIMEOUT_MS) {
        limit_leave(&service->limit, LIMIT_EXPIRED, service->now_ms, service_take(service));
        service->expired++;
    }
    service->work += service->rate / 1000.0;
    if (service->work < service->batch)
        return;
    for (; service->work >= 1 && service->count > 0; service->work--)
        service_answer(service);
    if (service->count == 0)
        service->work = 0;
}

/* So many calls a second, for so long. */
static void service_offer(struct service *service, unsigned rate, unsigned duration_ms)
{
    double due = 0;

    for (unsigned ms = 0; ms < duration_ms; ms++) {
        for (due += rate / 1000.0; due >= 1; due--)
            service_call(service);
        service_pass_ms(service);
    }
}

static void forget(struct service *service)
{
    service->answered = service->expired = service->refused = 0;
    service->waited_most_ms = 0;
}

static void twice_of(unsigned rate, unsigned batch)
{
    struct service service;

    service_init(&service, rate, batch);
    service_offer(&service, 2 * rate, SETTLED_MS);
    forget(&service);
    service_offer(&service, 2 * rate, DURATION_MS);
    if (service.expired > 0 || service.answered < rate * (DURATION_MS / 1000) * 9 / 10 ||
        service.waited_most_ms > WAIT_MS * 3 / 2 || service.refused == 0)
        fail_msg("rate %u, batches of %u: %u answered, %u expired, %u refused, waited %u ms", rate, batch,
                 service.answered, service.expired, service.refused, (unsigned)service.waited_most_ms);
}

static void test_twice_of_what_it_can_do(void **state)
{
    (void)state;
    for (unsigned rate = 10; rate <= 320; rate *= 2)
        twice_of(rate, 1);
    for (unsigned rate = 40; rate <= 320; rate *= 2)
        twice_of(rate, rate); /* all answers of a second at once */
}

static void test_it_has_no_transient_that_expires(void **state)
{
    struct service service;

    (void)state;
    service_init(&service, 50, 1);
    service_offer(&service, 100, DURATION_MS);
    assert_int_equal(service.expired, 0);
}

static void test_who_is_quick_refuses_nobody(void **state)
{
    struct service service;

    (void)state;
    service_init(&service, 4000, 1);
    service_offer(&service, 3900, SETTLED_MS);
    for (unsigned i = 0; i < CALLS_MAX; i++) /* after a pause, as many as there may be */
        service_call(&service);
    service_offer(&service, 0, 1000);
    assert_int_equal(service.refused, 0);
    assert_int_equal(service.expired, 0);
    assert_int_equal(service.count, 0);
}

static void test_who_has_stopped_is_waited_for_by_few(void **state)
{
    struct service service;

    (void)state;
    service_init(&service, 1000, 1);
    service_offer(&service, 200, SETTLED_MS);
    service.rate = 0;
    service_offer(&service, 200, SETTLED_MS);
    assert_in_range(service.count, 1, LIMIT_LEAST);
    service.rate = 1000; /* and as soon as it goes on, all is as before */
    service_offer(&service, 200, 1000);
    forget(&service);
    service_offer(&service, 200, SETTLED_MS);
    assert_int_equal(service.refused + service.expired, 0);
}

static void test_who_gives_up_says_nothing_about_the_service(void **state)
{
    struct limit limit;

    (void)state;
    limit_init(&limit, WAIT_MS, 0);
    for (unsigned i = 0; i < 100; i++)
        assert_true(limit_enter(&limit, 10));
    for (unsigned i = 0; i < 50; i++)
        limit_leave(&limit, LIMIT_CANCELLED, 11, 10);
    assert_int_equal(limit.under_way, 50);
    assert_int_equal(limit.took_ms, 0);
    limit_leave(&limit, LIMIT_ANSWERED, 600, 10);
    assert_true(limit_enter(&limit, 600));
}

static void test_to_ask_for_room_takes_none(void **state)
{
    struct limit limit;

    (void)state;
    limit_init(&limit, WAIT_MS, 0);
    for (unsigned i = 0; i < LIMIT_LEAST; i++) {
        assert_true(limit_has_room(&limit, WAIT_MS)); /* slow by then, and nothing was answered yet */
        assert_true(limit_enter(&limit, 10));
        assert_int_equal(limit.under_way, i + 1);
    }
    assert_false(limit_has_room(&limit, WAIT_MS));
    assert_false(limit_enter(&limit, WAIT_MS));
    limit_leave(&limit, LIMIT_ANSWERED, WAIT_MS, WAIT_MS);
    assert_true(limit_has_room(&limit, WAIT_MS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twice_of_what_it_can_do),
        cmocka_unit_test(test_it_has_no_transient_that_expires),
        cmocka_unit_test(test_who_is_quick_refuses_nobody),
        cmocka_unit_test(test_who_has_stopped_is_waited_for_by_few),
        cmocka_unit_test(test_who_gives_up_says_nothing_about_the_service),
        cmocka_unit_test(test_to_ask_for_room_takes_none),
    };

    return cmocka_run_group_tests_name("limit", tests, NULL, NULL);
}
