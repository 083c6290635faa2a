-- pg_mend's state, in a schema of its own. The functions go to the schema of CREATE EXTENSION.
--
-- ledger_runs, ledger_changes, ledger_writes, ledger_references, ledger_tenant_keys
--     what is kept; they belong to the bootstrap superuser, and only the extension's own statements write them (src/run/ledger.rs)
-- runs, changes, replaced_values, ..., declared_references, declared_tenant_keys
--     what roles read: views that show a role what is its own

-- Names and texts are handled as UTF-8.
DO $$
BEGIN
  IF pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.<>) 'UTF8' THEN
    RAISE EXCEPTION 'pg_mend needs a database in UTF8, this one is in %', pg_catalog.current_setting('server_encoding')
      USING ERRCODE = 'feature_not_supported',
            DETAIL = 'in another encoding, names and keys outside of ASCII would be read wrongly',
            HINT = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0, and move the data there with pg_dump';
  END IF;
END
$$;

CREATE SCHEMA mend;
COMMENT ON SCHEMA mend IS 'pg_mend: what ran, kept beside the data that it changed';

CREATE TABLE mend.ledger_runs (
  run_id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operation          text NOT NULL,
  table_name         text NOT NULL,
  column_name        text NOT NULL,
  rule               jsonb NOT NULL,
  statement          text NOT NULL,
  total              bigint NOT NULL,
  already_set        bigint NOT NULL,
  filled             bigint NOT NULL,
  unfilled           bigint NOT NULL,
  reasons            jsonb NOT NULL,
  note               text,
  run_by             name NOT NULL,
  session_role       name NOT NULL,
  started_at         timestamptz NOT NULL,
  finished_at        timestamptz NOT NULL,
  duration           interval NOT NULL GENERATED ALWAYS AS (finished_at - started_at) STORED,
  schema_fingerprint text NOT NULL,
  extension_version  text NOT NULL,
  CONSTRAINT runs_reconcile CHECK (total = already_set + filled + unfilled)
);
COMMENT ON TABLE mend.ledger_runs IS 'every real run, opened before its first change and closed after its last, in one transaction: a row here is a run that committed. Written by pg_mend alone; read it through mend.runs';

CREATE TABLE mend.ledger_changes (
  change_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id      bigint NOT NULL REFERENCES mend.ledger_runs,
  change      text NOT NULL,
  table_name  text NOT NULL,
  row_key     jsonb,
  old_values  jsonb,
  new_values  jsonb,
  row_values  jsonb,
  columns     text[],
  undone_by   bigint REFERENCES mend.ledger_runs,
  CONSTRAINT ledger_changes_kind CHECK (change IN ('replaced', 'nullified', 'restored', 'created', 'deleted', 'row_dropped', 'value_dropped'))
);
CREATE INDEX ledger_changes_of_run ON mend.ledger_changes (run_id);
COMMENT ON TABLE mend.ledger_changes IS 'what each run changed, row by row, in the same transaction. Written by pg_mend alone; read it through mend.changes, or by kind: mend.replaced_values, mend.repaired_rows, mend.created_rows, mend.reset_rows, mend.reset_values';
COMMENT ON COLUMN mend.ledger_changes.change_id IS 'in the order in which they were kept';
COMMENT ON COLUMN mend.ledger_changes.run_id IS 'mend.runs.run_id';
COMMENT ON COLUMN mend.ledger_changes.change IS 'replaced (another value), nullified, restored (by an undo), created (a new row), deleted (a row that a run had created), row_dropped, value_dropped (with their table or column)';
COMMENT ON COLUMN mend.ledger_changes.table_name IS 'the table of the row, with its schema, quoted where needed';
COMMENT ON COLUMN mend.ledger_changes.row_key IS 'the primary key of the row: {"id": 7}';
COMMENT ON COLUMN mend.ledger_changes.old_values IS 'the values before the run, as text: {"customer_id": "9"}';
COMMENT ON COLUMN mend.ledger_changes.new_values IS 'the values that the run wrote, as text';
COMMENT ON COLUMN mend.ledger_changes.row_values IS 'of a quarantine or a dropped row: the row, with the values before';
COMMENT ON COLUMN mend.ledger_changes.columns IS 'of a dropped row: names and types of its columns, in order; of a dropped value: name and type of its column';
COMMENT ON COLUMN mend.ledger_changes.undone_by IS 'the run that put it back';

