//! Checking references, and declaring those that no catalog knows.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::required_argument;
use crate::pg::Jsonb;
use crate::problem::Problem;
use crate::run::{Session, tenant_keys};
use crate::validate::declared::{self, DeclareReferenceRequest};
use crate::validate::{self, ValidateRequest};

/// Every reference, checked against the rows: orphans, parents of other tenants, tenants that are not known.
///
/// * `root`: the table that holds the tenants; NULL: the setting `pg_mend.tenant_root`, else inferred; `''`: leave tenants out.
/// * `table_name`: references of this table only; NULL: of all.
/// * `include_inferred`: also references that no foreign key declares: by name and type (`domain_id`, `customerId`), and those of
///   [`declare_reference`]. Likewise for the tenant of a row. A column that means a table whose primary key is (tenant, id) is a reference
///   together with its own row's tenant key; a row that only another tenant has is `cross_tenant`, not an orphan.
/// * `samples`: how many keys of each kind of violation are shown.
///
/// Returns one row per reference and a last one, `total`. `rows_checked`: rows whose reference is set, each of which was looked up
/// (a valid constraint is not taken as proof). `orphans`: no such parent, or a partly NULL key of MATCH FULL. `cross_tenant`: the
/// parent is another tenant's; NULL where a side's rows are everybody's. `null_tenant`, `parent_null_tenant`: the tenant of a
/// side is NULL, so that nothing could be compared (of the tenant key itself: all rows without one). `verdict`: `ok`,
/// `violations`, `not_checked` (`fix` says why). `fix` is the next call. `declaration`: what of [`declare_reference`] the row rests on, and
/// whose word it is. Reads every table once; of views and foreign tables of roles that the caller does not trust, none.
///
/// Errors: 42P08 (ambiguous root, with the candidates), 42P01, 42703; 42501 with every table that may not be read or whose
/// policies would hide rows; 22023 for negative `samples`.
///
/// ```sql
/// SELECT * FROM validate_tenant_fks() WHERE verdict <> 'ok';
/// ```
#[pg_extern]
fn validate_tenant_fks(
    root: default!(Option<&str>, "NULL"),
    table_name: default!(Option<&str>, "NULL"),
    include_inferred: default!(Option<bool>, "true"),
    samples: default!(Option<i32>, "5"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(column_name, String),
            name!(parent_table, Option<String>),
            name!(parent_column, Option<String>),
            name!(constraint_name, Option<String>),
            name!(constraint_state, Option<String>),
            name!(rows_checked, i64),
            name!(orphans, Option<i64>),
            name!(cross_tenant, Option<i64>),
            name!(null_tenant, Option<i64>),
            name!(parent_null_tenant, Option<i64>),
            name!(verdict, String),
            name!(sample, Option<Jsonb>),
            name!(fix, Option<String>),
            name!(declaration, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let samples = required_argument(samples, "samples")?;
    if samples < 0 {
        let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
        return Err(Problem::new(code, "samples must not be negative")
            .hint("samples => 5 shows the first five keys of each kind, 0 none")
            .into());
    }
    let request = ValidateRequest {
        root: root.map(str::to_string),
        table: table_name.map(str::to_string),
        include_inferred: required_argument(include_inferred, "include_inferred")?,
        samples,
    };
    let rows = validate::validate(&Session::begin()?, &request)?;
    Ok(TableIterator::new(rows.into_iter().map(|row| {
        (
            row.table,
            row.columns,
            row.parent,
            row.key,
            row.constraint,
            row.state.map(|state| state.as_str().to_string()),
            row.rows_checked,
            row.orphans,
            row.cross_tenant,
            row.null_tenant,
            row.parent_null_tenant,
            row.verdict.as_str().to_string(),
            row.sample,
            row.fix,
            row.declaration,
        )
    })))
}

/// Declares a reference that no foreign key can: soft ones, polymorphic ones; or says that a column is none.
///
/// * `table_name`, `column_name`: the referencing side: `customer_id`, `(tenant_id, ref)`, `(resource_type, resource_id)`.
/// * `parent`: the other side: `customers` (its primary key) or `customers(external_id)`; NULL: whatever its name says, the
///   column is no reference.
/// * `type_value`: of a polymorphic reference, the text of the first column that means this parent; one call per type.
/// * `may_cross_tenants`: parents of other tenants are no violation.
///
/// Kept in `mend.declared_references`, in the place of what was declared of the same columns before. Returns it in words. It holds for
/// all roles, while its author has the rights of the table's owner, or of the extension's.
///
/// Errors: 42P01, 42703 (names, with the nearest ones), 42601 (grammar), 42804 (types), 42830 (no primary key), 22023, 42501
/// for who has neither the rights of the table's owner nor those of the extension's, for views and foreign tables of other roles, and
/// where another role declared it.
///
/// ```sql
/// SELECT declare_reference('ascora_jobs', 'customer_id', 'ascora_customers(ascora_customer_id)');
/// ```
#[pg_extern]
fn declare_reference(
    table_name: Option<&str>,
    column_name: Option<&str>,
    parent: Option<&str>,
    type_value: default!(Option<&str>, "NULL"),
    may_cross_tenants: default!(Option<bool>, "false"),
) -> Result<String, ErrorReport> {
    let request = DeclareReferenceRequest {
        table: required_argument(table_name, "table_name")?.to_string(),
        columns: required_argument(column_name, "column_name")?.to_string(),
        parent: parent.map(str::to_string),
        type_value: type_value.map(str::to_string),
        may_cross_tenants: required_argument(may_cross_tenants, "may_cross_tenants")?,
    };
    Ok(declared::declare(&Session::begin()?, &request)?)
}

/// Forgets what [`declare_reference`] was told of these columns; returns how many declarations that were.
///
/// * `type_value`: only this type; NULL: all.
///
/// Errors: 42704 where nothing that the caller may change was declared; 42601 (grammar).
///
/// ```sql
/// SELECT forget_reference('ascora_jobs', 'customer_id');
/// ```
#[pg_extern]
fn forget_reference(
    table_name: Option<&str>,
    column_name: Option<&str>,
    type_value: default!(Option<&str>, "NULL"),
) -> Result<i64, ErrorReport> {
    let (table, columns) = (
        required_argument(table_name, "table_name")?,
        required_argument(column_name, "column_name")?,
    );
    Ok(declared::forget(&Session::begin()?, table, columns, type_value)?)
}

/// Says which column of a table is its tenant key, where it is not the one that would be inferred, or that none is.
///
/// * `column_name`: the column; NULL: none of them says whose the rows are, so that it is found through their parents, or they are shared.
///
/// Kept in `mend.declared_tenant_keys`, in the place of what was declared of the table before. Returns it in words. It holds for every call
/// (guards, `tenant =>`, `tenant_columns`, coverage, validation, parents, repairs, finalize, report) and for all roles, while its author has
/// the rights of the table's owner, or of the extension's.
///
/// Errors: 42P01, 42703 (names, with the nearest ones), 42809 for a view, 42501 for who has neither the rights of the table's owner nor those
/// of the extension's.
///
/// ```sql
/// SELECT declare_tenant_key('orders', 'assigned_to');
/// ```
#[pg_extern]
fn declare_tenant_key(table_name: Option<&str>, column_name: Option<&str>) -> Result<String, ErrorReport> {
    let table = required_argument(table_name, "table_name")?;
    Ok(tenant_keys::declare(&Session::begin()?, table, column_name)?)
}

/// Forgets what [`declare_tenant_key`] was told of a table.
///
/// Errors: 42P01, 42501; 42704 where nothing was declared.
///
/// ```sql
/// SELECT forget_tenant_key('orders');
/// ```
#[pg_extern]
fn forget_tenant_key(table_name: Option<&str>) -> Result<String, ErrorReport> {
    let table = required_argument(table_name, "table_name")?;
    Ok(tenant_keys::forget(&Session::begin()?, table)?)
}
