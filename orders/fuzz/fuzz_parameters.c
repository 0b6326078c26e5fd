/*
 * parameters: the values of a statement, and those of a row.  What is added lies in the order, width and byte order that
 * PostgreSQL reads, told by a harness that writes it a second time; and a row's value of any bytes is read within its
 * bounds.
 *
 * The input is a list: a byte that says which function, then its values.  The whole of it is also a row's value.
 */
#include <fuzz.h>

#include "parameters.h"

#define ELEMENTS_MAX 16
#define OUT_SIZE_MAX (1024 * 1024)
#define ARRAY_HEADER 20
#define UNTOUCHED    INT32_C(-77)

/* What must have been written. */
struct expected {
    unsigned char *data;
    size_t size;
    size_t starts[PARAMETERS_MAX];
    int count;
};

static void expect_number(struct expected *expected, uint64_t value, unsigned bytes)
{
    HOLDS(expected->size + bytes <= OUT_SIZE_MAX);
    while (bytes-- > 0)
        expected->data[expected->size++] = (unsigned char)(value >> (8 * bytes));
}

static void expect_bytes(struct expected *expected, struct rpc_bytes bytes)
{
    HOLDS(expected->size + bytes.size <= OUT_SIZE_MAX);
    if (bytes.size > 0)
        memcpy(expected->data + expected->size, bytes.data, bytes.size);
    expected->size += bytes.size;
}

static uint64_t number_next(struct rpc_bytes *input)
{
    uint64_t number = 0;

    for (int i = 0; i < 8; i++)
        number = number << 8 | fuzz_byte(input);
    return number;
}

static void add_element(struct parameters *parameters, struct expected *expected, enum parameters_element element,
                        struct rpc_bytes *input)
{
    uint64_t number;
    struct rpc_bytes text;

    switch (element) {
    case PARAMETERS_INT4:
        number = number_next(input);
        parameters_element_int4(parameters, (int32_t)number);
        expect_number(expected, 4, 4);
        expect_number(expected, number, 4);
        break;
    case PARAMETERS_INT8:
        number = number_next(input);
        parameters_element_int8(parameters, (int64_t)number);
        expect_number(expected, 8, 4);
        expect_number(expected, number, 8);
        break;
    case PARAMETERS_TEXT:
        text = fuzz_take(input, fuzz_byte(input));
        if (text.data == NULL || text.size == 0)
            text = (struct rpc_bytes){text.size == 0 && input->size % 2 == 0 ? NULL : "", 0};
        parameters_element_text(parameters, text);
        expect_number(expected, text.data == NULL ? UINT32_MAX : text.size, 4);
        expect_bytes(expected, text);
        break;
    }
}

static void add_array(struct parameters *parameters, struct expected *expected, struct rpc_bytes *input)
{
    static const enum parameters_element elements[] = {PARAMETERS_INT4, PARAMETERS_INT8, PARAMETERS_TEXT};
    enum parameters_element element = elements[fuzz_byte(input) % 3];
    size_t count = fuzz_byte(input) % (ELEMENTS_MAX + 1);

    parameters_add_array(parameters, element, count);
    expect_number(expected, count > 0, 4);
    expect_number(expected, 1, 4);
    expect_number(expected, element, 4);
    if (count > 0) {
        expect_number(expected, count, 4);
        expect_number(expected, 1, 4);
    }
    for (size_t i = 0; i < count; i++)
        add_element(parameters, expected, element, input);
}

static void add(struct parameters *parameters, struct expected *expected, struct rpc_bytes *input)
{
    struct rpc_bytes text;
    uint64_t number;

    expected->starts[expected->count++] = expected->size;
    switch (fuzz_byte(input) % 4) {
    case 0:
        number = number_next(input);
        parameters_add_int4(parameters, (int32_t)number);
        expect_number(expected, number, 4);
        break;
    case 1:
        number = number_next(input);
        parameters_add_int8(parameters, (int64_t)number);
        expect_number(expected, number, 8);
        break;
    case 2:
        text = fuzz_take(input, fuzz_byte(input));
        parameters_add_text(parameters, text);
        expect_bytes(expected, text);
        break;
    case 3:
        add_array(parameters, expected, input);
        break;
    }
}