CREATE TABLE mend.ledger_writes (
  write_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id      bigint NOT NULL REFERENCES mend.ledger_runs,
  table_oid   oid NOT NULL,
  column_number int2,
  transaction xid8 NOT NULL,
  runs        bigint[] NOT NULL
);
CREATE INDEX ledger_writes_of_run ON mend.ledger_writes (run_id);
CREATE INDEX ledger_writes_runs ON mend.ledger_writes USING gin (runs);
COMMENT ON TABLE mend.ledger_writes IS 'which rows a run wrote: those that still carry its transaction id (xmin), because nobody has changed them since. Written and read by pg_mend alone; no dump takes it along, because ids of transactions mean nothing elsewhere';
COMMENT ON COLUMN mend.ledger_writes.write_id IS 'in the order of the writes';
COMMENT ON COLUMN mend.ledger_writes.run_id IS 'mend.runs.run_id: the run that wrote';
COMMENT ON COLUMN mend.ledger_writes.table_oid IS 'pg_class.oid of the table';
COMMENT ON COLUMN mend.ledger_writes.column_number IS 'pg_attribute.attnum of the column that was filled; NULL: the rows are new, or were put back';
COMMENT ON COLUMN mend.ledger_writes.transaction IS 'the id of the (sub)transaction that wrote; its lower half is the xmin of the rows';
COMMENT ON COLUMN mend.ledger_writes.runs IS 'the runs whose values these rows hold: the one that wrote, and earlier ones of the same call that had written the same rows';

CREATE TABLE mend.ledger_references (
  reference_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  table_schema      text NOT NULL,
  table_name        text NOT NULL,
  columns           text[] NOT NULL CHECK (pg_catalog.cardinality(columns) > 0),
  type_column       text,
  type_value        text,
  parent_schema     text,
  parent_table      text,
  parent_columns    text[],
  may_cross_tenants boolean NOT NULL DEFAULT false,
  declared_by       name NOT NULL,
  declared_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
  CONSTRAINT declared_references_type CHECK ((type_column IS NULL) = (type_value IS NULL)),
  CONSTRAINT declared_references_parent CHECK ((parent_table IS NULL) = (parent_schema IS NULL)
                                               AND (parent_table IS NULL) = (parent_columns IS NULL))
);
CREATE UNIQUE INDEX declared_references_once ON mend.ledger_references
  (table_schema, table_name, columns, COALESCE(type_column, ''), COALESCE(type_value, ''));
COMMENT ON TABLE mend.ledger_references IS 'what declare_reference() was told. Written by pg_mend alone; read it through mend.declared_references';

CREATE TABLE mend.ledger_tenant_keys (
  table_schema text NOT NULL,
  table_name   text NOT NULL,
  column_name  text,
  declared_by  name NOT NULL,
  declared_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
  PRIMARY KEY (table_schema, table_name)
);
COMMENT ON TABLE mend.ledger_tenant_keys IS 'what declare_tenant_key() was told. Written by pg_mend alone; read it through mend.declared_tenant_keys';

