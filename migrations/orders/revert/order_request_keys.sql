-- Revert orders:order_request_keys from pg

BEGIN;

DROP TABLE order_idempotency;
DROP TABLE order_requests;

COMMIT;
