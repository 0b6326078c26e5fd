#include "orders.h"

#include <rpclib/json.h>
#include <rpclib/percent.h>
#include <stdio.h>
#include <stdlib.h>

#include "failure.h"
#include "order.h"
#include "order_text.h"
#include "page.h"
#include "product_text.h"
#include "target.h"

#define ORDERS   "orders"
#define PRODUCTS "products"

#define SHOWN_SIZE_MAX 64u /* bytes of a wrong id that a message repeats */
#define READ_SIZE_MAX \
    (64u * 1024 * 1024) /* bytes of an order with its products, as they come and as they are answered */

/* PRODUCT_IMAGE_ROOT as it stands in a JSON string. */
static struct rpc_text image_root;

bool orders_start(const char *root)
{
    rpc_text_append_json_string(&image_root, rpc_bytes_of(root));
    return !image_root.failed;
}

static struct rpc_bytes image_root_part(void)
{
    return (struct rpc_bytes){image_root.data + 1, image_root.size - 2}; /* without the quotes */
}

/* A service that the request needs later may have enough to do by now.  False when the flight was answered. */
static bool has_room_or_answer(struct flight *flight, const char *service, enum failure_of of)
{
    bool has_room = flight_has_room(service);

    if (!has_room)
        failure_answer(flight, of, service, RPC_BUSY, NULL);
    return has_room;
}

/*
 * Ask `products.<method>` about each of the products, all at once; `ids` are JSON strings.  The slots are their indices.
 * Where one cannot be asked the flight is answered, and the others are not asked.
 */
static void ask_products(struct flight *flight, const char *method, const struct rpc_bytes ids[], size_t count,
                         enum failure_of of, flight_reply_fn *done)
{
    struct rpc_text kwargs = {0};
    bool asked = flight_prepare(flight, count);

    if (!asked)
        failure_answer(flight, of, PRODUCTS, RPC_NO_MEMORY, NULL);
    for (size_t i = 0; asked && i < count; i++) {
        kwargs.size = 0;
        rpc_text_append(&kwargs, RPC_BYTES("{\"product_id\": "));
        rpc_text_append(&kwargs, ids[i]);
        rpc_text_append(&kwargs, RPC_BYTES("}"));
        asked = failure_or_call(
            flight, &(struct flight_request){.service = PRODUCTS, .method = method, .kwargs = &kwargs, .slot = i}, of,
            done);
    }
    rpc_text_clear(&kwargs);
}

/* ---- GET /orders/{id}: get_order -> get each product -> answer ---------------------------------------------------- */

struct body {
    size_t at, size;
};

struct reading {
    int64_t id;              /* of the order that is asked for */
    struct rpc_text text;    /* the order as it came */
    struct order_text order; /* lends from `text` */
    size_t waiting;          /* products that have not come yet */
    struct rpc_text bodies;  /* the products as they came, one behind the other */
    struct body *products;   /* where each of them is */
};

static void reading_free(void *work)
{
    struct reading *reading = work;

    order_text_clear(&reading->order);
    rpc_text_clear(&reading->text);
    rpc_text_clear(&reading->bodies);
    free(reading->products);
    free(reading);
}

static void answer_order_not_found(struct flight *flight)
{
    struct rpc_bytes segment = flight_segment(flight);
    char message[SHOWN_SIZE_MAX + 40];

    if (segment.size > SHOWN_SIZE_MAX)
        segment.size = SHOWN_SIZE_MAX;
    snprintf(message, sizeof(message), "Order with id %.*s not found", (int)segment.size, segment.data);
    flight_error(flight, 404, "ORDER_NOT_FOUND", rpc_bytes_of(message));
}

static void answer_order_too_large(struct flight *flight)
{
    flight_error(flight, 500, "UNEXPECTED_ERROR", RPC_BYTES("The order with its products is larger than 64 MiB."));
}

