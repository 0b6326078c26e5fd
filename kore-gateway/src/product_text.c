#include "product_text.h"

#include "walk.h"

#define DIGITS_SAFE 18 /* every int64 has room for as many */

/* ---- As our own service prints it, which is how nearly all come: no key to look for, no space to skip ------------- */

static bool take_label(const char **at, const char *end, struct rpc_bytes label)
{
    if ((size_t)(end - *at) < label.size || memcmp(*at, label.data, label.size) != 0)
        return false;
    *at += label.size;
    return true;
}

static bool take_string(const char **at, const char *end, struct rpc_bytes *value)
{
    const char *stop;

    if (*at == end || **at != '"')
        return false;
    stop = walk_skip(*at, end);
    *value = (struct rpc_bytes){*at, (size_t)(stop - *at)};
    *at = stop;
    return true;
}

/* One that fits for certain. */
static bool take_integer(const char **at, const char *end, struct rpc_bytes *value)
{
    const char *digits = *at + (*at < end && **at == '-'), *stop = digits;

    while (stop < end && (unsigned char)(*stop - '0') <= 9)
        stop++;
    if (stop == digits || stop - digits > DIGITS_SAFE)
        return false;
    *value = (struct rpc_bytes){*at, (size_t)(stop - *at)};
    *at = stop;
    return true;
}

/* False when it is none, or stands in any other form. */
static bool read_as_printed(struct product_text *product)
{
    const char *at = product->text.data, *end = at + product->text.size;
    struct rpc_bytes *fields = product->fields;

    return take_label(&at, end, RPC_BYTES(PRODUCT_LABEL_ID)) && take_string(&at, end, &fields[PRODUCT_ID]) &&
           take_label(&at, end, RPC_BYTES(PRODUCT_LABEL_TITLE)) && take_string(&at, end, &fields[PRODUCT_TITLE]) &&
           take_label(&at, end, RPC_BYTES(PRODUCT_LABEL_PASSENGER_CAPACITY)) &&
           take_integer(&at, end, &fields[PRODUCT_PASSENGER_CAPACITY]) &&
           take_label(&at, end, RPC_BYTES(PRODUCT_LABEL_MAXIMUM_SPEED)) &&
           take_integer(&at, end, &fields[PRODUCT_MAXIMUM_SPEED]) &&
           take_label(&at, end, RPC_BYTES(PRODUCT_LABEL_IN_STOCK)) &&
           take_integer(&at, end, &fields[PRODUCT_IN_STOCK]) && take_label(&at, end, RPC_BYTES("}")) && at == end;
}

/* ---- In any form ------------------------------------------------------------------------------------------------- */

static int field_of(struct rpc_bytes key)
{
    int field = 0;

    while (field < PRODUCT_FIELDS && !rpc_bytes_equal(key, product_field_names[field]))
        field++;
    return field;
}

/* False when it is no object, or has a field twice: two readers could take it for two products. */
static bool find_fields(struct product_text *product)
{
    struct rpc_bytes key = {NULL, 0}, value;
    struct walk walk;

    if (!walk_object(&walk, product->text))
        return false;
    while (walk_next(&walk, &key, &value)) {
        int field = field_of(key);

        if (field == PRODUCT_FIELDS)
            product->says_more = true;
        else if (product->fields[field].data != NULL)
            return false;
        else
            product->fields[field] = value;
    }
    return true;
}

static bool fields_are_sound(const struct rpc_bytes fields[PRODUCT_FIELDS])
{
    int64_t integer;

    return walk_is_string(fields[PRODUCT_ID]) && walk_is_string(fields[PRODUCT_TITLE]) &&
           walk_integer(fields[PRODUCT_PASSENGER_CAPACITY], &integer) &&
           walk_integer(fields[PRODUCT_MAXIMUM_SPEED], &integer) && walk_integer(fields[PRODUCT_IN_STOCK], &integer);
}

_Static_assert(PRODUCT_FIELDS == 5, "each of them is looked at, twice above");

bool product_text_open(struct product_text *out, struct rpc_bytes text)
{
    *out = (struct product_text){.text = text};
    if (text.size > 0 && read_as_printed(out))
        return true;
    *out = (struct product_text){.text = text};
    return find_fields(out) && fields_are_sound(out->fields);
}

void product_text_append(struct rpc_text *out, const struct product_text *product)
{
    if (!product->says_more) {
        rpc_text_append(out, product->text);
        return;
    }
    for (int field = 0; field < PRODUCT_FIELDS; field++) {
        rpc_text_append(out, product_labels[field]);
        rpc_text_append(out, product->fields[field]);
    }
    rpc_text_append(out, RPC_BYTES("}"));
}
