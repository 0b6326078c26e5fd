#include "price.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpclib/json.h"

#define UNITS_MAX      (PRICE_CENTS_MAX / 100)
#define UNITS_LIMIT    1e16   /* the first double that is too large */
#define EXACT_LIMIT    0x1p46 /* from here on doubles lie more than a cent apart */
#define DECIMAL_PLACES 2

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* `text` without a sign. */
static enum price_status parse_unsigned(int64_t *out, struct rpc_bytes text)
{
    const char *at = text.data, *end = text.data + text.size, *point;
    int64_t units = 0, cents = 0;
    bool too_large = false;

    if (text.size == 0 || !is_digit(*at))
        return PRICE_NOT_DECIMAL;
    for (; at < end && is_digit(*at); at++) {
        units = units * 10 + (*at - '0');
        if (units > UNITS_MAX) { /* go on: what follows may make it no decimal at all */
            too_large = true;
            units = UNITS_MAX;
        }
    }
    if (at < end) {
        if (*at++ != '.' || at == end)
            return PRICE_NOT_DECIMAL;
        for (point = at; at < end && is_digit(*at); at++)
            if (at - point < DECIMAL_PLACES)
                cents = cents * 10 + (*at - '0');
        if (at < end)
            return PRICE_NOT_DECIMAL;
        if (at - point > DECIMAL_PLACES)
            return PRICE_TOO_PRECISE;
        if (at - point == 1)
            cents *= 10;
    }
    if (too_large)
        return PRICE_TOO_LARGE;
    *out = units * 100 + cents;
    return PRICE_OK;
}

enum price_status price_parse(int64_t *out, struct rpc_bytes text)
{
    int64_t ignored;
    enum price_status status;

    if (text.size == 0 || text.data[0] != '-')
        return parse_unsigned(out, text);
    status = parse_unsigned(&ignored, (struct rpc_bytes){.data = text.data + 1, .size = text.size - 1});
    return status == PRICE_NOT_DECIMAL ? PRICE_NOT_DECIMAL : PRICE_NEGATIVE;
}

static enum price_status read_integer(int64_t *out, int64_t units)
{
    if (units < 0)
        return PRICE_NEGATIVE;
    if (units > UNITS_MAX)
        return PRICE_TOO_LARGE;
    *out = units * 100;
    return PRICE_OK;
}

/* "%.2f" prints the nearest value of two places from the double's exact one; reading that back must give the double. */
static enum price_status read_real(int64_t *out, double number)
{
    char nearest[32];
    int size;

    if (!isfinite(number))
        return PRICE_NOT_DECIMAL;
    if (number < 0)
        return PRICE_NEGATIVE;
    if (number >= UNITS_LIMIT)
        return PRICE_TOO_LARGE;
    if (number >= EXACT_LIMIT)
        return PRICE_INEXACT;
    size = snprintf(nearest, sizeof(nearest), "%.2f", fabs(number)); /* fabs: -0.0 is 0 */
    if (strtod(nearest, NULL) != number)
        return PRICE_TOO_PRECISE;
    return parse_unsigned(out, (struct rpc_bytes){.data = nearest, .size = (size_t)size});
}

enum price_status price_read(int64_t *out, const json_t *value)
{
    if (json_is_string(value))
        return price_parse(out, rpc_json_text(value));
    if (json_is_integer(value))
        return read_integer(out, json_integer_value(value));
    if (json_is_real(value))
        return read_real(out, json_real_value(value));
    return PRICE_NOT_DECIMAL;
}

size_t price_print(char out[PRICE_TEXT_SIZE], int64_t price_cents)
{
    assert(price_cents >= 0 && price_cents <= PRICE_CENTS_MAX);
    return (size_t)snprintf(out, PRICE_TEXT_SIZE, "%" PRId64 ".%02d", price_cents / 100, (int)(price_cents % 100));
}