_Static_assert(READ_SIZE_MAX == 64u * 1024 * 1024, "the message says so");

/* A thousand lines may be about one large product, so the answer's size is known before it is made. */
static void read_print(struct flight *flight, const struct rpc_bytes products[])
{
    const struct reading *reading = flight_work(flight);
    size_t size = order_text_size(&reading->order, products, image_root_part());
    struct answer *answer = flight_answer(flight);

    if (size > READ_SIZE_MAX) {
        answer_order_too_large(flight);
        return;
    }
    if (!flight_answer_fits(flight, size))
        return;
    answer_begin(answer);
    order_text_print(answer_body(answer), &reading->order, products, image_root_part());
    answer_end(answer, 200);
    flight_done(flight);
}

static void read_answer(struct flight *flight)
{
    const struct reading *reading = flight_work(flight);
    size_t count = reading->order.products.count;
    struct rpc_bytes *products = calloc(count + 1, sizeof(*products));

    if (products == NULL || reading->bodies.failed) {
        free(products);
        failure_answer(flight, FAILURE_OF_READ, PRODUCTS, RPC_NO_MEMORY, NULL);
        return;
    }
    for (size_t i = 0; i < count; i++)
        products[i] = (struct rpc_bytes){reading->bodies.data + reading->products[i].at, reading->products[i].size};
    read_print(flight, products);
    free(products);
}

/* The product of a slot: its bytes, or null where it was deleted since. */
static void read_take_product(struct flight *flight, size_t slot, const struct product_text *product)
{
    struct reading *reading = flight_work(flight);
    size_t at = reading->bodies.size, size = product != NULL ? product->text.size : sizeof("null") - 1;

    if (at + size > READ_SIZE_MAX) {
        answer_order_too_large(flight);
        return;
    }
    if (product != NULL)
        product_text_append(&reading->bodies, product);
    else
        rpc_text_append(&reading->bodies, RPC_BYTES("null"));
    reading->products[slot] = (struct body){.at = at, .size = reading->bodies.size - at};
    if (--reading->waiting == 0)
        read_answer(flight);
}

static void read_on_product(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    const struct reading *reading = flight_work(flight);
    struct product_text product;

    if (failure_is(status, reply, PRODUCTS, "NotFound"))
        read_take_product(flight, slot, NULL);
    else if (status != RPC_OK)
        failure_answer(flight, FAILURE_OF_READ, PRODUCTS, status, reply);
    else if (product_text_open(&product, reply->result) &&
             rpc_json_strings_equal(product_text_id(&product), reading->order.products.items[slot]))
        read_take_product(flight, slot, &product);
    else
        failure_answer_nonsense(flight, FAILURE_OF_READ, PRODUCTS);
}

static void read_products(struct flight *flight)
{
    struct reading *reading = flight_work(flight);
    size_t count = reading->order.products.count;

    reading->waiting = count;
    reading->products = calloc(count + 1, sizeof(*reading->products));
    if (reading->products == NULL)
        failure_answer(flight, FAILURE_OF_READ, PRODUCTS, RPC_NO_MEMORY, NULL);
    else if (count == 0)
        read_answer(flight);
    else
        ask_products(flight, "get", reading->order.products.items, count, FAILURE_OF_READ, read_on_product);
}

static void read_on_order(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    struct reading *reading = flight_work(flight);

    (void)slot;
    if (failure_is(status, reply, ORDERS, "NotFound")) {
        answer_order_not_found(flight);
        return;
    }
    if (status != RPC_OK) {
        failure_answer(flight, FAILURE_OF_READ, ORDERS, status, reply);
        return;
    }
    rpc_text_append(&reading->text, reply->result);
    switch (reading->text.failed ? ORDER_TEXT_NO_MEMORY
                                 : order_text_open(&reading->order, rpc_text_bytes(&reading->text))) {
    case ORDER_TEXT_OK:
        if (reading->order.id == reading->id)
            read_products(flight);
        else
            failure_answer_nonsense(flight, FAILURE_OF_READ, ORDERS);
        break;
    case ORDER_TEXT_NONSENSE:
        failure_answer_nonsense(flight, FAILURE_OF_READ, ORDERS);
        break;
    case ORDER_TEXT_NO_MEMORY:
        failure_answer(flight, FAILURE_OF_READ, ORDERS, RPC_NO_MEMORY, NULL);
        break;
    }
}

