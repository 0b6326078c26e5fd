-- Verify orders:order_requests_comment on pg

SELECT 1 / (coalesce(obj_description('order_requests'::regclass, 'pg_class'), '') LIKE '%made, changed or deleted%')::int;
