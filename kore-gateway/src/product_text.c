#include "product_text.h"

#include "printed.h"

/* ---- As our own service prints it, which is how nearly all come -------------------------------------------------- */

/* False when it is none, or stands in any other form. */
static bool read_as_printed(struct product_text *product)
{
    const char *at = product->text.data, *end = at + product->text.size;
    struct rpc_bytes *fields = product->fields;

    return printed_label(&at, end, RPC_BYTES(PRODUCT_LABEL_ID)) && printed_string(&at, end, &fields[PRODUCT_ID]) &&
           printed_label(&at, end, RPC_BYTES(PRODUCT_LABEL_TITLE)) &&
           printed_string(&at, end, &fields[PRODUCT_TITLE]) &&
           printed_label(&at, end, RPC_BYTES(PRODUCT_LABEL_PASSENGER_CAPACITY)) &&
           printed_integer(&at, end, &fields[PRODUCT_PASSENGER_CAPACITY]) &&
           printed_label(&at, end, RPC_BYTES(PRODUCT_LABEL_MAXIMUM_SPEED)) &&
           printed_integer(&at, end, &fields[PRODUCT_MAXIMUM_SPEED]) &&
           printed_label(&at, end, RPC_BYTES(PRODUCT_LABEL_IN_STOCK)) &&
           printed_integer(&at, end, &fields[PRODUCT_IN_STOCK]) && printed_label(&at, end, RPC_BYTES("}")) && at == end;
}

/* ---- In any form ------------------------------------------------------------------------------------------------- */

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
    return walk_members(text, PRODUCT_FIELDS, product_field_names, out->fields, &out->says_more) &&
           fields_are_sound(out->fields);
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
