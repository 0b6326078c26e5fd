#include "trace.h"

#define PARENT_SIZE 55 /* bytes of a version 00 traceparent */

static bool is_hex(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((text[i] < '0' || text[i] > '9') && (text[i] < 'a' || text[i] > 'f'))
            return false;
    }
    return true;
}

static bool is_zero(const char *text, size_t size)
{
    while (size > 0 && text[size - 1] == '0')
        size--;
    return size == 0;
}

/* version "-" trace id "-" parent id "-" flags; a later version may say more behind them. */
bool trace_parent_is_sound(struct rpc_bytes text)
{
    return text.size >= PARENT_SIZE && is_hex(text.data, 2) && memcmp(text.data, "ff", 2) != 0 && text.data[2] == '-' &&
           is_hex(text.data + 3, 32) && !is_zero(text.data + 3, 32) && text.data[35] == '-' &&
           is_hex(text.data + 36, 16) && !is_zero(text.data + 36, 16) && text.data[52] == '-' &&
           is_hex(text.data + 53, 2) &&
           (text.size == PARENT_SIZE ||
            (memcmp(text.data, "00", 2) != 0 && text.data[55] == '-' && text.size <= TRACE_SIZE_MAX));
}

bool trace_state_is_sound(struct rpc_bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < ' ' || text.data[i] > '~')
            return false;
    }
    return text.size >= 1 && text.size <= TRACE_SIZE_MAX;
}
