#include "parameters.h"

#include <assert.h>
#include <endian.h>

#define BINARY            1
#define ARRAY_HEADER_SIZE 20 /* dimensions, has nulls, element's oid, length, lower bound: four bytes each */

void parameters_reset(struct parameters *parameters)
{
    rpc_text_reset(&parameters->bytes, PARAMETERS_KEEP_SIZE);
    parameters->count = 0;
}

void parameters_clear(struct parameters *parameters)
{
    rpc_text_clear(&parameters->bytes);
    parameters->count = 0;
}

static void append_int4(struct parameters *parameters, int32_t value)
{
    uint32_t big_endian = htobe32((uint32_t)value);

    rpc_text_append(&parameters->bytes,
                    (struct rpc_bytes){.data = (const char *)&big_endian, .size = sizeof(big_endian)});
}

static void append_int8(struct parameters *parameters, int64_t value)
{
    uint64_t big_endian = htobe64((uint64_t)value);

    rpc_text_append(&parameters->bytes,
                    (struct rpc_bytes){.data = (const char *)&big_endian, .size = sizeof(big_endian)});
}

static void parameters_next(struct parameters *parameters)
{
    assert(parameters->count < PARAMETERS_MAX);
    parameters->starts[parameters->count++] = parameters->bytes.size;
}

void parameters_add_int4(struct parameters *parameters, int32_t value)
{
    parameters_next(parameters);
    append_int4(parameters, value);
}

void parameters_add_int8(struct parameters *parameters, int64_t value)
{
    parameters_next(parameters);
    append_int8(parameters, value);
}

void parameters_add_text(struct parameters *parameters, struct rpc_bytes value)
{
    parameters_next(parameters);
    (void)rpc_text_reserve(&parameters->bytes, value.size); /* an empty one has a place too: NULL would be SQL's null */
    rpc_text_append(&parameters->bytes, value);
}

void parameters_add_array(struct parameters *parameters, enum parameters_element element, size_t count)
{
    parameters_next(parameters);
    append_int4(parameters, count == 0 ? 0 : 1);
    append_int4(parameters, 1); /* may hold nulls: the server looks for itself */
    append_int4(parameters, (int32_t)element);
    if (count == 0)
        return;
    append_int4(parameters, (int32_t)count);
    append_int4(parameters, 1);
}

void parameters_element_int4(struct parameters *parameters, int32_t value)
{
    append_int4(parameters, sizeof(value));
    append_int4(parameters, value);
}

void parameters_element_int8(struct parameters *parameters, int64_t value)
{
    append_int4(parameters, sizeof(value));
    append_int8(parameters, value);
}

void parameters_element_text(struct parameters *parameters, struct rpc_bytes value)
{
    append_int4(parameters, value.data == NULL ? -1 : (int32_t)value.size);
    rpc_text_append(&parameters->bytes, value);
}

bool parameters_send(const struct parameters *parameters, PGconn *db, const char *statement)
{
    const char *values[PARAMETERS_MAX];
    int sizes[PARAMETERS_MAX], formats[PARAMETERS_MAX], index;

    if (parameters->bytes.failed || parameters->bytes.size > INT32_MAX)
        return false;
    for (index = 0; index < parameters->count; index++) {
        size_t end = index + 1 < parameters->count ? parameters->starts[index + 1] : parameters->bytes.size;

        values[index] = parameters->bytes.data + parameters->starts[index];
        sizes[index] = (int)(end - parameters->starts[index]);
        formats[index] = BINARY;
    }
    return PQsendQueryPrepared(db, statement, parameters->count, values, sizes, formats, BINARY) != 0;
}

static int32_t read_int4(const char *at)
{
    uint32_t big_endian;

    memcpy(&big_endian, at, sizeof(big_endian));
    return (int32_t)be32toh(big_endian);
}

int32_t row_int4(const PGresult *rows, int row, int column)
{
    return PQgetlength(rows, row, column) == sizeof(int32_t) ? read_int4(PQgetvalue(rows, row, column)) : 0;
}

int64_t row_int8(const PGresult *rows, int row, int column)
{
    uint64_t big_endian;

    if (PQgetlength(rows, row, column) != sizeof(big_endian))
        return 0;
    memcpy(&big_endian, PQgetvalue(rows, row, column), sizeof(big_endian));
    return (int64_t)be64toh(big_endian);
}

struct rpc_bytes row_text(const PGresult *rows, int row, int column)
{
    if (row_is_null(rows, row, column))
        return (struct rpc_bytes){.data = NULL, .size = 0};
    return (struct rpc_bytes){.data = PQgetvalue(rows, row, column), .size = (size_t)PQgetlength(rows, row, column)};
}

bool row_int4_array(const PGresult *rows, int row, int column, void (*take)(size_t index, int32_t value, void *arg),
                    size_t count, void *arg)
{
    struct rpc_bytes array = row_text(rows, row, column);
    size_t index;

    if (array.data == NULL || array.size != ARRAY_HEADER_SIZE + count * 2 * sizeof(int32_t))
        return false;
    for (index = 0; index < count; index++) {
        const char *element = array.data + ARRAY_HEADER_SIZE + index * 2 * sizeof(int32_t);

        if (read_int4(element) != sizeof(int32_t))
            return false;
        take(index, read_int4(element + sizeof(int32_t)), arg);
    }
    return true;
}
