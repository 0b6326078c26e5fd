/* What orders does with an order apart from its database: read what a client asks for, print what it is told. */
#include <rpclib/json.h>

#include "drive.h"
#include "messages.h"
#include "order.h"

#define WARM_UP 200

static struct rpc_text text;

static void read_order(void *arg)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *details = rpc_json_load(rpc_bytes_of(arg), reason), *errors = NULL;
    struct order order;

    drive_require(order_read_new(&order, details, &errors) == ORDER_OK, "an order");
    order_clear(&order);
    json_decref(details);
}

static void print_order(void *arg)
{
    rpc_text_reset(&text, 4096);
    order_print(&text, arg);
}

static void repeat(void (*work)(void *arg), void *arg, unsigned requests)
{
    for (unsigned i = 0; i < WARM_UP; i++)
        work(arg);
    for (unsigned i = 0; i < requests; i++)
        drive_measured(work, arg);
}

static void run_read(unsigned requests, unsigned at_once)
{
    static char lines[] = MESSAGES_NEW_LINES;

    (void)at_once;
    repeat(read_order, lines, requests);
}

static void run_print(unsigned requests, unsigned at_once)
{
    struct order_line line = {
        .id = 777, .product_id = rpc_bytes_of("bench-000000000777"), .price = rpc_bytes_of("100000.99"), .quantity = 1};
    struct order order = {.id = 777, .lines_count = 1, .lines = &line};

    (void)at_once;
    repeat(print_order, &order, requests);
    drive_require(text.size > 0 && !text.failed, "an order's text");
}

int main(int argc, char *argv[])
{
    static const struct drive_case cases[] = {{"read", run_read}, {"print", run_print}};

    return drive_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
