/*
 * For builds with the address sanitizer alone: two pools that Kore loses stay in sight, so that they are no leak.
 *
 * Kore starts its first worker, then makes two pools for its parent, by the same functions that make a worker's.  A worker
 * that is started again inherits the parent's, and its own are made over them.  No suppression could name that one leak:
 * these functions end in jumps, so none of them is in the stack of the allocation, only what every stack of a worker has.
 */
#include <kore/kore.h>

#include <pthread.h>

extern struct kore_pool connection_pool; /* Kore exports it, but declares nb_pool alone */

static struct kore_pool inherited[2] __attribute__((used));

/* In the child, before it makes its own.  The first worker finds nothing here yet. */
static void keep_inherited(void)
{
    inherited[0] = nb_pool;
    inherited[1] = connection_pool;
}

__attribute__((constructor)) static void watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, keep_inherited);
}
