-- What \df+ shows, who may call, and the one call that lets a role in.

COMMENT ON FUNCTION backfill(text, text, text[], boolean, text, text, boolean, text, text) IS
  'fill one column from its sources (NULL: inferred), or count what that would do (dry_run, the default); every row of the table is counted in exactly one reason';
COMMENT ON FUNCTION backfill(jsonb, boolean) IS
  'the same as backfill(table_name, column_name, ...), the rule as one JSON object: {"table": ..., "column": ..., "sources": [...], ...}';
COMMENT ON FUNCTION backfill_party_ids(text, boolean, text, text, boolean, text, text, boolean, jsonb) IS
  'fill every column that references Party from its legacy contact, organization and user columns, parents first; or count what that would do (dry_run, the default)';
COMMENT ON FUNCTION backfill_parents(text, text, jsonb, jsonb, boolean, text, text, jsonb, text, bigint, text, text) IS
  'link every row to its parent, found by what match says, and create the parents that are missing; or count what that would do (dry_run, the default)';
COMMENT ON FUNCTION backfill_parents(jsonb, boolean) IS
  'the same as backfill_parents(table_name, column_name, ...), the rule as one JSON object: {"table": ..., "column": ..., "match": {...}, ...}';
COMMENT ON FUNCTION backfill_parents_by_tenant(jsonb) IS
  'what backfill_parents with this rule would do, tenant by tenant: scanned, linked, parents found and created, skipped and why';
COMMENT ON FUNCTION backfill_tenant_ids(text, boolean, text, text, text, text, text) IS
  'fill the tenant key of every table along the paths that tenant_columns shows, parents before children; or count what that would do (dry_run, the default)';
COMMENT ON FUNCTION tenant_columns(text) IS
  'the tenant key of every table, told by what it references: how far it is, and the path to its value with all alternatives';
COMMENT ON FUNCTION backfill_coverage(text) IS
  'exactly, for the tenant key of every table: rows, rows where it is set, and rows where it is not what its path says (disagrees)';
COMMENT ON FUNCTION tenant_map(text, text) IS
  'the tables from the tenants downwards as a Mermaid flowchart (mermaid, the default) or as text (tree)';
COMMENT ON FUNCTION dead_columns(text) IS
  'columns that are NULL in every row: with the statement that drops them where nothing uses them, else with what does';
COMMENT ON FUNCTION backfill_unfilled(text, text, text[], text, text, boolean, text, bigint, text) IS
  'the rows that backfill with the same arguments leaves empty: key, reason, and what was found in words';
COMMENT ON FUNCTION backfill_sql(text, text, text[], text, text, boolean, text, text) IS
  'the statements that backfill with the same arguments would run, formatted for review; runs none of them';
COMMENT ON FUNCTION migration_status(text) IS
  'how far a migration script got: each statement compared with what is there (present, would_fail, missing, differs, blocked, unknown, data, opaque, skipped), and the sum; runs nothing';
COMMENT ON FUNCTION migration_rehearse(text, boolean, interval) IS
  'run a migration script for real, statement by statement, and roll everything back: what each would raise, write, and lock';
COMMENT ON FUNCTION migration_reset(text, boolean, text[], interval) IS
  'take back what a migration script made, in the order of dependency, without CASCADE, and only where that loses nothing; or say what that would do (dry_run, the default)';
COMMENT ON FUNCTION restore_reset(bigint, boolean, boolean) IS
  'put back the rows and the values of columns that migration_reset copied because include named them; or count them (dry_run, the default)';
COMMENT ON FUNCTION migration_drift(jsonb) IS
  'several migration scripts as one history: which are in, which are half in, and where they contradict each other; runs nothing';
COMMENT ON FUNCTION ensure_tenant_root(text, text, text, jsonb, text, text, text[], jsonb, text, boolean, interval) IS
  'make the table that holds the tenants, and that of their members, where they are missing, and check what references them; or say what that would be (dry_run, the default)';
COMMENT ON FUNCTION migration_report(text, text) IS
  'one checklist for a migration: legacy columns, NULLs, orphans, cross-tenant references, foreign keys, indexes, coverage, NOT NULL, row-level security; per question what was checked and what is open, with the next call';
COMMENT ON FUNCTION validate_tenant_fks(text, text, boolean, integer) IS
  'every reference, declared or only meant, checked against the rows: orphans, parents of other tenants, unknown tenants, the state of the constraint, and the next call; the last row says how much was checked';