static void check_parameters(struct rpc_bytes input)
{
    static unsigned char room[OUT_SIZE_MAX];
    struct expected expected = {.data = room};
    struct parameters parameters = {.count = 0};

    parameters_reset(&parameters);
    while (input.size > 0 && expected.count < PARAMETERS_MAX)
        add(&parameters, &expected, &input);
    HOLDS(!parameters.bytes.failed && parameters.count == expected.count);
    HOLDS(parameters.bytes.size == expected.size);
    HOLDS(expected.size == 0 || memcmp(parameters.bytes.data, expected.data, expected.size) == 0);
    for (int i = 0; i < expected.count; i++)
        HOLDS(parameters.starts[i] == expected.starts[i]);
    parameters_clear(&parameters);
}

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

struct taken {
    int32_t values[256];
    size_t count;
};

static void take(size_t index, int32_t value, void *arg)
{
    struct taken *taken = arg;

    HOLDS(index == taken->count && index < sizeof(taken->values) / sizeof(taken->values[0]));
    taken->values[taken->count++] = value;
}

static PGresult *row_of(struct rpc_bytes value)
{
    PGresAttDesc column = {.name = (char[]){"value"}, .format = 1, .typlen = -1};
    PGresult *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);

    HOLDS(rows != NULL && PQsetResultAttrs(rows, 1, &column));
    HOLDS(PQsetvalue(rows, 0, 0, (char *)(uintptr_t)value.data, value.data == NULL ? -1 : (int)value.size));
    return rows;
}

static uint32_t big_endian(const char *at)
{
    const unsigned char *bytes = (const unsigned char *)at;

    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void check_row(struct rpc_bytes value, size_t count)
{
    PGresult *rows = row_of(value);
    struct taken taken = {.count = 0};
    struct rpc_bytes text = row_text(rows, 0, 0);

    HOLDS(fuzz_equal(text, value) && (text.data == NULL) == (value.data == NULL));
    HOLDS(row_int4(rows, 0, 0) == (value.size == 4 ? (int32_t)big_endian(value.data) : 0));
    HOLDS(value.size == 8 || row_int8(rows, 0, 0) == 0);
    if (row_int4_array(rows, 0, 0, take, count, &taken)) {
        HOLDS(taken.count == count && value.size == ARRAY_HEADER + 8 * count);
        for (size_t i = 0; i < count; i++)
            HOLDS(big_endian(value.data + ARRAY_HEADER + 8 * i) == 4 &&
                  taken.values[i] == (int32_t)big_endian(value.data + ARRAY_HEADER + 8 * i + 4));
    } else {
        HOLDS(taken.count <= count);
    }
    PQclear(rows);
}

/* What is added as an array is read as the same. */
static void check_round_trip(struct rpc_bytes input)
{
    struct parameters parameters = {.count = 0};
    struct taken taken = {.count = 0};
    size_t count = input.size / 4 < ELEMENTS_MAX ? input.size / 4 : ELEMENTS_MAX;
    PGresult *rows;

    if (count == 0)
        return; /* an empty array has no room for a length */
    parameters_add_array(&parameters, PARAMETERS_INT4, count);
    for (size_t i = 0; i < count; i++)
        parameters_element_int4(&parameters, (int32_t)big_endian(input.data + 4 * i));
    rows = row_of(rpc_text_bytes(&parameters.bytes));
    HOLDS(row_int4_array(rows, 0, 0, take, count, &taken) && taken.count == count);
    for (size_t i = 0; i < count; i++)
        HOLDS(taken.values[i] == (int32_t)big_endian(input.data + 4 * i));
    PQclear(rows);
    parameters_clear(&parameters);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_bytes input = fuzz_bytes(data, size);

    check_parameters(input);
    check_round_trip(input);
    check_row(input, size > ARRAY_HEADER ? (size - ARRAY_HEADER) / 8 % 250 : 0);
    check_row(input, size % 7);
    return 0;
}
