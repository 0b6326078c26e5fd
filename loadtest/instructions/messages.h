/* messages: what travels between gateway, products and orders, as it looks on the wire. */
#ifndef LOADTEST_INSTRUCTIONS_MESSAGES_H
#define LOADTEST_INSTRUCTIONS_MESSAGES_H

#include <amqp.h>
#include <amqp_framing.h>

#define MESSAGES_PRODUCT_ID "bench-000000000777"
#define MESSAGES_PRODUCT                                                                                              \
    "{\"id\":\"" MESSAGES_PRODUCT_ID "\",\"title\":\"Airship 000000000777 of the fleet\",\"passenger_capacity\":101," \
    "\"maximum_speed\":5,\"in_stock\":1000000000000}"
#define MESSAGES_PRODUCT_ANSWER "{\"result\":" MESSAGES_PRODUCT ",\"error\":null}"
#define MESSAGES_GET_REQUEST    "{\"args\":[\"bench-000000000777\"],\"kwargs\":{}}"
#define MESSAGES_NEW_LINES      "[{\"product_id\":\"bench-000000000777\",\"price\":\"100000.99\",\"quantity\":1}]"
#define MESSAGES_ORDER_CREATED                                                                     \
    "{\"order\":{\"id\":777,\"order_details\":[{\"id\":777,\"product_id\":\"bench-000000000777\"," \
    "\"price\":\"100000.99\",\"quantity\":1}]}}"

/* A request's, as the gateway sends it.  They live for the program's life. */
static inline amqp_basic_properties_t messages_request_properties(void)
{
    static amqp_field_value_t stack[2];
    static amqp_table_entry_t headers[1];

    for (int i = 0; i < 2; i++)
        stack[i].kind = AMQP_FIELD_KIND_UTF8;
    stack[0].value.bytes = amqp_cstring_bytes("gateway.products_get.c5bdf360-a569-4749-8552-0bb1d1aa3b43");
    stack[1].value.bytes = amqp_cstring_bytes("products.get.baf1a07e-95da-4a7d-a9f6-99de7ec00cce");
    headers[0].key = amqp_cstring_bytes("nameko.call_id_stack");
    headers[0].value.kind = AMQP_FIELD_KIND_ARRAY;
    headers[0].value.value.array = (amqp_array_t){2, stack};
    return (amqp_basic_properties_t){
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_HEADERS_FLAG |
                  AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG |
                  AMQP_BASIC_EXPIRATION_FLAG,
        .content_type = amqp_cstring_bytes("application/json"),
        .content_encoding = amqp_cstring_bytes("utf-8"),
        .headers = {1, headers},
        .delivery_mode = 1,
        .correlation_id = amqp_cstring_bytes("0f0e6c52-8c0e-4b0a-9d77-6a7a2e32ef46"),
        .reply_to = amqp_cstring_bytes("7d6cc5f3-a76c-4ee2-b22a-c80c6d47ea43"),
        .expiration = amqp_cstring_bytes("10000"),
    };
}

static inline amqp_basic_properties_t messages_answer_properties(amqp_bytes_t correlation_id)
{
    return (amqp_basic_properties_t){
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                  AMQP_BASIC_CORRELATION_ID_FLAG,
        .content_type = amqp_cstring_bytes("application/json"),
        .content_encoding = amqp_cstring_bytes("utf-8"),
        .delivery_mode = 1,
        .correlation_id = correlation_id,
    };
}

#endif
