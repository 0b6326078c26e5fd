-- Deploy orders:order_request_keys to pg
--
-- Written in the transaction of the order that they name: a hash of the message that asked for it (a broker may deliver
-- one twice), and the Idempotency-Key of the client, with a hash of the body that came with it.  No foreign
-- key to orders: a deleted order must not be made anew by a repeated request, and keys go by age, found by created_at.

BEGIN;

CREATE TABLE order_requests (
    request_id text PRIMARY KEY,
    order_id integer NOT NULL,
    line_ids integer[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_order_requests_created_at ON order_requests (created_at);

CREATE TABLE order_idempotency (
    idempotency_key text PRIMARY KEY,
    request_hash text NOT NULL,
    order_id integer NOT NULL,
    line_ids integer[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_order_idempotency_created_at ON order_idempotency (created_at);

COMMENT ON TABLE order_requests IS 'Requests that made an order, by a hash of correlation id and body; kept for a time, then deleted';
COMMENT ON TABLE order_idempotency IS 'Idempotency keys of clients; kept for IDEMPOTENCY_TTL_S, then deleted';
COMMENT ON COLUMN order_requests.line_ids IS
    'The ids of the order''s lines in the order of the request: with the request itself they make its answer again';
COMMENT ON COLUMN order_idempotency.line_ids IS
    'The ids of the order''s lines in the order of the request: with the request itself they make its answer again';

COMMIT;