COMMENT ON FUNCTION declare_reference(text, text, text, text, boolean) IS
  'declare a reference that no foreign key can (soft, polymorphic), or (parent NULL) say that a column is none; kept in mend.declared_references';
COMMENT ON FUNCTION forget_reference(text, text, text) IS
  'forget what declare_reference was told of these columns';
COMMENT ON FUNCTION declare_tenant_key(text, text) IS
  'say which column of a table is its tenant key, or (NULL) that none is, for all calls; kept in mend.declared_tenant_keys';
COMMENT ON FUNCTION forget_tenant_key(text) IS
  'forget what declare_tenant_key was told of this table';
COMMENT ON FUNCTION repair_orphans(text, text, text, boolean, jsonb, text, text, text, text) IS
  'repair the rows that violate one reference: nullify, quarantine or create_parent, or count what that would do (dry_run, the default); old values are kept, nothing is deleted';
COMMENT ON FUNCTION restore_repaired(bigint, boolean) IS
  'put back what a run of repair_orphans nullified or quarantined, where nobody changed it since; or count what that would do (dry_run, the default)';
COMMENT ON FUNCTION undo_run(bigint, boolean) IS
  'take back what a run changed (fills, overwrites, repairs, created parents, resets), where nobody changed it since; or count what that would do (dry_run, the default)';
COMMENT ON FUNCTION assert_backfilled(text, text, text) IS
  'fail, with counts, reasons and the next call, where the column still is NULL: the line above a SET NOT NULL or DROP COLUMN in a migration';
COMMENT ON FUNCTION finalize_plan(text, text, boolean, text, text, boolean, boolean, text) IS
  'every step from filled to locked in (NOT NULL, foreign keys, index, policy) with its lock and how far it is; changes nothing';
COMMENT ON FUNCTION finalize_backfill_step(text, text, interval, boolean, text, text, boolean, text) IS
  'run the next step of finalize_plan and say what comes after; for SQL editors, one call a transaction';
COMMENT ON PROCEDURE finalize_backfill(text, text, interval, boolean, text, text, boolean, text, text) IS
  'run the steps of finalize_plan, each in a transaction of its own, so that no strong lock is ever held over a scan; call it again where a lock was not had in time';
COMMENT ON FUNCTION mend.outside_transaction_block(text) IS
  'used by procedures that commit: fail inside a transaction block, before anything was done';

