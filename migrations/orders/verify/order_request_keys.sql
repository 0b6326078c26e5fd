-- Verify orders:order_request_keys on pg

SELECT request_id, order_id, line_ids, created_at FROM order_requests WHERE false;
SELECT idempotency_key, request_hash, order_id, line_ids, created_at FROM order_idempotency WHERE false;
SELECT 'ix_order_requests_created_at'::regclass, 'ix_order_idempotency_created_at'::regclass;
