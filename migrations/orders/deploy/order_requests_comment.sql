-- Deploy orders:order_requests_comment to pg
--
-- The table began with the requests that make an order; those that change or delete one came later.

BEGIN;

COMMENT ON TABLE order_requests IS
    'Requests that made, changed or deleted an order, so that one that comes again is not carried out again. Deleted 24 hours after created_at';
COMMENT ON COLUMN order_requests.request_id IS 'A hash of the request''s correlation id and of what it asks for';
COMMENT ON COLUMN order_requests.order_id IS 'The order that it made, changed or deleted; it may be gone';
COMMENT ON COLUMN order_requests.line_ids IS
    'Of a request that made an order: the ids of its lines in the order of the request, which with the request itself make its answer again. Else empty';

COMMIT;
