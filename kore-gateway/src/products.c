#include "products.h"

#include <rpclib/json.h>
#include <rpclib/percent.h>
#include <rpclib/utf8.h>
#include <stdlib.h>

#include "failure.h"
#include "product.h"
#include "product_text.h"
#include "target.h"

#define SERVICE "products"

/* --- the id in the path --- */

enum id_status {
    ID_OK,
    ID_IMPOSSIBLE, /* no product can have it */
    ID_MALFORMED,
};

/* The id lies in the target or, where that is percent-encoded, in `room`. */
static enum id_status id_read(const struct flight *flight, char room[GUARD_TARGET_SIZE_MAX], struct rpc_bytes *id)
{
    *id = flight_segment(flight);
    if (memchr(id->data, '%', id->size) == NULL) /* printable ASCII: the guard takes nothing else */
        return id->size <= PRODUCT_ID_SIZE_MAX ? ID_OK : ID_IMPOSSIBLE;
    if (!rpc_percent_decode(*id, room, &id->size))
        return ID_MALFORMED;
    id->data = room;
    if (product_id_is_valid(*id))
        return ID_OK;
    return rpc_utf8_check(*id) ? ID_IMPOSSIBLE : ID_MALFORMED;
}

static void answer_malformed(struct flight *flight)
{
    flight_error(flight, 400, "BAD_REQUEST", RPC_BYTES("The id must be UTF-8 without NUL, percent-encoded."));
}

/* Call `method` with the product's id alone. */
static void call_with_id(struct flight *flight, const char *method, struct rpc_bytes id, enum failure_of of,
                         flight_reply_fn *done)
{
    struct rpc_text kwargs = {0};

    rpc_text_append(&kwargs, RPC_BYTES("{\"product_id\": "));
    rpc_text_append_json_string(&kwargs, id);
    rpc_text_append(&kwargs, RPC_BYTES("}"));
    (void)failure_or_call_alone(
        flight, &(struct flight_request){.service = SERVICE, .method = method, .kwargs = &kwargs}, of, done);
    rpc_text_clear(&kwargs);
}

/* --- GET --- */

static void answer_not_found(struct flight *flight)
{
    char memory[GUARD_TARGET_SIZE_MAX];
    struct rpc_text message = {0};
    struct rpc_bytes id = {NULL, 0};

    (void)id_read(flight, memory, &id);
    rpc_text_append(&message, RPC_BYTES("Product ID "));
    rpc_text_append(&message, id);
    rpc_text_append(&message, RPC_BYTES(" does not exist"));
    if (message.failed)
        failure_answer(flight, FAILURE_OF_READ, SERVICE, RPC_NO_MEMORY, NULL);
    else
        flight_error(flight, 404, "PRODUCT_NOT_FOUND", rpc_text_bytes(&message));
    rpc_text_clear(&message);
}

/* Whether it is that of the product in the path; `id` is a JSON string. */
static bool is_asked_for(const struct flight *flight, struct rpc_bytes id)
{
    char memory[GUARD_TARGET_SIZE_MAX];
    struct rpc_bytes asked;

    return id_read(flight, memory, &asked) == ID_OK && rpc_json_string_spells(id, asked);
}

static void get_on_product(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    struct answer *answer = flight_answer(flight);
    struct product_text product;

    (void)slot;
    if (failure_is(status, reply, SERVICE, "NotFound")) {
        answer_not_found(flight);
    } else if (status != RPC_OK) {
        failure_answer(flight, FAILURE_OF_READ, SERVICE, status, reply);
    } else if (!product_text_open(&product, reply->result) || !is_asked_for(flight, product_text_id(&product))) {
        failure_answer_nonsense(flight, FAILURE_OF_READ, SERVICE);
    } else {
        answer_begin(answer);
        product_text_append(answer_body(answer), &product);
        answer_end(answer, 200);
        flight_done(flight);
    }
}

void products_get(struct flight *flight)
{
    char memory[GUARD_TARGET_SIZE_MAX];
    struct rpc_bytes id;

    switch (id_read(flight, memory, &id)) {
    case ID_OK:
        call_with_id(flight, "get", id, FAILURE_OF_READ, get_on_product);
        break;
    case ID_IMPOSSIBLE:
        answer_not_found(flight);
        break;
    case ID_MALFORMED:
        answer_malformed(flight);
        break;
    }
}

