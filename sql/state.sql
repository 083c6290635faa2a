-- pg_mend's state, in a schema of its own. The functions go to the schema of CREATE EXTENSION.

CREATE SCHEMA mend;
COMMENT ON SCHEMA mend IS 'pg_mend: what ran, kept beside the data that it changed';

CREATE TABLE mend.runs (
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
  run_by             name NOT NULL DEFAULT CURRENT_USER,
  session_role       name NOT NULL DEFAULT SESSION_USER,
  started_at         timestamptz NOT NULL,
  finished_at        timestamptz NOT NULL,
  duration           interval NOT NULL GENERATED ALWAYS AS (finished_at - started_at) STORED,
  schema_fingerprint text NOT NULL,
  extension_version  text NOT NULL,
  CONSTRAINT runs_reconcile CHECK (total = already_set + filled + unfilled)
);

COMMENT ON TABLE mend.runs IS 'every real run, written in the same transaction as the run itself: a row here is a run that committed';
COMMENT ON COLUMN mend.runs.run_id IS 'the run_id that the call returned';
COMMENT ON COLUMN mend.runs.operation IS 'which family of calls: backfill, backfill_parents, repair_orphans, restore_repaired, migration_reset, restore_reset';
COMMENT ON COLUMN mend.runs.table_name IS 'the target, with its schema, quoted where needed';
COMMENT ON COLUMN mend.runs.column_name IS 'the column that was filled or repaired, without quotes; several in parentheses';
COMMENT ON COLUMN mend.runs.rule IS 'the complete rule, inferred parts included: of a backfill, backfill(rule) does the same again';
COMMENT ON COLUMN mend.runs.statement IS 'the statement that was run';
COMMENT ON COLUMN mend.runs.total IS 'rows of the table (of a repair: rows that violated the reference) = already_set + filled + unfilled';
COMMENT ON COLUMN mend.runs.already_set IS 'rows whose column had a value before';
COMMENT ON COLUMN mend.runs.filled IS 'rows that this run filled or repaired, read back';
COMMENT ON COLUMN mend.runs.unfilled IS 'rows left as they were = the sum of reasons';
COMMENT ON COLUMN mend.runs.reasons IS 'rows left as they were, per reason';
COMMENT ON COLUMN mend.runs.note IS 'what the call said besides the numbers';
COMMENT ON COLUMN mend.runs.run_by IS 'the role whose rights the run had (current_user)';
COMMENT ON COLUMN mend.runs.session_role IS 'the role that logged in (session_user)';
COMMENT ON COLUMN mend.runs.started_at IS 'when the run began (wall clock)';
COMMENT ON COLUMN mend.runs.finished_at IS 'when the run was proved, just before it returned (wall clock)';
COMMENT ON COLUMN mend.runs.duration IS 'finished_at - started_at';
COMMENT ON COLUMN mend.runs.schema_fingerprint IS 'md5 over the columns, keys and constraints of every table that the run read: differs when the schema has changed since';
COMMENT ON COLUMN mend.runs.extension_version IS 'the version of pg_mend that ran';

CREATE TABLE mend.replaced_values (
  run_id    bigint NOT NULL REFERENCES mend.runs DEFERRABLE INITIALLY DEFERRED,
  row_key   jsonb NOT NULL,
  old_value text NOT NULL,
  new_value text NOT NULL,
  run_by    name NOT NULL DEFAULT CURRENT_USER
);
CREATE INDEX replaced_values_of_run ON mend.replaced_values (run_id);

COMMENT ON TABLE mend.replaced_values IS 'what runs with overwrite => ''mismatched'' replaced, row by row, in the same transaction';
COMMENT ON COLUMN mend.replaced_values.run_id IS 'mend.runs.run_id: says which table and column';
COMMENT ON COLUMN mend.replaced_values.row_key IS 'the primary key of the row: {"id": 7}';
COMMENT ON COLUMN mend.replaced_values.old_value IS 'the value before the run, as text';
COMMENT ON COLUMN mend.replaced_values.new_value IS 'the value that the run wrote, as text';
COMMENT ON COLUMN mend.replaced_values.run_by IS 'the role whose rights the run had (current_user)';