/* An id that no order can have is one that does not exist. */
static bool order_id_of(struct rpc_bytes segment, int64_t *id)
{
    char decoded[SHOWN_SIZE_MAX];
    size_t size;

    return segment.size <= sizeof(decoded) && rpc_percent_decode(segment, decoded, &size) &&
           target_digits((struct rpc_bytes){decoded, size}, id) && *id >= 1 && *id <= ORDER_ID_MAX;
}

void orders_get(struct flight *flight)
{
    struct reading *reading;
    struct rpc_text kwargs = {0};
    int64_t id;

    if (!order_id_of(flight_segment(flight), &id)) {
        answer_order_not_found(flight);
        return;
    }
    if (!has_room_or_answer(flight, PRODUCTS, FAILURE_OF_READ))
        return;
    reading = calloc(1, sizeof(*reading));
    if (reading == NULL) {
        failure_answer(flight, FAILURE_OF_READ, ORDERS, RPC_NO_MEMORY, NULL);
        return;
    }
    reading->id = id;
    flight_keep(flight, reading, reading_free);
    rpc_text_append(&kwargs, RPC_BYTES("{\"order_id\": "));
    rpc_text_append_integer(&kwargs, id);
    rpc_text_append(&kwargs, RPC_BYTES("}"));
    (void)failure_or_call_alone(flight,
                                &(struct flight_request){.service = ORDERS, .method = "get_order", .kwargs = &kwargs},
                                FAILURE_OF_READ, read_on_order);
    rpc_text_clear(&kwargs);
}

/* ---- POST /orders: does each product exist? -> create_order -> answer --------------------------------------------- */

enum existence { EXISTENCE_UNKNOWN, EXISTENCE_NO, EXISTENCE_YES };

struct creating {
    struct order order;       /* owned */
    struct distinct products; /* ids as they are, lent from `order` */
    enum existence *exist;    /* of each product */
    size_t known;             /* so many of the first ones exist */
    bool has_key;
};

static void creating_free(void *work)
{
    struct creating *creating = work;

    order_clear(&creating->order);
    distinct_clear(&creating->products);
    free(creating->exist);
    free(creating);
}

static void answer_product_not_found(struct flight *flight)
{
    const struct creating *creating = flight_work(flight);
    struct rpc_text message = {0};

    rpc_text_append(&message, RPC_BYTES("Product Id "));
    rpc_text_append(&message, creating->products.items[creating->known]);
    if (message.failed)
        failure_answer(flight, FAILURE_OF_PREPARE, PRODUCTS, RPC_NO_MEMORY, NULL);
    else
        flight_error(flight, 404, "PRODUCT_NOT_FOUND", rpc_text_bytes(&message));
    rpc_text_clear(&message);
}

/* {"order_details": [{"product_id": ..., "price": "1.00", "quantity": 1}, ...]} */
static void order_print_kwargs(struct rpc_text *kwargs, const struct order *order)
{
    rpc_text_append(kwargs, RPC_BYTES("{\"order_details\": ["));
    for (size_t i = 0; i < order->lines_count; i++) {
        const struct order_line *line = &order->lines[i];

        rpc_text_append(kwargs, i == 0 ? RPC_BYTES("{\"product_id\": ") : RPC_BYTES(", {\"product_id\": "));
        rpc_text_append_json_string(kwargs, line->product_id);
        rpc_text_append(kwargs, RPC_BYTES(", \"price\": "));
        rpc_text_append_json_string(kwargs, line->price);
        rpc_text_append(kwargs, RPC_BYTES(", \"quantity\": "));
        rpc_text_append_integer(kwargs, line->quantity);
        rpc_text_append(kwargs, RPC_BYTES("}"));
    }
    rpc_text_append(kwargs, RPC_BYTES("]}"));
}

