/* store_create: orders made, each once, with its lines, its event and the key of its request. */
#ifndef ORDERS_STORE_CREATE_H
#define ORDERS_STORE_CREATE_H

#include "work.h"

extern const struct work_operation store_create_by_request, store_create_by_key, store_recall;

#endif
