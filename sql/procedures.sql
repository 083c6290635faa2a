-- Procedures that COMMIT. In plpgsql, around the function that SQL editors call step by step, so that both ways are the same
-- code and nothing here needs to be trusted with memory. A procedure that commits can have no SET clause: every name is
-- qualified, and there is no operator.

CREATE PROCEDURE finalize_backfill(
  table_name   text,
  column_name  text,
  lock_timeout interval DEFAULT '2s',
  not_null     boolean DEFAULT true,
  parent       text DEFAULT NULL,
  on_delete    text DEFAULT 'no action',
  composite    boolean DEFAULT NULL,
  root         text DEFAULT NULL,
  INOUT result text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
  done record;
  ran  integer := 0;
BEGIN
  PERFORM mend.outside_transaction_block('finalize_backfill');
  -- Where it cannot be done (in a function, under an EXCEPTION), it fails before anything was.
  COMMIT;
  LOOP
    SELECT * INTO done
    FROM @extschema@.finalize_backfill_step(table_name, column_name, lock_timeout, not_null, parent, on_delete, composite, root);
    EXIT WHEN done.step IS NULL;
    COMMIT;
    ran := ran OPERATOR(pg_catalog.+) 1;
    RAISE NOTICE 'step % done: %', done.step, done.statement;
  END LOOP;
  result := pg_catalog.format('%s of %s steps are done, %s of them now; %s', done.steps_done, done.steps, ran, done.next);
END
$$;