CREATE FUNCTION grant_mend(role_name text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  grantee  name;
  routine  record;
  granted  integer := 0;
BEGIN
  -- Exact letters first, then as Postgres folds them, as everywhere in pg_mend.
  SELECT r.rolname INTO grantee
  FROM pg_roles r
  WHERE r.rolname IN (role_name, lower(role_name))
  ORDER BY r.rolname <> role_name
  LIMIT 1;
  IF grantee IS NULL THEN
    RAISE EXCEPTION 'role "%" does not exist', coalesce(role_name, 'NULL')
      USING ERRCODE = 'undefined_object',
            HINT = 'create it first: CREATE ROLE ' || quote_ident(coalesce(role_name, 'app')) || ' LOGIN; or see \du for the roles there are';
  END IF;
  FOR routine IN
    SELECT p.oid::regprocedure AS signature, n.nspname
    FROM pg_depend d
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mend'
    JOIN pg_proc p ON p.oid = d.objid
    JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      AND p.proname NOT IN ('grant_mend', 'revoke_mend')
    ORDER BY 1
  LOOP
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', routine.signature, grantee);
    IF NOT has_schema_privilege(grantee, routine.nspname, 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', routine.nspname, grantee);
    END IF;
    granted := granted + 1;
  END LOOP;
  -- What is written there, the extension writes itself: nobody needs more than to read.
  EXECUTE format('GRANT USAGE ON SCHEMA mend TO %I', grantee);
  EXECUTE format('GRANT SELECT ON mend.runs, mend.changes, mend.replaced_values, mend.repaired_rows, mend.created_rows, mend.reset_rows, mend.reset_values, mend.declared_references, mend.declared_tenant_keys TO %I', grantee);
  RETURN format('%s may call %s functions of pg_mend, on tables that it may read and update; it sees its own runs in mend.runs',
                quote_ident(grantee), granted);
END
$$;
COMMENT ON FUNCTION grant_mend(text) IS
  'let a role use pg_mend: EXECUTE on its functions, and what is needed to record its own runs. Rights on tables are not touched';

CREATE FUNCTION revoke_mend(role_name text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  role_found  name;
  routine  record;
BEGIN
  SELECT r.rolname INTO role_found
  FROM pg_roles r
  WHERE r.rolname IN (role_name, lower(role_name))
  ORDER BY r.rolname <> role_name
  LIMIT 1;
  IF role_found IS NULL THEN
    RAISE EXCEPTION 'role "%" does not exist', coalesce(role_name, 'NULL')
      USING ERRCODE = 'undefined_object', HINT = 'see \du for the roles there are';
  END IF;
  FOR routine IN
    SELECT p.oid::regprocedure AS signature
    FROM pg_depend d
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mend'
    JOIN pg_proc p ON p.oid = d.objid
    WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
  LOOP
    EXECUTE format('REVOKE ALL ON ROUTINE %s FROM %I', routine.signature, role_found);
  END LOOP;
  EXECUTE format('REVOKE ALL ON mend.runs, mend.changes, mend.replaced_values, mend.repaired_rows, mend.created_rows, mend.reset_rows, mend.reset_values, mend.declared_references, mend.declared_tenant_keys FROM %I', role_found);
  EXECUTE format('REVOKE ALL ON SCHEMA mend FROM %I', role_found);
  -- REVOKE takes back only what the caller's own rights gave.
  SELECT p.oid::regprocedure AS signature,
         (SELECT string_agg(DISTINCT a.grantor::regrole::text, ', ') FROM aclexplode(p.proacl) a
          WHERE pg_has_role(role_found, CASE a.grantee WHEN 0 THEN NULL ELSE a.grantee END, 'USAGE')) AS grantors
  INTO routine
  FROM pg_depend d
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mend'
  JOIN pg_proc p ON p.oid = d.objid
  WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
    AND has_function_privilege(role_found, p.oid, 'EXECUTE')
  ORDER BY 1 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '% may still call %', quote_ident(role_found), routine.signature
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = coalesce('granted by ' || routine.grantors, 'it is a superuser'),
            HINT = 'only who granted can revoke: SET ROLE to the grantor, then revoke_mend again; a right that comes from another role goes with REVOKE that_role FROM ' || quote_ident(role_found);
  END IF;
  RETURN format('%s can no longer use pg_mend; the records of its runs are kept', quote_ident(role_found));
END
$$;
COMMENT ON FUNCTION revoke_mend(text) IS
  'take back what grant_mend gave; the records of the role''s runs are kept';

-- Nobody calls by default but superusers and whoever ran CREATE EXTENSION (a trusted extension's objects belong to the
-- bootstrap superuser, so its installer needs grants as well, and the right to pass them on).
DO $$
DECLARE
  routine   regprocedure;
  state     record;
  bootstrap name := (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) '10'::pg_catalog.oid);
  installer name := (SELECT r.rolname FROM pg_catalog.pg_extension e
                     JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) e.extowner
                     WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend');
BEGIN
  FOR routine IN
    SELECT d.objid::pg_catalog.regprocedure
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid AND e.extname OPERATOR(pg_catalog.=) 'pg_mend'
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND d.deptype OPERATOR(pg_catalog.=) 'e'
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', routine);
    EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %I WITH GRANT OPTION', routine, installer);
  END LOOP;
  -- Whoever owned the state could put triggers on it, which the calls of superusers would run: it belongs to the bootstrap superuser,
  -- also where another superuser installs. The installer reads all of it (so that pg_dump can), and lets others read what is theirs.
  FOR state IN
    SELECT c.oid::pg_catalog.regclass AS shown, c.relkind
    FROM pg_catalog.pg_class c
    WHERE c.relnamespace OPERATOR(pg_catalog.=) 'mend'::pg_catalog.regnamespace
      AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r, v, S}'::"char"[])
  LOOP
    IF state.relkind OPERATOR(pg_catalog.<>) 'S' THEN
      EXECUTE pg_catalog.format('ALTER TABLE %s OWNER TO %I', state.shown, bootstrap);
    END IF;
    EXECUTE pg_catalog.format('GRANT SELECT ON %s TO %I %s', state.shown, installer,
                              CASE WHEN state.relkind OPERATOR(pg_catalog.=) 'v' THEN 'WITH GRANT OPTION' END);
  END LOOP;
  EXECUTE pg_catalog.format('ALTER SCHEMA mend OWNER TO %I', bootstrap);
  EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA mend TO %I WITH GRANT OPTION', installer);
END
$$;
