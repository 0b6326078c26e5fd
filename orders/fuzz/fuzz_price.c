/*
 * price: against an oracle that shares no code with it: digits are counted in strings, and a double is compared exactly,
 * in integers of 128 bits.
 *
 * The first byte says what the rest is: text, the eight bytes of a double, or those of an integer.
 */
#include <fuzz.h>
#include <inttypes.h>
#include <math.h>

#include "rpclib/json.h"

#include "price.h"

#define UNTOUCHED    INT64_C(-77)
#define EXACT_DIGITS 15 /* a double tells decimals of so many digits apart */
#define UNITS_DIGITS 16 /* of the largest price */
#define NUMBER_SIZE  64
#define PRICE_LIMIT  10000000000000000.0

enum form { FORM_TEXT, FORM_REAL, FORM_INTEGER, FORMS };

/* ---- The oracle -------------------------------------------------------------------------------------------------- */

static size_t digits_at(struct rpc_bytes text, size_t at)
{
    size_t count = 0;

    while (at + count < text.size && text.data[at + count] >= '0' && text.data[at + count] <= '9')
        count++;
    return count;
}

static enum price_status text_oracle(int64_t *out, struct rpc_bytes text)
{
    bool negative = text.size > 0 && text.data[0] == '-';
    size_t start = negative ? 1 : 0, units = digits_at(text, start), places = 0, zeros = 0;
    __int128 cents = 0;

    if (units == 0)
        return PRICE_NOT_DECIMAL;
    if (start + units < text.size) {
        if (text.data[start + units] != '.')
            return PRICE_NOT_DECIMAL;
        places = digits_at(text, start + units + 1);
        if (places == 0 || start + units + 1 + places != text.size)
            return PRICE_NOT_DECIMAL;
    }
    if (negative)
        return PRICE_NEGATIVE;
    if (places > 2)
        return PRICE_TOO_PRECISE;
    while (zeros < units && text.data[zeros] == '0')
        zeros++;
    if (units - zeros > UNITS_DIGITS)
        return PRICE_TOO_LARGE;
    for (size_t i = zeros; i < text.size; i++)
        if (text.data[i] != '.')
            cents = cents * 10 + (text.data[i] - '0');
    for (; places < 2; places++)
        cents *= 10;
    *out = (int64_t)cents;
    return PRICE_OK;
}

/* Whether the double mantissa * 2^exponent is the nearest one to cents / 100.  Both are within 128 bits when scaled. */
static bool is_nearest(__int128 mantissa, int exponent, __int128 cents)
{
    __int128 difference, half = 100; /* half a step, in units of 2^(exponent - 1) / 100 */

    mantissa *= 200;
    cents *= 2;
    if (exponent < 0)
        cents <<= -exponent;
    else
        mantissa <<= exponent, half <<= exponent;
    difference = cents - mantissa;
    if (difference < 0 && mantissa == (__int128)200 << 52)
        half /= 2; /* below a power of two the steps are half as wide */
    if (difference < 0)
        difference = -difference;
    return difference < half || (difference == half && (mantissa / 200) % 2 == 0);
}

/* What `number`, 0 <= number < 10^16, is worth: the cents nearest to it, if that is the double they make. */
static enum price_status real_oracle(int64_t *out, double number)
{
    int exponent;
    __int128 mantissa = (__int128)ldexp(frexp(number, &exponent), 53), scaled, unit, cents, rest;

    exponent -= 53;
    if (number == 0) {
        *out = 0;
        return PRICE_OK;
    }
    if (exponent < -62) /* below 2^-9: less than half a cent, so the nearest are none */
        return PRICE_TOO_PRECISE;
    scaled = mantissa * 100;
    if (exponent >= 0) {
        *out = (int64_t)(scaled << exponent);
        return PRICE_OK;
    }
    unit = (__int128)1 << -exponent;
    cents = scaled / unit;
    rest = scaled % unit;
    if (rest * 2 > unit || (rest * 2 == unit && cents % 2 == 1))
        cents++;
    if (!is_nearest(mantissa, exponent, cents))
        return PRICE_TOO_PRECISE;
    if (cents > PRICE_CENTS_MAX)
        return PRICE_TOO_LARGE;
    *out = (int64_t)cents;
    return PRICE_OK;
}