/* Call a method of orders that takes the order's lines. */
static void call_with_lines(struct flight *flight, const char *method, enum failure_of of, flight_reply_fn *done)
{
    const struct creating *creating = flight_work(flight);
    struct rpc_text kwargs = {0};

    order_print_kwargs(&kwargs, &creating->order);
    (void)failure_or_call_alone(
        flight, &(struct flight_request){.service = ORDERS, .method = method, .kwargs = &kwargs}, of, done);
    rpc_text_clear(&kwargs);
}

static void answer_created(struct flight *flight, int64_t id)
{
    struct answer *answer = flight_answer(flight);

    answer_begin(answer);
    rpc_text_append(answer_body(answer), RPC_BYTES("{\"id\": "));
    rpc_text_append_integer(answer_body(answer), id);
    rpc_text_append(answer_body(answer), RPC_BYTES("}"));
    answer_end(answer, 200);
    flight_done(flight);
}

/* What orders says of the key.  False when it said something else. */
static bool answered_for_key(struct flight *flight, enum rpc_status status, const struct rpc_reply *reply)
{
    if (failure_is(status, reply, ORDERS, "IdempotencyKeyReused")) {
        flight_error(flight, 422, "IDEMPOTENCY_KEY_REUSED",
                     RPC_BYTES("The Idempotency-Key belongs to another request."));
        return true;
    }
    if (failure_is(status, reply, ORDERS, "IdempotencyKeyInUse")) {
        flight_answer(flight)->retry_after = true;
        flight_error(flight, 409, "IDEMPOTENCY_KEY_IN_USE",
                     RPC_BYTES("A request with this Idempotency-Key is still under way."));
        return true;
    }
    return false;
}

static void create_on_created(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    int64_t id;

    (void)slot;
    if (answered_for_key(flight, status, reply))
        return;
    if (status != RPC_OK)
        failure_answer(flight, FAILURE_OF_CHANGE, ORDERS, status, reply);
    else if (order_text_check(reply->result, &id))
        answer_created(flight, id);
    else
        failure_answer_nonsense(flight, FAILURE_OF_CHANGE, ORDERS);
}

static void recall_on_order(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    int64_t id;

    (void)slot;
    if (answered_for_key(flight, status, reply))
        return;
    if (failure_is_nameko(status, reply, "MethodNotFound")) /* Python's knows no keys */
        answer_product_not_found(flight);
    else if (status != RPC_OK)
        failure_answer(flight, FAILURE_OF_PREPARE, ORDERS, status, reply);
    else if (rpc_bytes_equal(reply->result, "null"))
        answer_product_not_found(flight);
    else if (order_text_check(reply->result, &id))
        answer_created(flight, id);
    else
        failure_answer_nonsense(flight, FAILURE_OF_PREPARE, ORDERS);
}

/*
 * A product does not exist, so no order is made.  But the same request may have made one when the product was still
 * there, and then its answer is due again.
 */
static void create_without_product(struct flight *flight)
{
    const struct creating *creating = flight_work(flight);

    if (creating->has_key)
        call_with_lines(flight, "recall_order", FAILURE_OF_PREPARE, recall_on_order);
    else
        answer_product_not_found(flight);
}

