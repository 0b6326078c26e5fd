-- Revert orders:order_requests_comment from pg

BEGIN;

COMMENT ON TABLE order_requests IS 'Requests that made an order, by a hash of correlation id and body; kept for a time, then deleted';
COMMENT ON COLUMN order_requests.request_id IS NULL;
COMMENT ON COLUMN order_requests.order_id IS NULL;
COMMENT ON COLUMN order_requests.line_ids IS
    'The ids of the order''s lines in the order of the request: with the request itself they make its answer again';

COMMIT;
