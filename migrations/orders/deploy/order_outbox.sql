-- Deploy orders:order_outbox to pg
--
-- An event is written here in the transaction of its order and leaves when the broker has confirmed it.  Rows come and go
-- at the rate of the orders, so the table is vacuumed by their number, not by its (small) size.

BEGIN;

CREATE TABLE order_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    event_type text NOT NULL,
    payload text NOT NULL,
    headers text,
    claimed_until timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

COMMENT ON TABLE order_outbox IS 'Events of orders that the broker has yet to confirm';
COMMENT ON COLUMN order_outbox.payload IS 'The JSON of the message, byte for byte';
COMMENT ON COLUMN order_outbox.headers IS 'The context headers of the request that caused it, as a JSON object';
COMMENT ON COLUMN order_outbox.claimed_until IS
    'Until then one process is publishing it; who finds it past that may take it over';

COMMIT;
