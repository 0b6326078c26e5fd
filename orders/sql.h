/* sql: pieces that several statements share. */
#ifndef ORDERS_SQL_H
#define ORDERS_SQL_H

/* As the Python service writes its times: UTC, without a zone. */
#define UTC_NOW "timezone('utc', now())"

/* Where losing the last commits in a crash does no harm (an event is published again), nobody waits for the disk. */
#define WITHOUT_WAITING "(SELECT set_config('synchronous_commit', 'off', true) OFFSET 0) AS without_waiting"

#endif