-- May the reader see what every role did? The extension's owner may, and superusers.
CREATE VIEW mend.runs WITH (security_barrier) AS
  SELECT r.* FROM mend.ledger_runs r
  WHERE r.run_by OPERATOR(pg_catalog.=) CURRENT_USER
     OR EXISTS (SELECT FROM pg_catalog.pg_extension e
                WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                  AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE'));
COMMENT ON VIEW mend.runs IS 'every real run, written in the same transaction as the run itself: a row here is a run that committed. A role sees its own, the extension''s owner all';
COMMENT ON COLUMN mend.ledger_runs.run_id IS 'the run_id that the call returned';
COMMENT ON COLUMN mend.runs.run_id IS 'the run_id that the call returned';
COMMENT ON COLUMN mend.ledger_runs.operation IS 'which family of calls: backfill, backfill_parents, repair_orphans, restore_repaired, migration_reset, restore_reset, undo_run';
COMMENT ON COLUMN mend.runs.operation IS 'which family of calls: backfill, backfill_parents, repair_orphans, restore_repaired, migration_reset, restore_reset, undo_run';
COMMENT ON COLUMN mend.ledger_runs.table_name IS 'the target, with its schema, quoted where needed';
COMMENT ON COLUMN mend.runs.table_name IS 'the target, with its schema, quoted where needed';
COMMENT ON COLUMN mend.ledger_runs.column_name IS 'the column that was filled or repaired, without quotes; several in parentheses';
COMMENT ON COLUMN mend.runs.column_name IS 'the column that was filled or repaired, without quotes; several in parentheses';
COMMENT ON COLUMN mend.ledger_runs.rule IS 'the complete rule, inferred parts included: of a backfill, backfill(rule) does the same again';
COMMENT ON COLUMN mend.runs.rule IS 'the complete rule, inferred parts included: of a backfill, backfill(rule) does the same again';
COMMENT ON COLUMN mend.ledger_runs.statement IS 'the statement that was run';
COMMENT ON COLUMN mend.runs.statement IS 'the statement that was run';
COMMENT ON COLUMN mend.ledger_runs.total IS 'rows of the table (of a repair: rows that violated the reference) = already_set + filled + unfilled';
COMMENT ON COLUMN mend.runs.total IS 'rows of the table (of a repair: rows that violated the reference) = already_set + filled + unfilled';
COMMENT ON COLUMN mend.ledger_runs.already_set IS 'rows whose column had a value before';
COMMENT ON COLUMN mend.runs.already_set IS 'rows whose column had a value before';
COMMENT ON COLUMN mend.ledger_runs.filled IS 'rows that this run filled or repaired, read back';
COMMENT ON COLUMN mend.runs.filled IS 'rows that this run filled or repaired, read back';
COMMENT ON COLUMN mend.ledger_runs.unfilled IS 'rows left as they were = the sum of reasons';
COMMENT ON COLUMN mend.runs.unfilled IS 'rows left as they were = the sum of reasons';
COMMENT ON COLUMN mend.ledger_runs.reasons IS 'rows left as they were, per reason';
COMMENT ON COLUMN mend.runs.reasons IS 'rows left as they were, per reason';
COMMENT ON COLUMN mend.ledger_runs.note IS 'what the call said besides the numbers';
COMMENT ON COLUMN mend.runs.note IS 'what the call said besides the numbers';
COMMENT ON COLUMN mend.ledger_runs.run_by IS 'the role whose rights the run had (current_user)';
COMMENT ON COLUMN mend.runs.run_by IS 'the role whose rights the run had (current_user)';
COMMENT ON COLUMN mend.ledger_runs.session_role IS 'the role that logged in (session_user)';
COMMENT ON COLUMN mend.runs.session_role IS 'the role that logged in (session_user)';
COMMENT ON COLUMN mend.ledger_runs.started_at IS 'when the run began (wall clock)';
COMMENT ON COLUMN mend.runs.started_at IS 'when the run began (wall clock)';
COMMENT ON COLUMN mend.ledger_runs.finished_at IS 'when the run was proved, just before it returned (wall clock)';
COMMENT ON COLUMN mend.runs.finished_at IS 'when the run was proved, just before it returned (wall clock)';
COMMENT ON COLUMN mend.ledger_runs.duration IS 'finished_at - started_at';
COMMENT ON COLUMN mend.runs.duration IS 'finished_at - started_at';
COMMENT ON COLUMN mend.ledger_runs.schema_fingerprint IS 'md5 over the columns, keys and constraints of every table that the run read: differs when the schema has changed since';
COMMENT ON COLUMN mend.runs.schema_fingerprint IS 'md5 over the columns, keys and constraints of every table that the run read: differs when the schema has changed since';
COMMENT ON COLUMN mend.ledger_runs.extension_version IS 'the version of pg_mend that ran';
COMMENT ON COLUMN mend.runs.extension_version IS 'the version of pg_mend that ran';

CREATE VIEW mend.changes WITH (security_barrier) AS
  SELECT c.change_id, c.run_id, c.change, c.table_name, c.columns, c.row_key, c.old_values, c.new_values, c.row_values, c.undone_by, r.run_by, r.operation
  FROM mend.ledger_changes c
  JOIN mend.ledger_runs r ON r.run_id OPERATOR(pg_catalog.=) c.run_id
  WHERE r.run_by OPERATOR(pg_catalog.=) CURRENT_USER
     OR EXISTS (SELECT FROM pg_catalog.pg_extension e
                WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                  AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE'));
COMMENT ON VIEW mend.changes IS 'what runs changed, row by row, in the same transaction, where the old values cannot be told from the rows themselves; undo_run puts it back';
COMMENT ON COLUMN mend.changes.change_id IS 'in the order in which they were kept';
COMMENT ON COLUMN mend.changes.run_id IS 'mend.runs.run_id';
COMMENT ON COLUMN mend.changes.change IS 'replaced (another value), nullified, restored (by an undo), created (a new row), deleted (a row that a run had created), row_dropped, value_dropped (with their table or column)';
COMMENT ON COLUMN mend.changes.table_name IS 'the table of the row, with its schema, quoted where needed';
COMMENT ON COLUMN mend.changes.columns IS 'of a dropped row: names and types of its columns, in order; of a dropped value: name and type of its column';
COMMENT ON COLUMN mend.changes.row_key IS 'the primary key of the row (of a new one, the key by which it is referenced): {"id": 7}';
COMMENT ON COLUMN mend.changes.old_values IS 'the values before the run, as text: {"customer_id": "9"}';
COMMENT ON COLUMN mend.changes.new_values IS 'the values that the run wrote, as text';
COMMENT ON COLUMN mend.changes.row_values IS 'of a quarantine, a dropped or a deleted row: the row, with the values before';
COMMENT ON COLUMN mend.changes.undone_by IS 'the run that put it back';
COMMENT ON COLUMN mend.changes.run_by IS 'the role whose rights the run had (current_user)';
COMMENT ON COLUMN mend.changes.operation IS 'the family of calls of the run, as in mend.runs';

CREATE VIEW mend.replaced_values WITH (security_barrier) AS
  SELECT c.run_id, c.row_key, (SELECT v.value FROM pg_catalog.jsonb_each_text(c.old_values) v) AS old_value, (SELECT v.value FROM pg_catalog.jsonb_each_text(c.new_values) v) AS new_value, c.run_by
  FROM mend.changes c WHERE c.change OPERATOR(pg_catalog.=) 'replaced';
COMMENT ON VIEW mend.replaced_values IS 'what runs with overwrite => ''mismatched'' replaced, row by row, in the same transaction';
COMMENT ON COLUMN mend.replaced_values.run_id IS 'mend.runs.run_id: says which table and column';
COMMENT ON COLUMN mend.replaced_values.row_key IS 'the primary key of the row: {"id": 7}';
COMMENT ON COLUMN mend.replaced_values.old_value IS 'the value before the run, as text';
COMMENT ON COLUMN mend.replaced_values.new_value IS 'the value that the run wrote, as text';
COMMENT ON COLUMN mend.replaced_values.run_by IS 'the role whose rights the run had (current_user)';

CREATE VIEW mend.repaired_rows WITH (security_barrier) AS
  SELECT c.change_id, c.run_id, c.row_key, c.old_values, c.row_values, c.undone_by AS restored_by, c.run_by
  FROM mend.changes c WHERE c.change OPERATOR(pg_catalog.=) 'nullified' AND c.operation OPERATOR(pg_catalog.=) 'repair_orphans';
COMMENT ON VIEW mend.repaired_rows IS 'what repair_orphans nullified, row by row, in the same transaction; undo_run puts it back';
COMMENT ON COLUMN mend.repaired_rows.change_id IS 'in the order in which they were kept';
COMMENT ON COLUMN mend.repaired_rows.run_id IS 'mend.runs.run_id: says which table and columns';
COMMENT ON COLUMN mend.repaired_rows.row_key IS 'the primary key of the row: {"id": 7}';
COMMENT ON COLUMN mend.repaired_rows.old_values IS 'the values before the run, as text: {"customer_id": "9"}';
COMMENT ON COLUMN mend.repaired_rows.row_values IS 'of a quarantine: the row, with the values before';
COMMENT ON COLUMN mend.repaired_rows.restored_by IS 'the run of restore_repaired that put it back';
COMMENT ON COLUMN mend.repaired_rows.run_by IS 'the role whose rights the run had (current_user)';

CREATE VIEW mend.created_rows WITH (security_barrier) AS
  SELECT c.run_id, c.table_name, c.row_key, c.run_by
  FROM mend.changes c WHERE c.change OPERATOR(pg_catalog.=) 'created';
COMMENT ON VIEW mend.created_rows IS 'the parents that repair_orphans and backfill_parents created, row by row, in the same transaction';
COMMENT ON COLUMN mend.created_rows.run_id IS 'mend.runs.run_id';
COMMENT ON COLUMN mend.created_rows.table_name IS 'the table of the new row, with its schema, quoted where needed';
COMMENT ON COLUMN mend.created_rows.row_key IS 'the key by which it is referenced: {"id": 7}';
COMMENT ON COLUMN mend.created_rows.run_by IS 'the role whose rights the run had (current_user)';

CREATE VIEW mend.reset_rows WITH (security_barrier) AS
  SELECT c.change_id, c.run_id, c.table_name, c.columns, c.row_values, c.undone_by AS restored_by, c.run_by
  FROM mend.changes c WHERE c.change OPERATOR(pg_catalog.=) 'row_dropped';
COMMENT ON VIEW mend.reset_rows IS 'rows of tables that migration_reset dropped because include named them; restore_reset puts them back';
COMMENT ON COLUMN mend.reset_rows.change_id IS 'in the order in which they were kept';
COMMENT ON COLUMN mend.reset_rows.run_id IS 'mend.runs.run_id';
COMMENT ON COLUMN mend.reset_rows.table_name IS 'the table of the row, with its schema, quoted where needed';
COMMENT ON COLUMN mend.reset_rows.columns IS 'names and types of its columns, in order';
COMMENT ON COLUMN mend.reset_rows.row_values IS 'the row: its columns, with their values as text';
COMMENT ON COLUMN mend.reset_rows.restored_by IS 'the run of restore_reset that put it back';
COMMENT ON COLUMN mend.reset_rows.run_by IS 'the role whose rights the run had (current_user)';

CREATE VIEW mend.reset_values WITH (security_barrier) AS
  SELECT c.change_id, c.run_id, c.table_name, c.columns[1] AS column_name, c.columns[2] AS column_type, c.row_key, (c.old_values OPERATOR(pg_catalog.->>) c.columns[1]) AS old_value, c.undone_by AS restored_by, c.run_by
  FROM mend.changes c WHERE c.change OPERATOR(pg_catalog.=) 'value_dropped';
COMMENT ON VIEW mend.reset_values IS 'values of columns that migration_reset dropped because include named them; restore_reset puts them back';
COMMENT ON COLUMN mend.reset_values.change_id IS 'in the order in which they were kept';
COMMENT ON COLUMN mend.reset_values.run_id IS 'mend.runs.run_id';
COMMENT ON COLUMN mend.reset_values.table_name IS 'the table of the column, with its schema, quoted where needed';
COMMENT ON COLUMN mend.reset_values.column_name IS 'the bare name of the column';
COMMENT ON COLUMN mend.reset_values.column_type IS 'its type, as format_type writes it';
COMMENT ON COLUMN mend.reset_values.row_key IS 'the primary key of the row: {"id": 7}';
COMMENT ON COLUMN mend.reset_values.old_value IS 'the value, as text; rows where it was NULL are not kept';
COMMENT ON COLUMN mend.reset_values.restored_by IS 'the run of restore_reset that put it back';
COMMENT ON COLUMN mend.reset_values.run_by IS 'the role whose rights the run had (current_user)';

CREATE VIEW mend.declared_references WITH (security_barrier) AS
  SELECT d.*,
         COALESCE(pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE')
                  OR EXISTS (SELECT FROM pg_catalog.pg_extension e
                             WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                               AND pg_catalog.pg_has_role(r.oid, e.extowner, 'USAGE')), false) AS in_force
  FROM mend.ledger_references d
  LEFT JOIN pg_catalog.pg_roles r ON r.rolname OPERATOR(pg_catalog.=) d.declared_by
  LEFT JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) d.table_schema::pg_catalog.name
  LEFT JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) d.table_name::pg_catalog.name;
