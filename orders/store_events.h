/* store_events: the outbox' rows: claimed, released, deleted. */
#ifndef ORDERS_STORE_EVENTS_H
#define ORDERS_STORE_EVENTS_H

#include "work.h"

extern const struct work_operation store_claim_events, store_release_events, store_delete_events;

#endif
