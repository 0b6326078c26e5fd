/*
 * answer: one HTTP response in one piece of memory, ready for one write.
 *
 *     answer_begin(&answer);
 *     rpc_text_append(answer_body(&answer), product);
 *     answer_end(&answer, 200);
 *
 * The head is written in front of the body when the response leaves; the body never moves.
 */
#ifndef KORE_GATEWAY_ANSWER_H
#define KORE_GATEWAY_ANSWER_H

#include <rpclib/text.h>

#define ANSWER_LINK_SIZE     96
#define ANSWER_RETRY_AFTER_S 1 /* what a client is told when a bound was reached */

struct answer {           /* all zero: none yet */
    struct rpc_text text; /* room for the head, then the body */
    int status;           /* 0: not complete yet */
    bool retry_after;
    bool of_change; /* a service was asked to change something: who loses the answer does not know whether it did */
    const char *content_type;    /* static; NULL: application/json */
    const char *allow;           /* the Allow header's value; static; may be NULL */
    char link[ANSWER_LINK_SIZE]; /* the Link header's value; "" when there is none */
};

/* How the response leaves. */
struct answer_sending {
    bool without_body;   /* HEAD: all of it but the body itself */
    bool close;          /* the connection ends behind it */
    bool say_keep_alive; /* an HTTP/1.0 client has to be told */
    int64_t now_s;       /* for the Date header */
};

void answer_begin(struct answer *answer);
static inline struct rpc_text *answer_body(struct answer *answer)
{
    return &answer->text;
}

/*
 * It is complete.  Where memory ran out while it was written, it becomes one that says so: 504 when it is the answer to a change,
 * else 503, for nothing was done.
 */
void answer_end(struct answer *answer, int status);

/* A whole answer in the shape of errors; what was begun before is dropped. */
void answer_error(struct answer *answer, int status, const char *code, struct rpc_bytes message);

/*
 * Write the head of a complete answer.  `wire` gets the response's bytes, which lie within `answer->text`.  False when there was
 * no memory even to say that there is none.
 */
bool answer_finish(struct answer *answer, const struct answer_sending *sending, struct rpc_bytes *wire);

void answer_clear(struct answer *answer);

#endif
