-- Takes away what the present user owns in the schema `public`, and nothing else: not the schema, no extension, no right.
DO $$
DECLARE
  object record;
BEGIN
  FOR object IN
    SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
             AS kind,
           oid::regclass::text AS name
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relowner = current_user::regrole AND relkind IN ('r', 'p', 'v', 'm', 'S')
    -- The sequences of columns go with their tables.
    ORDER BY relkind = 'S'
  LOOP
    EXECUTE format('DROP %s IF EXISTS %s CASCADE', object.kind, object.name);
  END LOOP;
  FOR object IN
    SELECT oid::regprocedure::text AS name FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND proowner = current_user::regrole
  LOOP
    EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', object.name);
  END LOOP;
  FOR object IN
    SELECT oid::regtype::text AS name FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typowner = current_user::regrole AND typtype IN ('e', 'd', 'r')
  LOOP
    EXECUTE format('DROP TYPE IF EXISTS %s CASCADE', object.name);
  END LOOP;
END
$$;
