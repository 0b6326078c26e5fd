/* What the gateway does with a request apart from Kore and the services: guard it, check a product, put an order together, cut a page. */
#include <stdio.h>
#include <string.h>

#include "drive.h"
#include "guard.h"
#include "messages.h"
#include "order_text.h"
#include "page.h"
#include "product_text.h"
#include "rpclib/json.h"

#define WARM_UP    200
#define PAGE_LIMIT 50
#define LIST_SIZE  16384

static struct rpc_text text;

static void repeat(void (*work)(void *arg), void *arg, unsigned requests)
{
    for (unsigned i = 0; i < WARM_UP; i++)
        work(arg);
    for (unsigned i = 0; i < requests; i++)
        drive_measured(work, arg);
}

/* --- guard --- */

static void guard_request(void *arg)
{
    struct guard guard = {.refusal = NULL};

    drive_require(guard_check(&guard, rpc_bytes_of(arg)) == GUARD_OK, "a request that passes the guard");
}

static void run_guard(unsigned requests, unsigned at_once)
{
    static char request[] = "GET /products/bench-000000000777 HTTP/1.1\r\n"
                            "Host: shop.example.com\r\n"
                            "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0\r\n"
                            "Accept: application/json\r\n"
                            "Accept-Encoding: gzip, deflate\r\n"
                            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
                            "Connection: keep-alive\r\n\r\n";

    (void)at_once;
    repeat(guard_request, request, requests);
}

/* --- a product --- */

/* Checked, and as it goes into an answer. */
static void hand_on(void *arg)
{
    struct product_text product;

    rpc_text_reset(&text, LIST_SIZE);
    drive_require(product_text_open(&product, rpc_bytes_of(arg)), "a product");
    drive_require(rpc_json_string_spells(product_text_id(&product), RPC_BYTES(MESSAGES_PRODUCT_ID)), "that product");
    product_text_append(&text, &product);
    drive_require(!text.failed && text.size > 0, "a product's text");
}

static void run_product(unsigned requests, unsigned at_once)
{
    static char product[] = MESSAGES_PRODUCT;

    (void)at_once;
    repeat(hand_on, product, requests);
}

/* --- an order with its products --- */

static void put_together(void *arg)
{
    struct rpc_bytes body = rpc_bytes_of(MESSAGES_PRODUCT);
    struct product_text product;
    struct order_text order;

    rpc_text_reset(&text, LIST_SIZE);
    drive_require(order_text_open(&order, rpc_bytes_of(arg)) == ORDER_TEXT_OK, "an order");
    drive_require(product_text_open(&product, body), "a product");
    drive_require(rpc_json_strings_equal(product_text_id(&product), order.products.items[0]), "the order's product");
    order_text_print(&text, &order, &body, rpc_bytes_of("http://images.example.com/of/airships"));
    order_text_clear(&order);
    drive_require(!text.failed && text.size > 0, "an order with its product");
}

static void run_order(unsigned requests, unsigned at_once)
{
    static char order[] = "{\"id\":777,\"order_details\":[{\"id\":777,\"product_id\":\"bench-000000000777\","
                          "\"price\":\"100000.99\",\"quantity\":1}]}";

    (void)at_once;
    repeat(put_together, order, requests);
}

/* --- a page --- */

static void cut_page(void *arg)
{
    struct page_cut cut;

    rpc_text_reset(&text, LIST_SIZE);
    drive_require(page_append(&text, rpc_bytes_of(arg), 0, PAGE_LIMIT, &cut) == PAGE_OK, "a page");
    drive_require(cut.count == PAGE_LIMIT && cut.more, "a full page");
}

static void run_page(unsigned requests, unsigned at_once)
{
    static char list[LIST_SIZE] = "[";
    size_t size = 1;

    (void)at_once;
    for (unsigned id = 1; id <= PAGE_LIMIT + 1; id++) /* one more than is shown, as the gateway asks for */
        size += (size_t)snprintf(list + size, sizeof(list) - size,
                                 "%s{\"id\":%u,\"order_details\":[{\"id\":%u,\"product_id\":\"bench-%012u\","
                                 "\"price\":\"100000.99\",\"quantity\":1}]}",
                                 id > 1 ? "," : "", id, id, id);
    list[size] = ']';
    repeat(cut_page, list, requests);
}

int main(int argc, char *argv[])
{
    static const struct drive_case cases[] = {
        {"guard", run_guard}, {"product", run_product}, {"order", run_order}, {"page", run_page}};

    return drive_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