-- A role reads and writes the records of its own runs; the extension's owner reads all.
ALTER TABLE mend.runs ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_runs ON mend.runs
  USING (run_by = CURRENT_USER)
  WITH CHECK (run_by = CURRENT_USER AND session_role = SESSION_USER);
COMMENT ON POLICY own_runs ON mend.runs IS 'a role sees its own runs and can write records in no other name';

CREATE POLICY owner_sees_all ON mend.runs FOR SELECT
  USING (EXISTS (SELECT FROM pg_catalog.pg_extension e
                 WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                   AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE')));
COMMENT ON POLICY owner_sees_all ON mend.runs IS 'the extension''s owner sees the runs of all roles';

ALTER TABLE mend.replaced_values ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_runs ON mend.replaced_values
  USING (run_by = CURRENT_USER)
  WITH CHECK (run_by = CURRENT_USER);
COMMENT ON POLICY own_runs ON mend.replaced_values IS 'a role sees what its own runs replaced';

CREATE POLICY owner_sees_all ON mend.replaced_values FOR SELECT
  USING (EXISTS (SELECT FROM pg_catalog.pg_extension e
                 WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                   AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE')));
COMMENT ON POLICY owner_sees_all ON mend.replaced_values IS 'the extension''s owner sees what the runs of all roles replaced';

CREATE TABLE mend.repaired_rows (
  run_id      bigint NOT NULL REFERENCES mend.runs DEFERRABLE INITIALLY DEFERRED,
  row_key     jsonb NOT NULL,
  old_values  jsonb NOT NULL,
  row_values  jsonb,
  restored_by bigint REFERENCES mend.runs DEFERRABLE INITIALLY DEFERRED,
  run_by      name NOT NULL DEFAULT CURRENT_USER
);
CREATE INDEX repaired_rows_of_run ON mend.repaired_rows (run_id);

COMMENT ON TABLE mend.repaired_rows IS 'what repair_orphans nullified, row by row, in the same transaction; restore_repaired puts it back';
COMMENT ON COLUMN mend.repaired_rows.run_id IS 'mend.runs.run_id: says which table and columns';
COMMENT ON COLUMN mend.repaired_rows.row_key IS 'the primary key of the row: {"id": 7}';
COMMENT ON COLUMN mend.repaired_rows.old_values IS 'the values before the run, as text: {"customer_id": "9"}';
COMMENT ON COLUMN mend.repaired_rows.row_values IS 'of a quarantine: the row, with the values before';
COMMENT ON COLUMN mend.repaired_rows.restored_by IS 'the run of restore_repaired that put it back';
COMMENT ON COLUMN mend.repaired_rows.run_by IS 'the role whose rights the run had (current_user)';

CREATE TABLE mend.created_rows (
  run_id     bigint NOT NULL REFERENCES mend.runs DEFERRABLE INITIALLY DEFERRED,
  table_name text NOT NULL,
  row_key    jsonb NOT NULL,
  run_by     name NOT NULL DEFAULT CURRENT_USER
);
CREATE INDEX created_rows_of_run ON mend.created_rows (run_id);

COMMENT ON TABLE mend.created_rows IS 'the parents that repair_orphans created, row by row, in the same transaction';
COMMENT ON COLUMN mend.created_rows.run_id IS 'mend.runs.run_id';
COMMENT ON COLUMN mend.created_rows.table_name IS 'the table of the new row, with its schema, quoted where needed';
COMMENT ON COLUMN mend.created_rows.row_key IS 'the key by which it is referenced: {"id": 7}';
COMMENT ON COLUMN mend.created_rows.run_by IS 'the role whose rights the run had (current_user)';

CREATE TABLE mend.reset_rows (
  run_id      bigint NOT NULL REFERENCES mend.runs DEFERRABLE INITIALLY DEFERRED,
  table_name  text NOT NULL,
  columns     text[] NOT NULL,
  row_text    text NOT NULL,
  restored_by bigint REFERENCES mend.runs DEFERRABLE INITIALLY DEFERRED,
  run_by      name NOT NULL DEFAULT CURRENT_USER
);
CREATE INDEX reset_rows_of_run ON mend.reset_rows (run_id);

COMMENT ON TABLE mend.reset_rows IS 'rows of tables that migration_reset dropped because include named them; restore_reset puts them back';
COMMENT ON COLUMN mend.reset_rows.run_id IS 'mend.runs.run_id';
COMMENT ON COLUMN mend.reset_rows.table_name IS 'the table of the row, with its schema, quoted where needed';
COMMENT ON COLUMN mend.reset_rows.columns IS 'names and types of its columns, in order';
COMMENT ON COLUMN mend.reset_rows.row_text IS 'the row, as text of the table''s row type';
COMMENT ON COLUMN mend.reset_rows.restored_by IS 'the run of restore_reset that put it back';
COMMENT ON COLUMN mend.reset_rows.run_by IS 'the role whose rights the run had (current_user)';

CREATE TABLE mend.reset_values (
  run_id      bigint NOT NULL REFERENCES mend.runs DEFERRABLE INITIALLY DEFERRED,
  table_name  text NOT NULL,
  column_name text NOT NULL,
  column_type text NOT NULL,
  row_key     jsonb NOT NULL,
  old_value   text NOT NULL,
  restored_by bigint REFERENCES mend.runs DEFERRABLE INITIALLY DEFERRED,
  run_by      name NOT NULL DEFAULT CURRENT_USER
);
CREATE INDEX reset_values_of_run ON mend.reset_values (run_id);

COMMENT ON TABLE mend.reset_values IS 'values of columns that migration_reset dropped because include named them; restore_reset puts them back';
COMMENT ON COLUMN mend.reset_values.run_id IS 'mend.runs.run_id';
COMMENT ON COLUMN mend.reset_values.table_name IS 'the table of the column, with its schema, quoted where needed';
COMMENT ON COLUMN mend.reset_values.column_name IS 'the bare name of the column';
COMMENT ON COLUMN mend.reset_values.column_type IS 'its type, as format_type writes it';
COMMENT ON COLUMN mend.reset_values.row_key IS 'the primary key of the row: {"id": 7}';
COMMENT ON COLUMN mend.reset_values.old_value IS 'the value, as text; rows where it was NULL are not kept';
COMMENT ON COLUMN mend.reset_values.restored_by IS 'the run of restore_reset that put it back';
COMMENT ON COLUMN mend.reset_values.run_by IS 'the role whose rights the run had (current_user)';

CREATE TABLE mend.declared_references (
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
  declared_by       name NOT NULL DEFAULT CURRENT_USER,
  declared_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
  CONSTRAINT declared_references_type CHECK ((type_column IS NULL) = (type_value IS NULL)),
  CONSTRAINT declared_references_parent CHECK ((parent_table IS NULL) = (parent_schema IS NULL)
                                               AND (parent_table IS NULL) = (parent_columns IS NULL))
);
CREATE UNIQUE INDEX declared_references_once ON mend.declared_references
  (table_schema, table_name, columns, COALESCE(type_column, ''), COALESCE(type_value, ''));

COMMENT ON TABLE mend.declared_references IS 'references that declare_reference() was told: soft and polymorphic ones, and columns that are none; by name, so that they survive a dump';
COMMENT ON COLUMN mend.declared_references.reference_id IS 'in the order of their declaration';
COMMENT ON COLUMN mend.declared_references.table_schema IS 'schema of the referencing table';
COMMENT ON COLUMN mend.declared_references.table_name IS 'the referencing table';
COMMENT ON COLUMN mend.declared_references.columns IS 'its columns, in the order of parent_columns';
COMMENT ON COLUMN mend.declared_references.type_column IS 'of a polymorphic reference: the column that says which table is meant';
COMMENT ON COLUMN mend.declared_references.type_value IS 'the text in type_column that means this parent';
COMMENT ON COLUMN mend.declared_references.parent_schema IS 'schema of the referenced table; NULL: the columns are no reference';
COMMENT ON COLUMN mend.declared_references.parent_table IS 'the referenced table';
COMMENT ON COLUMN mend.declared_references.parent_columns IS 'its key';
COMMENT ON COLUMN mend.declared_references.may_cross_tenants IS 'parents of other tenants are no violation';
COMMENT ON COLUMN mend.declared_references.declared_by IS 'the role that declared it, which alone (with the extension''s owner) may change it';
COMMENT ON COLUMN mend.declared_references.declared_at IS 'when';

ALTER TABLE mend.declared_references ENABLE ROW LEVEL SECURITY;

CREATE POLICY everybody_reads ON mend.declared_references FOR SELECT USING (true);
COMMENT ON POLICY everybody_reads ON mend.declared_references IS 'what a reference means is the same for all roles that may use pg_mend';

CREATE POLICY own_declarations ON mend.declared_references
  USING (declared_by = CURRENT_USER
         OR EXISTS (SELECT FROM pg_catalog.pg_extension e
                    WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                      AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE')))
  WITH CHECK (declared_by = CURRENT_USER);
COMMENT ON POLICY own_declarations ON mend.declared_references IS 'a role changes its own declarations, the extension''s owner all';

ALTER TABLE mend.repaired_rows ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_runs ON mend.repaired_rows
  USING (run_by = CURRENT_USER)
  WITH CHECK (run_by = CURRENT_USER);
COMMENT ON POLICY own_runs ON mend.repaired_rows IS 'a role sees what its own runs repaired';

CREATE POLICY owner_sees_all ON mend.repaired_rows FOR SELECT
  USING (EXISTS (SELECT FROM pg_catalog.pg_extension e
                 WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                   AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE')));
COMMENT ON POLICY owner_sees_all ON mend.repaired_rows IS 'the extension''s owner sees what the runs of all roles repaired';

ALTER TABLE mend.created_rows ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_runs ON mend.created_rows
  USING (run_by = CURRENT_USER)
  WITH CHECK (run_by = CURRENT_USER);
COMMENT ON POLICY own_runs ON mend.created_rows IS 'a role sees what its own runs created';

CREATE POLICY owner_sees_all ON mend.created_rows FOR SELECT
  USING (EXISTS (SELECT FROM pg_catalog.pg_extension e
                 WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                   AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE')));
COMMENT ON POLICY owner_sees_all ON mend.created_rows IS 'the extension''s owner sees what the runs of all roles created';

ALTER TABLE mend.reset_rows ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_runs ON mend.reset_rows
  USING (run_by = CURRENT_USER)
  WITH CHECK (run_by = CURRENT_USER);
COMMENT ON POLICY own_runs ON mend.reset_rows IS 'a role sees what its own runs dropped';

CREATE POLICY owner_sees_all ON mend.reset_rows FOR SELECT
  USING (EXISTS (SELECT FROM pg_catalog.pg_extension e
                 WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                   AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE')));
COMMENT ON POLICY owner_sees_all ON mend.reset_rows IS 'the extension''s owner sees what the runs of all roles dropped';

ALTER TABLE mend.reset_values ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_runs ON mend.reset_values
  USING (run_by = CURRENT_USER)
  WITH CHECK (run_by = CURRENT_USER);
COMMENT ON POLICY own_runs ON mend.reset_values IS 'a role sees what its own runs dropped';

CREATE POLICY owner_sees_all ON mend.reset_values FOR SELECT
  USING (EXISTS (SELECT FROM pg_catalog.pg_extension e
                 WHERE e.extname OPERATOR(pg_catalog.=) 'pg_mend'
                   AND pg_catalog.pg_has_role(CURRENT_USER, e.extowner, 'USAGE')));
COMMENT ON POLICY owner_sees_all ON mend.reset_values IS 'the extension''s owner sees what the runs of all roles dropped';

REVOKE ALL ON SCHEMA mend FROM PUBLIC;
REVOKE ALL ON mend.runs, mend.replaced_values, mend.repaired_rows, mend.created_rows, mend.reset_rows, mend.reset_values, mend.declared_references FROM PUBLIC;
REVOKE ALL ON SEQUENCE mend.runs_run_id_seq, mend.declared_references_reference_id_seq FROM PUBLIC;

-- Records are data, not definition: pg_dump takes them along.
SELECT pg_catalog.pg_extension_config_dump('mend.runs', '');
SELECT pg_catalog.pg_extension_config_dump('mend.replaced_values', '');
SELECT pg_catalog.pg_extension_config_dump('mend.repaired_rows', '');
SELECT pg_catalog.pg_extension_config_dump('mend.created_rows', '');
SELECT pg_catalog.pg_extension_config_dump('mend.reset_rows', '');
SELECT pg_catalog.pg_extension_config_dump('mend.reset_values', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('mend.runs', 'run_id'), '');
SELECT pg_catalog.pg_extension_config_dump('mend.declared_references', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('mend.declared_references', 'reference_id'), '');