static void create_on_existence(struct flight *flight, size_t slot, enum rpc_status status,
                                const struct rpc_reply *reply)
{
    struct creating *creating = flight_work(flight);

    if (status != RPC_OK) {
        failure_answer(flight, FAILURE_OF_PREPARE, PRODUCTS, status, reply);
        return;
    }
    if (rpc_bytes_equal(reply->result, "true")) {
        creating->exist[slot] = EXISTENCE_YES;
    } else if (rpc_bytes_equal(reply->result, "false")) {
        creating->exist[slot] = EXISTENCE_NO;
    } else {
        failure_answer_nonsense(flight, FAILURE_OF_PREPARE, PRODUCTS);
        return;
    }
    /* Of several that do not exist the first one is named, so wait for those before it. */
    while (creating->known < creating->products.count && creating->exist[creating->known] == EXISTENCE_YES)
        creating->known++;
    if (creating->known == creating->products.count)
        call_with_lines(flight, "create_order", FAILURE_OF_CHANGE, create_on_created);
    else if (creating->exist[creating->known] == EXISTENCE_NO)
        create_without_product(flight);
}

/* Which products the order is about, and that nothing is known of them yet.  False when out of memory. */
static bool create_find_products(struct creating *creating)
{
    const struct order *order = &creating->order;

    if (!distinct_init(&creating->products, order->lines_count))
        return false;
    for (size_t i = 0; i < order->lines_count; i++)
        (void)distinct_add(&creating->products, order->lines[i].product_id);
    creating->exist = calloc(creating->products.count, sizeof(*creating->exist));
    return creating->exist != NULL;
}

/* The texts as JSON strings, which lie one behind the other in `room`.  False when out of memory. */
static bool quote_all(struct rpc_bytes quoted[], struct rpc_text *room, const struct rpc_bytes texts[], size_t count)
{
    const char *at;

    for (size_t i = 0; i < count; i++) {
        size_t before = room->size;

        rpc_text_append_json_string(room, texts[i]);
        quoted[i].size = room->size - before;
    }
    if (room->failed)
        return false;
    at = room->data;
    for (size_t i = 0; i < count; i++) { /* only now, when it does not move any more */
        quoted[i].data = at;
        at += quoted[i].size;
    }
    return true;
}

static void create_ask_products(struct flight *flight)
{
    struct creating *creating = flight_work(flight);
    struct rpc_bytes *quoted = NULL;
    struct rpc_text room = {0};

    if (create_find_products(creating))
        quoted = calloc(creating->products.count, sizeof(*quoted));
    if (quoted != NULL && quote_all(quoted, &room, creating->products.items, creating->products.count))
        ask_products(flight, "exists", quoted, creating->products.count, FAILURE_OF_PREPARE, create_on_existence);
    else
        failure_answer(flight, FAILURE_OF_PREPARE, PRODUCTS, RPC_NO_MEMORY, NULL);
    free(quoted);
    rpc_text_clear(&room);
}

/* Any key of printable ASCII is a key.  False when the flight was answered. */
static bool create_take_key(struct flight *flight, struct creating *creating)
{
    struct rpc_bytes key = flight_key(flight);
    bool sound = key.size >= 1 && key.size <= ORDERS_KEY_MAX;

    if (key.data == NULL)
        return true;
    for (size_t i = 0; sound && i < key.size; i++)
        sound = key.data[i] >= ' ' && key.data[i] <= '~';
    if (!sound) {
        flight_error(flight, 400, "VALIDATION_ERROR",
                     RPC_BYTES("Idempotency-Key: Must be 1 to 255 characters of printable ASCII."));
        return false;
    }
    creating->has_key = true;
    if (flight_context_set(flight, "idempotency_key", key))
        return true;
    failure_answer(flight, FAILURE_OF_PREPARE, ORDERS, RPC_NO_MEMORY, NULL);
    return false;
}

