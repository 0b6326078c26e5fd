/*
 * product: what a product is, the same wherever one comes in: over RPC, over HTTP, out of Redis.
 *
 * Pure rules on values, for the service and the gateway alike; needs jansson and rpclib's values alone.
 */
#ifndef PRODUCTS_PRODUCT_H
#define PRODUCTS_PRODUCT_H

#include <jansson.h>
#include <stdint.h>

#include "rpclib/bytes.h"
#include "rpclib/text.h"

#define PRODUCT_ID_SIZE_MAX 1024 /* bytes */

/* In the order in which they are stored, printed and complained about. */
enum product_field {
    PRODUCT_ID,
    PRODUCT_TITLE,
    PRODUCT_PASSENGER_CAPACITY,
    PRODUCT_MAXIMUM_SPEED,
    PRODUCT_IN_STOCK,
    PRODUCT_FIELDS /* how many there are */
};

extern const char *const product_field_names[PRODUCT_FIELDS];

struct product {
    struct rpc_bytes id, title; /* lent: by whatever the product was read from */
    int64_t passenger_capacity;
    int64_t maximum_speed;
    int64_t in_stock; /* may be negative: sold before it was there */
};

/* Whether a product may have this id: 1 to PRODUCT_ID_SIZE_MAX bytes of UTF-8 without NUL. */
bool product_id_is_valid(struct rpc_bytes id);

/*
 * Read a product from JSON.  On success *out lends from `json`.  Else `*messages` gets a new object that names all that
 * is wrong at once, each field with an array of messages in marshmallow's words (NULL when out of memory), and *out
 * stays as it was.  Fields that no product has are ignored.
 */
bool product_from_json(struct product *out, const json_t *json, json_t **messages);

enum product_integer {
    PRODUCT_INTEGER_OK,
    PRODUCT_INTEGER_NONE,         /* no integer */
    PRODUCT_INTEGER_OUT_OF_RANGE, /* beyond 64 bits */
};

/*
 * An integer as text: a sign or none, then ASCII digits, and nothing else.  Python's int() also takes spaces around it,
 * underscores within it and other alphabets' digits; those are typing errors in a shop, and are refused.
 */
enum product_integer product_integer_read(int64_t *out, struct rpc_bytes text);

enum product_print {
    PRODUCT_PRINT_OK,
    PRODUCT_PRINT_DAMAGED, /* a field is missing, an integer is none, a text is no UTF-8 */
    PRODUCT_PRINT_NO_MEMORY,
};

/* What product_print() writes in front of each field's value; behind the last one, a closing brace. */
#define PRODUCT_LABEL_ID                 "{\"id\":"
#define PRODUCT_LABEL_TITLE              ",\"title\":"
#define PRODUCT_LABEL_PASSENGER_CAPACITY ",\"passenger_capacity\":"
#define PRODUCT_LABEL_MAXIMUM_SPEED      ",\"maximum_speed\":"
#define PRODUCT_LABEL_IN_STOCK           ",\"in_stock\":"

extern const struct rpc_bytes product_labels[PRODUCT_FIELDS];

/*
 * Append the product as a JSON object, from its fields as Redis holds them: text that somebody else may have written,
 * so all of it is checked.  A field that is missing has no data pointer.  Nothing is appended unless PRODUCT_PRINT_OK.
 */
enum product_print product_print(struct rpc_text *out, const struct rpc_bytes fields[PRODUCT_FIELDS]);

#endif
