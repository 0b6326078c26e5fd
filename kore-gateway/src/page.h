/*
 * page: a part of the list of orders, cut out of what a service answered.  Pure.
 *
 * A C service is asked for the page; a Python one knows no pages and answers with all orders, in any order.  Either way
 * the client gets the same page, of orders that were looked at as order_text.h has it.
 */
#ifndef KORE_GATEWAY_PAGE_H
#define KORE_GATEWAY_PAGE_H

#include <stdint.h>

#include <rpclib/text.h>

enum page_status {
    PAGE_OK,
    PAGE_NONSENSE, /* no array of orders */
    PAGE_NO_MEMORY,
};

struct page_cut {
    size_t count;    /* orders in the page */
    bool more;       /* orders were left out behind it */
    int64_t last_id; /* of the last order; with count > 0 */
};

/*
 * Append the JSON array of the first `limit` orders of `list` whose ids are greater than `after`, by id, in the form of our own
 * service.  `list` must be sound JSON.  *cut is set on success alone; nothing is appended otherwise.
 */
enum page_status page_append(struct rpc_text *out, struct rpc_bytes list, int64_t after, size_t limit,
                             struct page_cut *cut);

#endif
