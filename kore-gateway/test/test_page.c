/* page: pages out of lists, from services that know pages and from those that do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "page.h"

static void page_is(const char *list, int64_t after, size_t limit, const char *expected, bool more, int64_t last_id,
                    int line)
{
    struct rpc_text out = {0};
    struct page_cut cut;

    if (page_append(&out, rpc_bytes_of(list), after, limit, &cut) != PAGE_OK)
        fail_msg("line %d: refused: %s", line, list);
    if (!rpc_bytes_equal(rpc_text_bytes(&out), expected))
        fail_msg("line %d: %.*s", line, (int)out.size, out.data);
    if (cut.more != more || cut.last_id != last_id)
        fail_msg("line %d: more %d, last %lld", line, cut.more, (long long)cut.last_id);
    rpc_text_clear(&out);
}

static void is_nonsense(const char *list, int line)
{
    struct rpc_text out = {0};
    struct page_cut cut = {.last_id = 7777};

    if (page_append(&out, rpc_bytes_of(list), 0, 10, &cut) != PAGE_NONSENSE || out.size != 0 || cut.last_id != 7777)
        fail_msg("line %d: taken: %s", line, list);
    rpc_text_clear(&out);
}

#define is(list, after, limit, expected, more, last) page_is(list, after, limit, expected, more, last, __LINE__)
#define nonsense(list)                               is_nonsense(list, __LINE__)

#define EMPTY(id) "{\"id\":" id ",\"order_details\":[]}"
#define FULL(id)  "{\"id\":" id ",\"order_details\":[{\"id\":9,\"product_id\":\"]\",\"price\":\"1.00\",\"quantity\":1}]}"
#define ALL       "[" EMPTY("1") "," FULL("2") "," EMPTY("3") "]"

static void test_pages(void **state)
{
    (void)state;
    is("[]", 0, 10, "[]", false, 0);
    is(ALL, 0, 10, ALL, false, 3); /* handed on as it came */
    is(ALL, 0, 3, ALL, false, 3);
    is(ALL, 0, 2, "[" EMPTY("1") ", " FULL("2") "]", true, 2);
    is(ALL, 1, 10, "[" FULL("2") ", " EMPTY("3") "]", false, 3);
    is(ALL, 1, 1, "[" FULL("2") "]", true, 2);
    is(ALL, 3, 10, "[]", false, 0);
    is("[" EMPTY("3") "," EMPTY("1") "," FULL("2") "]", 0, 10, "[" EMPTY("1") ", " FULL("2") ", " EMPTY("3") "]", false,
       3);
    is("[" EMPTY("3") "," EMPTY("1") "," FULL("2") "]", 1, 1, "[" FULL("2") "]", true, 2);
}

/* Python's; any order of members, any space; what else it says stays inside. */
static void test_other_forms(void **state)
{
    (void)state;
    is(" [ ] ", 0, 10, "[]", false, 0);
    is("[{\"id\": 1, \"order_details\": []}, {\"id\": 2, \"order_details\": [{\"id\": 9, \"product_id\": \"]\", \"price\": "
       "\"1.00\", \"quantity\": 1}]}, {\"id\": 3, \"order_details\": []}]",
       0, 10, ALL, false, 3);
    is(" [ " EMPTY("1") " ," FULL("2") ",{\"order_details\":[],\"x\":[{\"id\":9}],\"id\":3}]", 0, 10, ALL, false, 3);
    is("[" EMPTY("3") "," EMPTY("1") ", " EMPTY("2") "]", 1, 1, "[" EMPTY("2") "]", true, 2);
}

static void test_nonsense(void **state)
{
    (void)state;
    nonsense("");
    nonsense("null");
    nonsense("{}");
    nonsense("5");
    nonsense("[1]");
    nonsense("[null]");
    nonsense("[{}]");
    nonsense("[[]]");
    nonsense("[{\"id\":1}]");
    nonsense("[{\"id\":\"1\",\"order_details\":[]}]");
    nonsense("[" EMPTY("1") "," EMPTY("null") "]");
    nonsense("[" EMPTY("1") ", " EMPTY("null") "]");
    nonsense("[" EMPTY("1") ",{\"id\":2,\"order_details\":[{}]}]");
    nonsense("[" EMPTY("1") ",{\"id\":2,\"order_details\":[],\"id\":2}]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pages), cmocka_unit_test(test_other_forms),
                                       cmocka_unit_test(test_nonsense)};

    return cmocka_run_group_tests_name("page", tests, NULL, NULL);
}