/* --- DELETE --- */

static void answer_deleted(struct flight *flight)
{
    answer_begin(flight_answer(flight));
    answer_end(flight_answer(flight), 204);
    flight_done(flight);
}

static void delete_on_deleted(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    (void)slot;
    /* A service that calls this an error means the same: it is not there. */
    if (status == RPC_OK || failure_is(status, reply, SERVICE, "NotFound"))
        answer_deleted(flight);
    else
        failure_answer(flight, FAILURE_OF_CHANGE, SERVICE, status, reply);
}

void products_delete(struct flight *flight)
{
    char memory[GUARD_TARGET_SIZE_MAX];
    struct rpc_bytes id;

    switch (id_read(flight, memory, &id)) {
    case ID_OK:
        call_with_id(flight, "delete", id, FAILURE_OF_CHANGE, delete_on_deleted);
        break;
    case ID_IMPOSSIBLE:
        answer_deleted(flight);
        break;
    case ID_MALFORMED:
        answer_malformed(flight);
        break;
    }
}

/* --- POST --- */

static void free_json(void *json)
{
    json_decref(json);
}

static void create_on_created(struct flight *flight, size_t slot, enum rpc_status status, const struct rpc_reply *reply)
{
    const json_t *id = json_object_get(flight_work(flight), product_field_names[PRODUCT_ID]);
    struct answer *answer = flight_answer(flight);

    (void)slot;
    if (status != RPC_OK) {
        failure_answer(flight, FAILURE_OF_CHANGE, SERVICE, status, reply);
        return;
    }
    answer_begin(answer);
    rpc_text_append(answer_body(answer), RPC_BYTES("{\"id\": "));
    rpc_text_append_json_string(answer_body(answer), rpc_json_text(id));
    rpc_text_append(answer_body(answer), RPC_BYTES("}"));
    answer_end(answer, 200);
    flight_done(flight);
}

static void print_text_field(struct rpc_text *out, enum product_field field, struct rpc_bytes value)
{
    rpc_text_append(out, field == PRODUCT_ID ? RPC_BYTES("") : RPC_BYTES(", "));
    rpc_text_append_json_string(out, rpc_bytes_of(product_field_names[field]));
    rpc_text_append(out, RPC_BYTES(": "));
    rpc_text_append_json_string(out, value);
}

static void print_integer_field(struct rpc_text *out, enum product_field field, int64_t value)
{
    rpc_text_append(out, RPC_BYTES(", "));
    rpc_text_append_json_string(out, rpc_bytes_of(product_field_names[field]));
    rpc_text_append(out, RPC_BYTES(": "));
    rpc_text_append_integer(out, value);
}

/* Only what a product has: nothing else of the client's reaches the service, be it C or Python. */
static void product_print_kwargs(struct rpc_text *kwargs, const struct product *product)
{
    rpc_text_append(kwargs, RPC_BYTES("{\"product\": {"));
    print_text_field(kwargs, PRODUCT_ID, product->id);
    print_text_field(kwargs, PRODUCT_TITLE, product->title);
    print_integer_field(kwargs, PRODUCT_PASSENGER_CAPACITY, product->passenger_capacity);
    print_integer_field(kwargs, PRODUCT_MAXIMUM_SPEED, product->maximum_speed);
    print_integer_field(kwargs, PRODUCT_IN_STOCK, product->in_stock);
    rpc_text_append(kwargs, RPC_BYTES("}}"));
}

static void create_call(struct flight *flight, const struct product *product)
{
    struct rpc_text kwargs = {0};

    product_print_kwargs(&kwargs, product);
    (void)failure_or_call_alone(flight,
                                &(struct flight_request){.service = SERVICE, .method = "create", .kwargs = &kwargs},
                                FAILURE_OF_CHANGE, create_on_created);
    rpc_text_clear(&kwargs);
}

void products_create(struct flight *flight)
{
    json_t *json = failure_or_json(flight), *messages = NULL;
    struct product product;

    if (json == NULL)
        return;
    flight_keep(flight, json, free_json);
    if (product_from_json(&product, json, &messages))
        create_call(flight, &product);
    else
        failure_answer_invalid(flight, messages);
}
