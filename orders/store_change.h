/* store_change: orders changed and deleted, once for each request. */
#ifndef ORDERS_STORE_CHANGE_H
#define ORDERS_STORE_CHANGE_H

#include "work.h"

extern const struct work_operation store_update, store_delete, store_recall_deletion;

#endif
