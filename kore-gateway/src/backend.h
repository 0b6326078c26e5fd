/*
 * backend: a service that the gateway calls, and how many calls of it may be under way (limit.h).  One line of the log tells of
 * a time in which calls are refused, however many they are.
 */
#ifndef KORE_GATEWAY_BACKEND_H
#define KORE_GATEWAY_BACKEND_H

#include "limit.h"

struct backend;

/* Once a worker: a call may wait for a service that is slow for as long as `wait_ms`. */
void backends_start(uint32_t wait_ms, uint64_t now_ms);

/* By its name, which must be that of a service that we call. */
struct backend *backend_of(const char *name);

/* Whether backend_enter() would be true now. */
bool backend_has_room(struct backend *backend, uint64_t now_ms);
/* A call wants to begin; each true needs one backend_leave(), false refuses it. */
bool backend_enter(struct backend *backend, uint64_t now_ms);
void backend_leave(struct backend *backend, enum limit_end end, uint64_t now_ms, uint64_t began_ms);

/* Whether a refusal begins a time of refusals; `refused_ms` is when the last one was, 0 before the first. */
bool backend_refusals_begin(uint64_t *refused_ms, uint64_t now_ms);

#endif
