/*
 * What jansson 2.14 cannot lose: its lexer goes on when a text it collects cannot grow, and reads behind its end.  The
 * growing is a function of its own, so in a program that is linked with jansson's static library it is spared by name.
 */
#include "torture.h"

int __real_strbuffer_append_bytes(void *buffer, const char *data, size_t size);
int __wrap_strbuffer_append_bytes(void *buffer, const char *data, size_t size);
int __wrap_strbuffer_append_byte(void *buffer, char byte);

int __wrap_strbuffer_append_bytes(void *buffer, const char *data, size_t size)
{
    int result;

    torture_spare(true);
    result = __real_strbuffer_append_bytes(buffer, data, size);
    torture_spare(false);
    return result;
}

int __wrap_strbuffer_append_byte(void *buffer, char byte)
{
    return __wrap_strbuffer_append_bytes(buffer, &byte, 1);
}