/* The lines of the order that the client asks for.  False when the flight was answered. */
static bool create_take_order(struct flight *flight, struct creating *creating)
{
    json_t *json = failure_or_json(flight), *errors = NULL;
    enum order_status status = ORDER_INVALID;

    if (json == NULL)
        return false;
    if (json_is_object(json))
        status = order_read_new(&creating->order, json_object_get(json, "order_details"), &errors);
    else
        errors = order_error("_schema", "Invalid input type.");
    json_decref(json);
    switch (status) {
    case ORDER_OK:
        return true;
    case ORDER_INVALID:
        failure_answer_invalid(flight, errors);
        break;
    case ORDER_NO_MEMORY:
        failure_answer(flight, FAILURE_OF_PREPARE, ORDERS, RPC_NO_MEMORY, NULL);
        break;
    }
    return false;
}

void orders_create(struct flight *flight)
{
    struct creating *creating;

    if (!has_room_or_answer(flight, ORDERS, FAILURE_OF_PREPARE))
        return;
    creating = calloc(1, sizeof(*creating));
    if (creating == NULL) {
        failure_answer(flight, FAILURE_OF_PREPARE, ORDERS, RPC_NO_MEMORY, NULL);
        return;
    }
    flight_keep(flight, creating, creating_free);
    if (create_take_order(flight, creating) && create_take_key(flight, creating))
        create_ask_products(flight);
}

/* ---- GET /orders: list_orders -> answer, or -> does another one follow? -> answer --------------------------------- */

struct listing {
    bool paged;           /* the client asked for a page */
    bool whole;           /* the service knows no pages: it was asked for all orders */
    int64_t after, limit; /* the page; 0 and ORDERS_LIST_MAX where the client did not say */
    int64_t asked;        /* how many orders the service may answer with */
    int64_t last_id;
};

/* The answer's body is there. */
static void list_answer(struct flight *flight, bool more)
{
    const struct listing *listing = flight_work(flight);
    struct answer *answer = flight_answer(flight);

    if (more)
        snprintf(answer->link, sizeof(answer->link), "</orders?after=%lld&limit=%lld>; rel=\"next\"",
                 (long long)listing->last_id, (long long)listing->limit);
    answer_end(answer, 200);
    flight_done(flight);
}

struct list_request {
    bool all; /* without parameters: a Python service knows none */
    int64_t after, limit;
};

static void list_call(struct flight *flight, struct list_request request, flight_reply_fn *done)
{
    struct rpc_text kwargs = {0};

    rpc_text_append(&kwargs, RPC_BYTES("{"));
    if (!request.all) {
        rpc_text_append(&kwargs, RPC_BYTES("\"after\": "));
        rpc_text_append_integer(&kwargs, request.after);
        rpc_text_append(&kwargs, RPC_BYTES(", \"limit\": "));
        rpc_text_append_integer(&kwargs, request.limit);
    }
    rpc_text_append(&kwargs, RPC_BYTES("}"));
    (void)failure_or_call_alone(flight,
                                &(struct flight_request){.service = ORDERS, .method = "list_orders", .kwargs = &kwargs},
                                FAILURE_OF_READ, done);
    rpc_text_clear(&kwargs);
}

/* Append the page that the list has, as page_append() does.  False when the flight was answered. */
static bool list_cut(struct flight *flight, struct rpc_text *out, struct rpc_bytes list, int64_t after, int64_t limit,
                     struct page_cut *cut)
{
    switch (page_append(out, list, after, (size_t)limit, cut)) {
    case PAGE_OK:
        return true;
    case PAGE_NONSENSE:
        failure_answer_nonsense(flight, FAILURE_OF_READ, ORDERS);
        break;
    case PAGE_NO_MEMORY:
        failure_answer(flight, FAILURE_OF_READ, ORDERS, RPC_NO_MEMORY, NULL);
        break;
    }
    return false;
}

/* Whether there is another order behind the last one; what it says of itself is not for this answer. */
static void list_take_rest(struct flight *flight, struct rpc_bytes list)
{
    const struct listing *listing = flight_work(flight);
    struct rpc_text rest = {0};
    struct page_cut cut = {.count = 0};

    if (list_cut(flight, &rest, list, listing->last_id, 1, &cut))
        list_answer(flight, cut.count > 0);
    rpc_text_clear(&rest);
}

