-- Revert orders:order_details_index from pg

BEGIN;

SET LOCAL lock_timeout = '10s';
DROP INDEX IF EXISTS ix_order_details_order_id;

COMMIT;
