//! Repairing what `validate_tenant_fks` found, and putting it back.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{reasons, required_argument};
use crate::pg::Jsonb;
use crate::plan::Mode;
use crate::repair::{self, RepairRequest};
use crate::run::Session;
use crate::undo;

/// Repairs the rows that violate one reference, or (by default) counts what that would do. Never deletes a row.
///
/// * `table_name`, `column_name`: the reference, as `validate_tenant_fks` shows it: `customer_id`, `(tenant_id, ref)`.
/// * `action`: `nullify` (the reference becomes NULL; refused where it is NOT NULL), `quarantine` (likewise, with a copy of the
///   row), `create_parent` (one parent per missing key and tenant; a key that rows of two tenants reference is reported as
///   `two_tenants` and not created, nor one whose tenant is not known, `tenant_unknown`).
/// * `dry_run`: true counts and writes nothing; works read-only and on a standby.
/// * `set`: for `create_parent`, values of the other columns, `'{"kind": "CONTACT", "name": "Recovered {key}"}'`; `{key}` and
///   `{tenant}` in a text stand for those of the row.
/// * `violation`: `orphan`, or `cross_tenant`: rows whose parent is another tenant's.
/// * `parent_table`: which parent, where the column has more than one reference.
/// * `only_where`: a condition over the table's columns; only these rows.
/// * `root`: the table that holds the tenants, as in `validate_tenant_fks`.
///
/// Returns one row: `violations = repaired + unrepaired`, and `unrepaired` is the sum of `reasons`; `created` parents. A real
/// run is recorded in `mend.runs`, old values in `mend.repaired_rows` (see [`restore_repaired`]), new parents in
/// `mend.created_rows`.
///
/// Errors: 42P01, 42703, 42704 (names), 42P08 (several references), 23502 (NOT NULL; required columns of the parent, all at
/// once), 22P02 (values, with the labels of an enum), 22023, 42830 (no primary key), 0A000 (what cannot be predicted, or whose
/// a new parent would be), 42501, 25006 (read-only), 25000 (REPEATABLE READ), 40001.
///
/// ```sql
/// SELECT * FROM repair_orphans('WaitlistEntry', 'contactId', 'quarantine');
/// ```
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn repair_orphans(
    table_name: Option<&str>,
    column_name: Option<&str>,
    action: Option<&str>,
    dry_run: default!(Option<bool>, "true"),
    set: default!(Option<Jsonb>, "NULL"),
    violation: default!(Option<&str>, "'orphan'"),
    parent_table: default!(Option<&str>, "NULL"),
    only_where: default!(Option<&str>, "NULL"),
    root: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(parent_table, String),
            name!(action, String),
            name!(dry_run, bool),
            name!(violations, i64),
            name!(repaired, i64),
            name!(created, i64),
            name!(unrepaired, i64),
            name!(reasons, Jsonb),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let request = RepairRequest {
        table: required_argument(table_name, "table_name")?.to_string(),
        columns: required_argument(column_name, "column_name")?.to_string(),
        action: required_argument(action, "action")?.parse()?,
        mode: Mode::of(required_argument(dry_run, "dry_run")?),
        parent: parent_table.map(str::to_string),
        violation: required_argument(violation, "violation")?.parse()?,
        set: set.map(|set| set.value("set")).transpose()?,
        only_where: only_where.map(str::to_string),
        root: root.map(str::to_string),
    };
    let done = repair::repair(&Session::begin()?, &request)?;
    Ok(TableIterator::once((
        done.table,
        done.columns,
        done.parent,
        request.action.as_str().to_string(),
        !request.mode.is_real(),
        done.violations,
        done.repaired,
        done.created,
        done.violations - done.repaired,
        reasons(&done.reasons),
        done.run_id,
        done.note,
    )))
}

/// Puts back what a run of `repair_orphans` nullified or quarantined, where nobody changed it since.
///
/// * `run_id`: the run, as `repair_orphans` returned it.
/// * `dry_run`: true counts and writes nothing.
///
/// Returns one row: `total = restored + unrestored`, and `unrestored` is the sum of `reasons`: `already_restored`,
/// `row_is_gone`, `changed_since` (the reference is not NULL any more), `source_missing` (a foreign key refuses the old value,
/// its parent still is missing), `constraint_failed`.
///
/// Errors: 42704 if there is no such run of the caller's, 0A000 if it nullified nothing, 42501, 25006, 25000 (as in [`repair_orphans`]).
///
/// ```sql
/// SELECT * FROM restore_repaired(7);
/// ```
#[pg_extern]
fn restore_repaired(
    run_id: Option<i64>,
    dry_run: default!(Option<bool>, "true"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(dry_run, bool),
            name!(total, i64),
            name!(restored, i64),
            name!(unrestored, i64),
            name!(reasons, Jsonb),
            name!(run_id, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let (run, dry_run) = (
        required_argument(run_id, "run_id")?,
        required_argument(dry_run, "dry_run")?,
    );
    let done = undo::restore_repaired(&Session::begin()?, run, Mode::of(dry_run))?;
    Ok(TableIterator::once((
        done.table,
        done.columns.unwrap_or_default(),
        dry_run,
        done.total,
        done.undone,
        done.total - done.undone,
        reasons(&done.reasons),
        done.run_id,
    )))
}

/// Takes back what a run changed, where nobody has changed it since, or (by default) counts what that would do. An undo is a run itself,
/// and can be taken back as well.
///
/// * `run_id`: any real run of the caller's own: of `backfill…`, `repair_orphans`, `backfill_parents`, `migration_reset`, `undo_run`.
/// * `dry_run`: true counts and writes nothing.
///
/// Returns one row per table and kind of change (`filled`: NULL again; `replaced`, `nullified`, `restored`: the value of before; `created`:
/// the row is deleted, its values are kept in `mend.changes`; `row_dropped`, `value_dropped`: put back): `total = undone + left_as_is`, and
/// `left_as_is` is the sum of `reasons`: `already_restored`, `row_is_gone`, `changed_since` (of a filled or created row: whatever column
/// was written; and after a dump was restored, by which rows lose what tells them), `referenced` (something refers to the new row),
/// `source_missing` (a foreign key refuses the old value), `constraint_failed`.
///
/// Errors: 42704 if there is no such run of the caller's or it changed nothing, 42P01, 42703, 42501, 25006, 25000 (as in
/// [`repair_orphans`]), 27000, and whatever triggers raise: everything is left as it is then.
///
/// ```sql
/// SELECT * FROM undo_run(7);
/// ```
#[pg_extern]
fn undo_run(
    run_id: Option<i64>,
    dry_run: default!(Option<bool>, "true"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, Option<String>),
            name!(change, String),
            name!(dry_run, bool),
            name!(total, i64),
            name!(undone, i64),
            name!(left_as_is, i64),
            name!(reasons, Jsonb),
            name!(run_id, Option<i64>),
            name!(note, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let (run, dry_run) = (
        required_argument(run_id, "run_id")?,
        required_argument(dry_run, "dry_run")?,
    );
    let done = undo::undo(&Session::begin()?, run, Mode::of(dry_run))?;
    Ok(TableIterator::new(done.into_iter().map(move |part| {
        (
            part.table,
            part.columns,
            part.change,
            dry_run,
            part.total,
            part.undone,
            part.total - part.undone,
            reasons(&part.reasons),
            part.run_id,
            part.note,
        )
    })))
}