COMMENT ON VIEW mend.declared_references IS 'references that declare_reference() was told: soft and polymorphic ones, and columns that are none; by name, so that they survive a dump. What a reference means is the same for all roles that may use pg_mend';
COMMENT ON COLUMN mend.ledger_references.reference_id IS 'in the order of their declaration';
COMMENT ON COLUMN mend.declared_references.reference_id IS 'in the order of their declaration';
COMMENT ON COLUMN mend.ledger_references.table_schema IS 'schema of the referencing table';
COMMENT ON COLUMN mend.declared_references.table_schema IS 'schema of the referencing table';
COMMENT ON COLUMN mend.ledger_references.table_name IS 'the referencing table';
COMMENT ON COLUMN mend.declared_references.table_name IS 'the referencing table';
COMMENT ON COLUMN mend.ledger_references.columns IS 'its columns, in the order of parent_columns';
COMMENT ON COLUMN mend.declared_references.columns IS 'its columns, in the order of parent_columns';
COMMENT ON COLUMN mend.ledger_references.type_column IS 'of a polymorphic reference: the column that says which table is meant';
COMMENT ON COLUMN mend.declared_references.type_column IS 'of a polymorphic reference: the column that says which table is meant';
COMMENT ON COLUMN mend.ledger_references.type_value IS 'the text in type_column that means this parent';
COMMENT ON COLUMN mend.declared_references.type_value IS 'the text in type_column that means this parent';
COMMENT ON COLUMN mend.ledger_references.parent_schema IS 'schema of the referenced table; NULL: the columns are no reference';
COMMENT ON COLUMN mend.declared_references.parent_schema IS 'schema of the referenced table; NULL: the columns are no reference';
COMMENT ON COLUMN mend.ledger_references.parent_table IS 'the referenced table';
COMMENT ON COLUMN mend.declared_references.parent_table IS 'the referenced table';
COMMENT ON COLUMN mend.ledger_references.parent_columns IS 'its key';
COMMENT ON COLUMN mend.declared_references.parent_columns IS 'its key';
COMMENT ON COLUMN mend.ledger_references.may_cross_tenants IS 'parents of other tenants are no violation';
COMMENT ON COLUMN mend.declared_references.may_cross_tenants IS 'parents of other tenants are no violation';
COMMENT ON COLUMN mend.ledger_references.declared_by IS 'the role that declared it, which alone (with the extension''s owner) may change it; it counts only while that role has the rights of the table''s owner, or of the extension''s';
COMMENT ON COLUMN mend.declared_references.declared_by IS 'the role that declared it, which alone (with the extension''s owner) may change it; it counts only while that role has the rights of the table''s owner, or of the extension''s';
COMMENT ON COLUMN mend.ledger_references.declared_at IS 'when';
COMMENT ON COLUMN mend.declared_references.declared_at IS 'when';
COMMENT ON COLUMN mend.declared_references.in_force IS 'it counts: its author has the rights of the owner of the referencing table, or of the extension''s owner';

