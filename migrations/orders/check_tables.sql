-- Refuses tables `orders` and `order_details` that are not what the services read and write, and changes nothing.
-- With neither of them there it is content.  One message names everything that differs.
DO $check$
DECLARE
    home name := current_schema();
    differences text[];
BEGIN
    IF home IS NULL THEN
        RAISE EXCEPTION 'no schema to look for the tables in: the search_path of % names none that exists', current_user;
    END IF;

    IF to_regclass(format('%I.orders', home)) IS NULL AND to_regclass(format('%I.order_details', home)) IS NULL THEN
        RETURN;
    END IF;

    WITH wanted_table (table_name) AS (
        VALUES ('orders'), ('order_details')
    ), table_here AS (
        SELECT w.table_name, c.oid, c.relkind
          FROM wanted_table w
          LEFT JOIN pg_class c
                 ON c.relname = w.table_name
                AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = home)
    ), wanted_column (table_name, column_name, column_type, key) AS (
        VALUES ('orders', 'id', 'integer', true),
               ('orders', 'created_at', 'timestamp without time zone', false),
               ('orders', 'updated_at', 'timestamp without time zone', false),
               ('order_details', 'id', 'integer', true),
               ('order_details', 'order_id', 'integer', false),
               ('order_details', 'product_id', 'character varying', false),
               ('order_details', 'price', 'numeric(18,2)', false),
               ('order_details', 'quantity', 'integer', false),
               ('order_details', 'created_at', 'timestamp without time zone', false),
               ('order_details', 'updated_at', 'timestamp without time zone', false)
    ), column_here AS (
        SELECT t.table_name, a.attname AS column_name, format_type(a.atttypid, a.atttypmod) AS column_type,
               a.attnotnull AS not_null, a.atthasdef OR a.attidentity <> '' AS fills_itself, t.oid, a.attnum
          FROM table_here t
          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE t.relkind = 'r'
    ), difference (place, what) AS (
        SELECT table_name, 'the table is missing' FROM table_here WHERE oid IS NULL
        UNION ALL
        SELECT table_name, 'it is no ordinary table' FROM table_here WHERE relkind <> 'r'
        UNION ALL
        SELECT w.table_name || '.' || w.column_name, 'the column is missing'
          FROM wanted_column w
          JOIN table_here t ON t.table_name = w.table_name AND t.relkind = 'r'
          LEFT JOIN column_here h ON (h.table_name, h.column_name) = (w.table_name, w.column_name)
         WHERE h.attnum IS NULL
        UNION ALL
        SELECT w.table_name || '.' || w.column_name, 'its type is ' || h.column_type || ', it must be ' || w.column_type
          FROM wanted_column w
          JOIN column_here h ON (h.table_name, h.column_name) = (w.table_name, w.column_name)
         WHERE h.column_type <> w.column_type
        UNION ALL
        SELECT w.table_name || '.' || w.column_name, 'it may be null, it must be NOT NULL'
          FROM wanted_column w
          JOIN column_here h ON (h.table_name, h.column_name) = (w.table_name, w.column_name)
         WHERE NOT h.not_null
        UNION ALL
        SELECT w.table_name || '.' || w.column_name, 'it must get its value by itself, from a sequence or as an identity'
          FROM wanted_column w
          JOIN column_here h ON (h.table_name, h.column_name) = (w.table_name, w.column_name)
         WHERE w.key AND NOT h.fills_itself
        UNION ALL
        SELECT w.table_name || '.' || w.column_name, 'it must own the sequence that fills it (ALTER SEQUENCE ... OWNED BY)'
          FROM wanted_column w
          JOIN column_here h ON (h.table_name, h.column_name) = (w.table_name, w.column_name)
         WHERE w.key AND h.fills_itself
           AND pg_get_serial_sequence(format('%I.%I', home, h.table_name), h.column_name) IS NULL
        UNION ALL
        SELECT w.table_name || '.' || w.column_name, 'it must be the primary key'
          FROM wanted_column w
          JOIN column_here h ON (h.table_name, h.column_name) = (w.table_name, w.column_name)
         WHERE w.key
           AND NOT EXISTS (SELECT FROM pg_constraint k
                            WHERE k.conrelid = h.oid AND k.contype = 'p' AND k.conkey = ARRAY[h.attnum])
        UNION ALL
        SELECT h.table_name || '.' || h.column_name,
               'it is not known here, and no row could be added: it is NOT NULL and has no default'
          FROM column_here h
          LEFT JOIN wanted_column w ON (w.table_name, w.column_name) = (h.table_name, h.column_name)
         WHERE w.column_name IS NULL AND h.not_null AND NOT h.fills_itself
        UNION ALL
        SELECT 'order_details.order_id', 'it must be a foreign key to orders.id'
          FROM column_here h
          JOIN column_here o ON (o.table_name, o.column_name) = ('orders', 'id')
         WHERE (h.table_name, h.column_name) = ('order_details', 'order_id')
           AND NOT EXISTS (SELECT FROM pg_constraint k
                            WHERE k.contype = 'f' AND k.convalidated
                              AND k.conrelid = h.oid AND k.conkey = ARRAY[h.attnum]
                              AND k.confrelid = o.oid AND k.confkey = ARRAY[o.attnum])
    )
    SELECT array_agg(place || ': ' || what ORDER BY place, what) INTO differences FROM difference;

    IF differences IS NOT NULL THEN
        RAISE EXCEPTION 'the tables in schema "%" cannot be adopted: %', home, array_to_string(differences, '; ')
            USING HINT = 'Nothing was changed. Put the tables right, or name another database.';
    END IF;
END
$check$;
