#include "story.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void story_tell(char story[STORY_SIZE], const char *format, ...)
{
    size_t used = strlen(story);
    va_list arguments;

    if (used > 0 && used + 3 < STORY_SIZE)
        used += (size_t)snprintf(story + used, STORY_SIZE - used, "; ");
    va_start(arguments, format);
    vsnprintf(story + used, STORY_SIZE - used, format, arguments);
    va_end(arguments);
}

void story_compare(char story[STORY_SIZE], const char *expected, const char *what, int line)
{
    if (strcmp(story, expected) != 0)
        fail_msg("line %d: %s\n  \"%s\"\n  not \"%s\"", line, what, story, expected);
    story[0] = '\0';
}
