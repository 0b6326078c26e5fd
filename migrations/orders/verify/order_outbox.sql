-- Verify orders:order_outbox on pg

SELECT id, created_at, event_type, payload, headers, claimed_until FROM order_outbox WHERE false;
