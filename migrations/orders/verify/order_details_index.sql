-- Verify orders:order_details_index on pg

DO $verify$
BEGIN
    IF NOT EXISTS (SELECT
                     FROM pg_index i
                     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = 'order_details'::regclass AND i.indisvalid AND i.indpred IS NULL
                      AND a.attname = 'order_id') THEN
        RAISE EXCEPTION 'order_details has no index on order_id';
    END IF;
END
$verify$;
