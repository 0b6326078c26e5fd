/* What the tests of the store share: a PostgreSQL, and a stage on it for each case. */
#ifndef ORDERS_TEST_STORE_CASE_H
#define ORDERS_TEST_STORE_CASE_H

#include "postgres.h"
#include "stage.h"

#define LINE       "[{\"product_id\":\"the_odyssey\",\"price\":\"100000.99\",\"quantity\":1}]"
#define OTHER_LINE "[{\"product_id\":\"the_enigma\",\"price\":\"1\",\"quantity\":2}]"
#define TWO_LINES \
    "[{\"product_id\":\"a\\\"b\\\\\",\"price\":\"1\",\"quantity\":1},{\"product_id\":\"{c,d}\",\"price\":0.1,\"quantity\":2}]"
#define SLACK_MS 1500 /* beyond a deadline, on a busy machine */
#define EMPTY \
    "ROLLBACK; TRUNCATE orders, order_details, order_outbox, order_requests, order_idempotency RESTART IDENTITY"

extern struct postgres *postgres; /* started by the program */

/* Each runs its tests; how many failed. */
int test_store_create(void);
int test_store_change(void);
int test_store_events(void);

/* A case of cmocka's: its state is a stage on an empty database. */
#define case_of(name) cmocka_unit_test_setup_teardown(name, store_case_setup, store_case_teardown)
int store_case_setup(void **state);
int store_case_teardown(void **state);
struct stage *stage_of(void **state);

long number(const char *sql);
void sql_is_at(const char *sql, const char *expected, int line);
#define sql_is(sql, expected) sql_is_at(sql, expected, __LINE__)

/* Ends as expected, with this text (NULL: any); the act is freed. */
void ends_at(struct act *act, enum order_store_status expected, const char *text, int line);
#define ends(act, status)            ends_at(act, status, NULL, __LINE__)
#define ends_with(act, status, text) ends_at(act, status, text, __LINE__)

/* The text of an act that goes well; the caller's to free. */
char *text_of(struct act *act);

/* A condition: the unit's `limit` is -1, which its callback makes it. */
bool unit_is_marked(void *unit);

#endif
