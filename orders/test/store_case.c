#include "store_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct postgres *postgres;

struct stage *stage_of(void **state)
{
    return *state;
}

int store_case_setup(void **state)
{
    struct stage *stage = calloc(1, sizeof(*stage));

    free(postgres_sql(postgres, EMPTY));
    stage_open(stage, postgres_uri(postgres), 3);
    stage_wait_up(stage);
    *state = stage;
    return 0;
}

int store_case_teardown(void **state)
{
    stage_close(*state);
    free(*state);
    return 0;
}

long number(const char *sql)
{
    return postgres_number(postgres, sql);
}

void sql_is_at(const char *sql, const char *expected, int line)
{
    char *value = postgres_sql(postgres, sql);

    if (strcmp(value, expected) != 0)
        fail_msg("line %d: %s: %s, not %s", line, sql, value, expected);
    free(value);
}

void ends_at(struct act *act, enum order_store_status expected, const char *text, int line)
{
    enum order_store_status status = act_wait(act);

    if (status != expected)
        fail_msg("line %d: status %d, not %d", line, (int)status, (int)expected);
    if (text != NULL && strcmp(act->text == NULL ? "" : act->text, text) != 0)
        fail_msg("line %d: %s, not %s", line, act->text, text);
    act_free(act);
}

char *text_of(struct act *act)
{
    char *text;

    assert_int_equal(act_wait(act), ORDER_STORE_OK);
    text = strdup(act->text);
    act_free(act);
    return text;
}

bool unit_is_marked(void *unit)
{
    return ((struct order_store_unit *)unit)->limit == -1;
}
