/* rpc_loop on libevent: what rpclib/loop.h promises, on a real event_base with real descriptors. */
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpclib/loop_libevent.h"

#define ACTORS_MAX   8
#define DEADLINE_MS  5000
#define EARLY_MAX_MS 10 /* libevent reads CLOCK_MONOTONIC_COARSE, which goes by the kernel's ticks */

/* Somebody with a watch, a timer and a task, who notes each callback and then does what it is there for. */
struct actor {
    char name;
    struct rpc_loop_watch *watch;
    struct rpc_loop_timer *timer;
    struct rpc_loop_task *task;
    int ends[2];                   /* a socket pair: the watch is on the first */
    struct actor *schedules;       /* whose task */
    struct actor *frees;           /* whose watch, timer and task */
    struct rpc_loop_timer *starts; /* with no delay */
    unsigned sets;                 /* the watch's events after it ran */
};

static struct event_base *base;
static struct rpc_loop *loop;
static struct actor actors[ACTORS_MAX];
static char notes[200]; /* "r" read, "w" write, "t" timer, "k" task, each behind the actor's name */

static void note(const struct actor *actor, const char *what)
{
    size_t size = strlen(notes);

    assert_true(size + 4 < sizeof(notes));
    snprintf(notes + size, sizeof(notes) - size, "%s%c%s", size == 0 ? "" : " ", actor->name, what);
}

static void notes_are(const char *expected)
{
    assert_string_equal(notes, expected);
    notes[0] = '\0';
}

static void actor_free(struct actor *actor)
{
    rpc_loop_watch_free(actor->watch);
    rpc_loop_timer_free(actor->timer);
    rpc_loop_task_free(actor->task);
    actor->watch = NULL;
    actor->timer = NULL;
    actor->task = NULL;
}

static void act(struct actor *actor)
{
    if (actor->schedules != NULL)
        rpc_loop_task_schedule(actor->schedules->task);
    if (actor->starts != NULL)
        rpc_loop_timer_start(actor->starts, 0);
    if (actor->frees != NULL)
        actor_free(actor->frees);
}

static void on_ready(int fd, unsigned events, void *arg)
{
    struct actor *actor = arg;

    assert_int_equal(fd, actor->ends[0]);
    if (events & RPC_LOOP_READ)
        note(actor, "r");
    if (events & RPC_LOOP_WRITE)
        note(actor, "w");
    rpc_loop_watch_set(actor->watch, actor->sets);
    act(actor);
}

static void on_timer(void *arg)
{
    note(arg, "t");
    act(arg);
}

static void on_task(void *arg)
{
    note(arg, "k");
    act(arg);
}

/* An actor whose watch, timer and task are there and idle, and whose descriptor is readable and writable. */
static struct actor *actor_new(char name)
{
    struct actor *actor = &actors[name - 'a'];

    assert_true(name - 'a' < ACTORS_MAX);
    *actor = (struct actor){.name = name};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, actor->ends), 0);
    assert_int_equal(write(actor->ends[1], "x", 1), 1);
    actor->watch = rpc_loop_watch_new(loop, actor->ends[0], 0, on_ready, actor);
    actor->timer = rpc_loop_timer_new(loop, on_timer, actor);
    actor->task = rpc_loop_task_new(loop, on_task, actor);
    assert_true(actor->watch != NULL && actor->timer != NULL && actor->task != NULL);
    return actor;
}

static int setup(void **state)
{
    (void)state;
    base = event_base_new();
    loop = base == NULL ? NULL : rpc_loop_libevent_new(base);
    memset(actors, 0, sizeof(actors));
    notes[0] = '\0';
    return loop == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < ACTORS_MAX; i++) {
        if (actors[i].name == '\0')
            continue;
        actor_free(&actors[i]);
        close(actors[i].ends[0]);
        close(actors[i].ends[1]);
    }
    rpc_loop_libevent_free(loop);
    event_base_free(base);
    return 0;
}

/* One turn that does not wait. */
static void turn(void)
{
    assert_true(event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK) >= 0);
}

/* Turns until something is noted; fails when nothing is for DEADLINE_MS. */
static void turn_until_noted(void)
{
    uint64_t deadline_ms = rpc_loop_now_ms(loop) + DEADLINE_MS;

    while (notes[0] == '\0') {
        assert_true(rpc_loop_now_ms(loop) < deadline_ms);
        assert_true(event_base_loop(base, EVLOOP_ONCE) >= 0);
    }
}

