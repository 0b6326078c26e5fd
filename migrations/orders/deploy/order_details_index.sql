-- Deploy orders:order_details_index to pg
--
-- The Python service's tables lack it: each order read all lines of all orders.  Building it lets reads through and makes
-- writes wait, about a second for a million lines.  (Not CONCURRENTLY: that waits for every open transaction, and so
-- for a second deployment, which in turn waits for this one.)

BEGIN;

-- Behind a transaction that does not end, this would make all other writers wait as well; better to fail and be repeated.
SET LOCAL lock_timeout = '10s';

DO $index$
BEGIN
    IF NOT EXISTS (SELECT
                     FROM pg_index i
                     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = 'order_details'::regclass AND i.indisvalid AND i.indpred IS NULL
                      AND a.attname = 'order_id') THEN
        CREATE INDEX ix_order_details_order_id ON order_details (order_id);
    END IF;
END
$index$;

COMMIT;
