/*
 * peer: an HTTP client's connection, between its socket and Kore.
 *
 * It reads the socket through the guard, one request at a time, and when one is complete hands Kore a request of our own
 * making in its place: the same line each time.  So Kore's parser never sees a byte that a client wrote, each request
 * becomes one http_request of Kore's, and nothing is read from the connection until that has been answered: pipelined
 * requests are answered in their order, each with its own answer.
 *
 * Every stage but the flight has a deadline of its own, and a client that reads slowly holds one answer at most.
 */
#ifndef KORE_GATEWAY_PEER_H
#define KORE_GATEWAY_PEER_H

#include "answer.h"
#include "guard.h"
#include "route.h"

#define PEER_HEAD_TIMEOUT_MS  10000 /* from connecting, or a request's first byte, to the end of its head */
#define PEER_BODY_TIMEOUT_MS  60000 /* from there to the end of its body */
#define PEER_SEND_TIMEOUT_MS  60000 /* an answer's first byte to its last */
#define PEER_IDLE_TIMEOUT_MS  20000 /* between two requests */
#define PEER_CLOSE_TIMEOUT_MS 2000  /* for a client to take its last answer, once we have said that we are done */

#define PEER_INPUT_SIZE_MAX  (64u * 1024 * 1024)  /* bytes of requests being read, of all connections together */
#define PEER_OUTPUT_SIZE_MAX (256u * 1024 * 1024) /* bytes of answers not yet sent, of all connections together */

struct connection; /* Kore's */
struct peer;
struct flight;

/* Take over a connection that Kore has accepted on one of our ports. */
void peer_connect(struct connection *connection, enum route_port port);
/* On which of them. */
enum route_port peer_port(const struct peer *peer);

/* The request that is being answered.  Its bytes lie in `peer_input()`; both are lent until peer_answer(). */
const struct guard_request *peer_request(const struct peer *peer);
const char *peer_input(const struct peer *peer);

/* The flight that will answer; it is told by flight_abandon() when the client goes away before. */
void peer_set_flight(struct peer *peer, struct flight *flight);

/* Whether an answer of this size can be kept for as long as its client takes to read it. */
bool peer_has_room(size_t size);

/* Send the answer to the request; takes the answer's memory.  Then the next request is read. */
void peer_answer(struct peer *peer, struct answer *answer);

/* The connection that Kore's request came on; NULL when it has gone. */
struct peer *peer_of(const struct connection *connection);

/* Once a worker, before the first connection. */
void peers_start(void);

/* Close the connection that has been idle for longest, to make room for another.  False when none is idle. */
bool peers_evict(void);

/*
 * From now on every answer is its connection's last.  peers_count() connections are left; peers_close_idle() closes
 * those that are between two requests.
 */
void peers_drain(void);
void peers_close_idle(void);
unsigned peers_count(void);

#endif