static void list_on_rest(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    (void)slot;
    if (failure_is_nameko(status, reply, "IncorrectSignature")) /* it had answered with all it has */
        list_answer(flight, false);
    else if (status != RPC_OK)
        failure_answer(flight, FAILURE_OF_READ, ORDERS, status, reply);
    else
        list_take_rest(flight, reply->result);
}

/* As many orders as one answer may have: only a question tells whether there are more. */
static void list_ask_for_rest(struct flight *flight)
{
    const struct listing *listing = flight_work(flight);

    list_call(flight, (struct list_request){.after = listing->last_id, .limit = 1}, list_on_rest);
}

static void list_take(struct flight *flight, struct rpc_bytes list)
{
    struct listing *listing = flight_work(flight);
    struct answer *answer = flight_answer(flight);
    struct page_cut cut = {.count = 0};

    answer_begin(answer);
    if (!list_cut(flight, answer_body(answer), list, listing->after, listing->limit, &cut))
        return;
    listing->last_id = cut.last_id;
    if (!cut.more && !listing->whole && (int64_t)cut.count == listing->asked)
        list_ask_for_rest(flight);
    else
        list_answer(flight, cut.more);
}

static void list_on_orders(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    struct listing *listing = flight_work(flight);

    (void)slot;
    if (listing->paged && !listing->whole && failure_is_nameko(status, reply, "IncorrectSignature")) {
        listing->whole = true;
        list_call(flight, (struct list_request){.all = true}, list_on_orders);
    } else if (status != RPC_OK) {
        failure_answer(flight, FAILURE_OF_READ, ORDERS, status, reply);
    } else {
        list_take(flight, reply->result);
    }
}

/* False when the flight was answered. */
static bool list_take_query(struct flight *flight, struct listing *listing)
{
    struct rpc_bytes query = flight_query(flight);
    enum target_parameter after = target_integer(query, "after", &listing->after);
    enum target_parameter limit = target_integer(query, "limit", &listing->limit);

    if (after == TARGET_INVALID || limit == TARGET_INVALID) {
        flight_error(flight, 400, "VALIDATION_ERROR",
                     after == TARGET_INVALID ? RPC_BYTES("after: Not a valid integer.")
                                             : RPC_BYTES("limit: Not a valid integer."));
        return false;
    }
    if (listing->limit < 1 || listing->limit > ORDERS_LIST_MAX) {
        flight_error(flight, 400, "VALIDATION_ERROR",
                     RPC_BYTES("limit: Must be greater than or equal to 1 and less than or equal to 10000."));
        return false;
    }
    if (listing->after > ORDER_ID_MAX)
        listing->after = ORDER_ID_MAX; /* behind the last id there can be */
    listing->paged = after == TARGET_INTEGER || limit == TARGET_INTEGER;
    return true;
}

_Static_assert(ORDERS_LIST_MAX == 10000, "the message says so");

/* One order more than the page has tells whether another page follows. */
static void list_ask(struct flight *flight, struct listing *listing)
{
    listing->asked = listing->limit < ORDERS_LIST_MAX ? listing->limit + 1 : ORDERS_LIST_MAX;
    list_call(flight, (struct list_request){.all = !listing->paged, .after = listing->after, .limit = listing->asked},
              list_on_orders);
}

void orders_list(struct flight *flight)
{
    struct listing *listing = calloc(1, sizeof(*listing));

    if (listing == NULL) {
        failure_answer(flight, FAILURE_OF_READ, ORDERS, RPC_NO_MEMORY, NULL);
        return;
    }
    listing->limit = ORDERS_LIST_MAX;
    flight_keep(flight, listing, free);
    if (list_take_query(flight, listing))
        list_ask(flight, listing);
}
