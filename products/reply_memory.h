/*
 * reply_memory: hiredis' reply objects without a malloc() a piece.
 *
 * A reader builds one reply at a time and lets go of it before the next, so all pieces of a reply come out of one run of
 * memory that starts again with each.  A product's five fields would otherwise cost a dozen allocations.
 */
#ifndef PRODUCTS_REPLY_MEMORY_H
#define PRODUCTS_REPLY_MEMORY_H

#include <hiredis/read.h>

struct reply_memory;

struct reply_memory *reply_memory_new(void); /* NULL when out of memory */

/* Have `reader` build its replies there.  It must go before the memory does. */
void reply_memory_serve(struct reply_memory *memory, redisReader *reader);

void reply_memory_free(struct reply_memory *memory); /* NULL is fine */

#endif