/* ---- The properties ---------------------------------------------------------------------------------------------- */

static void agrees(enum price_status status, int64_t cents, enum price_status expected, int64_t expected_cents)
{
    HOLDS(status == expected);
    HOLDS(cents == (expected == PRICE_OK ? expected_cents : UNTOUCHED));
    HOLDS(status != PRICE_OK || (cents >= 0 && cents <= PRICE_CENTS_MAX));
}

static void round_trips(int64_t cents)
{
    char text[PRICE_TEXT_SIZE];
    size_t size = price_print(text, cents);
    int64_t again = UNTOUCHED;

    HOLDS(size >= 4 && size < PRICE_TEXT_SIZE && text[size] == '\0' && text[size - 3] == '.');
    HOLDS(price_parse(&again, (struct rpc_bytes){text, size}) == PRICE_OK && again == cents);
}

static void check_value(json_t *value, enum price_status expected, int64_t expected_cents)
{
    int64_t cents = UNTOUCHED;
    enum price_status status;

    HOLDS(value != NULL);
    status = price_read(&cents, value);
    agrees(status, cents, expected, expected_cents);
    json_decref(value);
}

/* A number in JSON is worth what its digits are, as long as a double can tell them. */
static void check_spelling(struct rpc_bytes text, enum price_status expected, int64_t expected_cents)
{
    char reason[RPC_JSON_REASON_SIZE];
    json_t *number = rpc_json_load(text, reason);

    if (json_is_number(number) && text.size <= EXACT_DIGITS && (expected == PRICE_OK || expected == PRICE_TOO_LARGE))
        check_value(json_incref(number), expected, expected_cents);
    json_decref(number);
}

static void check_text(struct rpc_bytes text)
{
    int64_t cents = UNTOUCHED, expected_cents = UNTOUCHED;
    enum price_status expected = text_oracle(&expected_cents, text), status = price_parse(&cents, text);

    agrees(status, cents, expected, expected_cents);
    if (expected == PRICE_OK)
        round_trips(cents);
    if (fuzz_is_utf8(text))
        check_value(json_stringn(text.data != NULL ? text.data : "", text.size), expected, expected_cents);
    check_spelling(text, expected, expected_cents);
}

static void check_real(double number)
{
    int64_t cents = UNTOUCHED;
    enum price_status expected;

    if (!isfinite(number))
        return; /* JSON has none of these */
    if (number < 0)
        expected = PRICE_NEGATIVE;
    else if (number >= PRICE_LIMIT)
        expected = PRICE_TOO_LARGE;
    else if (number >= ldexp(1, 46))
        expected = PRICE_INEXACT; /* spacing 2^-6, more than 0.01 */
    else
        expected = real_oracle(&cents, number);
    check_value(json_real(number), expected, cents);
}

static void check_integer(int64_t number)
{
    bool too_large = number > PRICE_CENTS_MAX / 100;

    check_value(json_integer(number),
                number < 0  ? PRICE_NEGATIVE
                : too_large ? PRICE_TOO_LARGE
                            : PRICE_OK,
                number < 0 || too_large ? 0 : number * 100);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size);
    enum form form = (enum form)(fuzz_byte(&input) % FORMS);
    double real = 0;
    int64_t integer = 0;
    char *text;

    switch (form) {
    case FORM_TEXT:
        text = fuzz_exact(input);
        check_text((struct rpc_bytes){text, input.size});
        free(text);
        break;
    case FORM_REAL:
        if (input.size >= sizeof(real))
            memcpy(&real, input.data, sizeof(real));
        check_real(real);
        /* doubles that are prices are rare: make one of the same bytes */
        memcpy(&integer, &real, sizeof(integer));
        check_real((double)(integer & PRICE_CENTS_MAX) / 100);
        break;
    case FORM_INTEGER:
        if (input.size >= sizeof(integer))
            memcpy(&integer, input.data, sizeof(integer));
        check_integer(integer);
        break;
    case FORMS:
        break;
    }
    return 0;
}