static void test_task_runs_behind_all_that_is_ready(void **state)
{
    struct actor *a = actor_new('a');
    struct actor *b = actor_new('b');
    struct actor *c = actor_new('c');
    struct actor *d = actor_new('d');

    (void)state;
    /* whoever comes first, the task comes last, once, in the same turn */
    a->schedules = b->schedules = c->schedules = d;
    rpc_loop_watch_set(a->watch, RPC_LOOP_READ);
    rpc_loop_watch_set(b->watch, RPC_LOOP_READ);
    rpc_loop_timer_start(c->timer, 0);
    turn();
    assert_int_equal(strlen(notes), strlen("ar br ct dk"));
    assert_non_null(strstr(notes, "ar"));
    assert_non_null(strstr(notes, "br"));
    assert_non_null(strstr(notes, "ct"));
    assert_string_equal(notes + strlen("ar br ct "), "dk");
    notes[0] = '\0';
    turn();
    notes_are("");
}

static void test_task_from_outside_and_twice(void **state)
{
    struct actor *a = actor_new('a');

    (void)state;
    rpc_loop_task_schedule(a->task);
    rpc_loop_task_schedule(a->task);
    notes_are(""); /* never from inside rpc_loop_task_schedule() */
    turn();
    notes_are("ak");
    turn();
    notes_are("");
    rpc_loop_task_schedule(a->task);
    turn();
    notes_are("ak");
}

static void test_task_schedules_another(void **state)
{
    struct actor *a = actor_new('a');
    struct actor *b = actor_new('b');

    (void)state;
    a->schedules = b;
    rpc_loop_task_schedule(a->task);
    turn();
    turn();
    notes_are("ak bk");
}

static void test_task_freed(void **state)
{
    struct actor *a = actor_new('a');
    struct actor *b = actor_new('b');
    struct actor *c = actor_new('c');

    (void)state;
    rpc_loop_task_schedule(a->task);
    actor_free(a); /* before it ran */
    turn();
    notes_are("");
    b->frees = b; /* while it runs */
    rpc_loop_task_schedule(b->task);
    turn();
    notes_are("bk");
    b = actor_new('d');
    c->frees = b; /* by another, with both scheduled */
    rpc_loop_task_schedule(c->task);
    rpc_loop_task_schedule(b->task);
    turn();
    notes_are("ck");
}

static void test_watch_is_level_triggered(void **state)
{
    struct actor *a = actor_new('a');
    char byte;

    (void)state;
    turn();
    notes_are(""); /* watches for nothing */
    a->sets = RPC_LOOP_READ;
    rpc_loop_watch_set(a->watch, RPC_LOOP_READ);
    turn();
    turn();
    notes_are("ar ar");
    assert_int_equal(read(a->ends[0], &byte, 1), 1);
    turn();
    notes_are("");
    assert_int_equal(shutdown(a->ends[1], SHUT_WR), 0);
    turn();
    notes_are("ar"); /* readable: at its end */
    rpc_loop_watch_set(a->watch, 0);
    turn();
    notes_are("");
}

static void test_watch_from_birth(void **state)
{
    struct actor *a = actor_new('a');

    (void)state;
    rpc_loop_watch_free(a->watch);
    a->watch = rpc_loop_watch_new(loop, a->ends[0], RPC_LOOP_WRITE, on_ready, a);
    assert_non_null(a->watch);
    turn();
    notes_are("aw");
    turn();
    notes_are(""); /* `sets` is 0 */
}

static void test_watch_both_sides(void **state)
{
    struct actor *a = actor_new('a');
    bool together;

    (void)state;
    a->sets = RPC_LOOP_READ | RPC_LOOP_WRITE;
    rpc_loop_watch_set(a->watch, RPC_LOOP_READ | RPC_LOOP_WRITE);
    turn();
    together = strcmp(notes, "ar aw") == 0 || strcmp(notes, "aw ar") == 0;
    assert_true(together);
    notes[0] = '\0';
    a->sets = 0; /* the first of the two callbacks takes back the interest in the other */
    turn();
    assert_int_equal(strlen(notes), 2);
    notes[0] = '\0';
    turn();
    notes_are("");
}

static void test_watch_freed_in_its_callback(void **state)
{
    struct actor *a = actor_new('a');

    (void)state;
    a->sets = RPC_LOOP_READ | RPC_LOOP_WRITE;
    a->frees = a; /* with the other side still to come */
    rpc_loop_watch_set(a->watch, RPC_LOOP_READ | RPC_LOOP_WRITE);
    turn();
    assert_int_equal(strlen(notes), 2);
    turn();
    assert_int_equal(strlen(notes), 2);
}

