/*
 * reply_memory: hiredis' reply objects without a malloc() a piece.
 *
 * A reader builds one reply at a time and lets go of it before the next, so all pieces of a reply come out of one run of
 * memory that starts again with each.  A product's five fields would otherwise cost a dozen allocations.
 */
#ifndef PRODUCTS_REPLY_MEMORY_H
#define PRODUCTS_REPLY_MEMORY_H

#include <hiredis/read.h>
#include <stdbool.h>

struct reply_memory;

struct reply_memory *reply_memory_new(void); /* NULL when out of memory */

/*
 * Have `reader` build its replies there.  It must go before the memory does.  `awaited`, unless it is NULL, says whether
 * anybody waits for the reply that begins; one that nobody waits for fails the reader, unless it is an error.  (hiredis
 * would hand it out, and its asynchronous half end the process by an assertion.)
 */
typedef bool reply_memory_awaited_fn(void *arg);
void reply_memory_serve(struct reply_memory *memory, redisReader *reader, reply_memory_awaited_fn *awaited, void *arg);

void reply_memory_free(struct reply_memory *memory); /* NULL is fine */

#endif