CREATE VIEW mend.declared_tenant_keys WITH (security_barrier) AS
  SELECT d.*,
         COALESCE(pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE')
                  OR EXISTS (SELECT FROM pg_catalog.pg_extension e
                             WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                               AND pg_catalog.pg_has_role(r.oid, e.extowner, 'USAGE')), false) AS in_force
  FROM mend.ledger_tenant_keys d
  LEFT JOIN pg_catalog.pg_roles r ON r.rolname OPERATOR(pg_catalog.=) d.declared_by
  LEFT JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) d.table_schema::pg_catalog.name
  LEFT JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) d.table_name::pg_catalog.name;
COMMENT ON VIEW mend.declared_tenant_keys IS 'which column says whose a row is, where declare_tenant_key() was told; by name, so that it survives a dump. It is the same for all calls and all roles';
COMMENT ON COLUMN mend.ledger_tenant_keys.table_schema IS 'schema of the table';
COMMENT ON COLUMN mend.declared_tenant_keys.table_schema IS 'schema of the table';
COMMENT ON COLUMN mend.ledger_tenant_keys.table_name IS 'the table';
COMMENT ON COLUMN mend.declared_tenant_keys.table_name IS 'the table';
COMMENT ON COLUMN mend.ledger_tenant_keys.column_name IS 'its tenant key; NULL: none of its columns is one';
COMMENT ON COLUMN mend.declared_tenant_keys.column_name IS 'its tenant key; NULL: none of its columns is one';
COMMENT ON COLUMN mend.ledger_tenant_keys.declared_by IS 'the role that declared it, which alone (with the extension''s owner) may change it; it counts only while that role has the rights of the table''s owner, or of the extension''s';
COMMENT ON COLUMN mend.declared_tenant_keys.declared_by IS 'the role that declared it, which alone (with the extension''s owner) may change it; it counts only while that role has the rights of the table''s owner, or of the extension''s';
COMMENT ON COLUMN mend.ledger_tenant_keys.declared_at IS 'when';
COMMENT ON COLUMN mend.declared_tenant_keys.declared_at IS 'when';
COMMENT ON COLUMN mend.declared_tenant_keys.in_force IS 'it counts: its author has the rights of the owner of the table, or of the extension''s owner';

REVOKE ALL ON SCHEMA mend FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA mend FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA mend FROM PUBLIC;

-- Records are data, not definition: pg_dump takes them along.
SELECT pg_catalog.pg_extension_config_dump('mend.ledger_runs', '');
SELECT pg_catalog.pg_extension_config_dump('mend.ledger_changes', '');
SELECT pg_catalog.pg_extension_config_dump('mend.ledger_references', '');
SELECT pg_catalog.pg_extension_config_dump('mend.ledger_tenant_keys', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('mend.ledger_runs', 'run_id'), '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('mend.ledger_changes', 'change_id'), '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('mend.ledger_references', 'reference_id'), '');