static void test_watch_freed_by_another(void **state)
{
    struct actor *a = actor_new('a');
    struct actor *b = actor_new('b');

    (void)state;
    a->frees = b;
    b->frees = a;
    rpc_loop_watch_set(a->watch, RPC_LOOP_READ);
    rpc_loop_watch_set(b->watch, RPC_LOOP_READ);
    turn(); /* both are ready: the first to run is the only one */
    assert_int_equal(strlen(notes), 2);
}

/* A descriptor's number is used again at once: the new watch is not taken for the old one. */
static void test_descriptor_is_used_again(void **state)
{
    struct actor *a = actor_new('a');
    struct actor *b;
    int fd = a->ends[0];

    (void)state;
    rpc_loop_watch_set(a->watch, RPC_LOOP_READ);
    actor_free(a);
    close(a->ends[0]);
    close(a->ends[1]);
    a->name = '\0';
    b = actor_new('b');
    assert_int_equal(b->ends[0], fd);
    rpc_loop_watch_set(b->watch, RPC_LOOP_READ);
    turn();
    notes_are("br");
}

static void test_timer(void **state)
{
    struct actor *a = actor_new('a');
    uint64_t start_ms = rpc_loop_now_ms(loop);

    (void)state;
    rpc_loop_timer_start(a->timer, 40);
    notes_are("");
    turn_until_noted();
    notes_are("at");
    assert_true(rpc_loop_now_ms(loop) - start_ms >= 40 - EARLY_MAX_MS);
    turn();
    notes_are(""); /* one-shot */
}

static void test_timer_order_restart_and_stop(void **state)
{
    struct actor *a = actor_new('a');
    struct actor *b = actor_new('b');
    struct actor *c = actor_new('c');

    (void)state;
    rpc_loop_timer_start(a->timer, 1);
    rpc_loop_timer_start(a->timer, 40); /* anew: only this one counts */
    rpc_loop_timer_start(b->timer, 20);
    rpc_loop_timer_start(c->timer, 10);
    rpc_loop_timer_stop(c->timer);
    rpc_loop_timer_stop(c->timer);
    turn_until_noted();
    notes_are("bt");
    turn_until_noted();
    notes_are("at");
    rpc_loop_timer_start(c->timer, 0); /* a stopped one starts again */
    turn_until_noted();
    notes_are("ct");
}

static void test_timer_starts_itself(void **state)
{
    struct actor *a = actor_new('a');

    (void)state;
    a->starts = a->timer;
    rpc_loop_timer_start(a->timer, 0);
    turn_until_noted();
    notes_are("at"); /* once a turn, or the loop would never come to anything else */
    turn_until_noted();
    notes_are("at");
    rpc_loop_timer_stop(a->timer);
    turn();
    notes_are("");
}

static void test_timer_freed(void **state)
{
    struct actor *a = actor_new('a');
    struct actor *b = actor_new('b');

    (void)state;
    a->frees = a; /* while it runs */
    rpc_loop_timer_start(a->timer, 0);
    turn_until_noted();
    notes_are("at");
    a = actor_new('c');
    a->frees = b; /* by another that is due at the same moment */
    b->frees = a;
    rpc_loop_timer_start(a->timer, 0);
    rpc_loop_timer_start(b->timer, 0);
    turn_until_noted();
    turn();
    assert_int_equal(strlen(notes), 2);
}

static void test_timer_frees_a_ready_watch(void **state)
{
    struct actor *a = actor_new('a');
    struct actor *b = actor_new('b');

    (void)state;
    a->frees = b;
    b->frees = a;
    rpc_loop_timer_start(a->timer, 0);
    rpc_loop_watch_set(b->watch, RPC_LOOP_READ);
    turn();
    assert_int_equal(strlen(notes), 2);
    turn();
    assert_int_equal(strlen(notes), 2);
}

static void test_nothing_is_freed(void **state)
{
    (void)state;
    rpc_loop_watch_free(NULL);
    rpc_loop_timer_free(NULL);
    rpc_loop_task_free(NULL);
    rpc_loop_libevent_free(NULL);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_task_runs_behind_all_that_is_ready),
        CASE(test_task_from_outside_and_twice),
        CASE(test_task_schedules_another),
        CASE(test_task_freed),
        CASE(test_watch_is_level_triggered),
        CASE(test_watch_from_birth),
        CASE(test_watch_both_sides),
        CASE(test_watch_freed_in_its_callback),
        CASE(test_watch_freed_by_another),
        CASE(test_descriptor_is_used_again),
        CASE(test_timer),
        CASE(test_timer_order_restart_and_stop),
        CASE(test_timer_starts_itself),
        CASE(test_timer_freed),
        CASE(test_timer_frees_a_ready_watch),
        CASE(test_nothing_is_freed),
    };

    return cmocka_run_group_tests_name("loop_libevent", tests, NULL, NULL);
}
