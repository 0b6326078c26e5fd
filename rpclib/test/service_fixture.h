/*
 * service_fixture: a service `products` before the broker of simulation/peer.h.  Its methods are those of the
 * golden service of real Nameko, and a few more; its handlers tell what they saw in `story`.
 */
#ifndef RPCLIB_TEST_SERVICE_FIXTURE_H
#define RPCLIB_TEST_SERVICE_FIXTURE_H

#include "rpclib/service.h"
#include "simulation/peer.h"
#include "story.h"

#define HELD_MAX 32
#define REQUESTS 1 /* the channels, in the order in which the service opens them */
#define EVENTS   2

#define METHODS_COUNT  9
#define HANDLERS_COUNT 2

#define HOLD "{\"args\": [], \"kwargs\": {}}" /* a request's body without arguments */

extern struct rpc_service *service;
extern struct rpc_incoming *held[HELD_MAX]; /* requests that are not answered yet: those to `products.hold` */
extern struct rpc_event *held_events[HELD_MAX];
extern unsigned held_count, held_events_count;
extern unsigned ready, stopped, standbys; /* how often these callbacks ran */
extern char story[STORY_SIZE];            /* what handlers saw */

extern const struct rpc_method methods[METHODS_COUNT];
extern const struct rpc_event_handler handlers[HANDLERS_COUNT];

void on_event(struct rpc_event *event, json_t *data, void *arg);
void on_ready(void *arg);
void on_standby(void *arg);
void on_stopped(void *arg);

/* The service with all methods and the first so many of the handlers; it is ready. */
void start(size_t handlers_count);
/* An event arrives. */
void event(unsigned channel, const char *body);

/*
 * A broker that goes on shaking hands answers nothing that the service asked.  It is given up after SESSION_SETUP_MAX_MS, but
 * not while it is in an alarm; then it answers, and the service is ready.
 */
void silence_is_given_up(void);

/* For cmocka: a connection that is up and no service yet; and nothing left of them. */
int setup(void **state);
int teardown(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#define story_is(expected) story_compare(story, expected, "handlers saw", __LINE__)

#endif
