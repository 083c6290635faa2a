//! References that the user declared, kept in `mend.declared_references`: soft ones, polymorphic ones, and columns that are
//! none whatever their name says. By name, not by id: names survive a dump.

use pgrx::prelude::*;

use super::key_reference::{KeyReference, Unchecked, shown};
use crate::catalog::{Catalog, Column, State, Table};
use crate::identifier::{Identifier, Literal, split_name};
use crate::problem::Problem;
use crate::rule::{Path, PathHop, typed};
use crate::run::{Session, state_tables, tenant_keys};

/// One row of `mend.declared_references`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    schema: String,
    table: String,
    columns: Vec<String>,
    type_column: Option<String>,
    type_value: Option<String>,
    /// Schema, table and key; `None`: the columns are no reference.
    pub parent: Option<(String, String, Vec<String>)>,
    /// The reference may lead to another tenant.
    pub may_cross_tenants: bool,
    /// The role that said so.
    pub declared_by: String,
}

impl Declaration {
    /// Is it about a column of `table`?
    pub fn is_of(&self, table: &Table) -> bool {
        self.schema == table.schema && self.table == table.name
    }

    /// Is it about exactly these columns of `table`?
    pub fn is_about(&self, table: &Table, columns: &[i16]) -> bool {
        self.is_of(table) && self.type_column.is_none() && self.columns == table.names_of(columns)
    }

    /// Does it lead to `parent`?
    pub fn is_to(&self, parent: &Table) -> bool {
        let to = self.parent.as_ref();
        to.is_some_and(|(schema, name, _)| *schema == parent.schema && *name == parent.name)
    }

    /// Numbers of its columns, as far as they still exist.
    pub fn column_numbers(&self, table: &Table) -> Vec<i16> {
        self.columns
            .iter()
            .filter_map(|name| Some(table.column_named(name)?.number))
            .collect()
    }

    /// The table as declared.
    pub fn table_shown(&self) -> String {
        format!("{}.{}", Identifier::new(&self.schema), Identifier::new(&self.table))
    }

    /// The reference that it means now; `None`: none at all.
    ///
    /// Errors: in words, what is gone or does not fit.
    pub fn resolve<'a>(&self, catalog: &'a Catalog, table: &'a Table) -> Result<Option<KeyReference<'a>>, String> {
        let Some((schema, name, key)) = &self.parent else {
            return Ok(None);
        };
        let parent = catalog.table_in(schema, name).ok_or_else(|| {
            format!(
                "table {}.{} does not exist any more",
                Identifier::new(schema),
                Identifier::new(name)
            )
        })?;
        for relation in [table, parent] {
            if catalog.runs_code_of_others(relation) {
                return Err(format!(
                    "{} is a view or a foreign table of another role, whose code would run with your rights",
                    catalog.display(relation)
                ));
            }
        }
        let columns = look_up(catalog, table, &self.columns)?;
        let key = look_up(catalog, parent, key)?;
        for (a, b) in columns.iter().zip(&key) {
            if !compare_as_keys(catalog, a, b) {
                return Err(format!(
                    "{} and {} of {} are of types that cannot be compared",
                    a.quoted,
                    b.quoted,
                    catalog.display(parent)
                ));
            }
        }
        let discriminator = match (&self.type_column, &self.type_value) {
            (Some(column), Some(value)) => {
                let found = look_up(catalog, table, std::slice::from_ref(column))?;
                Some((found[0].number, value.clone()))
            }
            _ => None,
        };
        let key: Vec<i16> = key.iter().map(|c| c.number).collect();
        Ok(Some(KeyReference {
            table,
            columns: columns.iter().map(|c| c.number).collect(),
            parent,
            unique: parent.is_unique(&key),
            within_tenant: false,
            key,
            constraint: None,
            state: State::Missing,
            match_full: false,
            discriminator,
            may_cross_tenants: self.may_cross_tenants,
            declaration: Some(self.attributed(catalog)),
        }))
    }

    /// As a row of the report: it cannot be checked.
    pub fn unchecked(&self, catalog: &Catalog, table: String, why: String) -> Unchecked {
        Unchecked {
            table,
            columns: self.columns_shown(),
            parent: self
                .parent
                .as_ref()
                .map(|(schema, name, _)| format!("{}.{}", Identifier::new(schema), Identifier::new(name))),
            constraint: None,
            state: Some(State::Missing),
            why: format!("{why}; declare_reference() or forget_reference() puts it right"),
            declaration: Some(self.attributed(catalog)),
        }
    }

    /// As a row of the report: the column is no reference.
    pub fn no_reference(&self, catalog: &Catalog, table: &Table) -> Unchecked {
        let shown = catalog.display(table);
        Unchecked {
            columns: self.columns_shown(),
            parent: None,
            constraint: None,
            state: None,
            why: format!(
                "declared to be no reference; SELECT forget_reference({}, {}) has it checked again",
                Literal::new(&shown),
                Literal::new(&self.columns_shown())
            ),
            declaration: Some(self.attributed(catalog)),
            table: shown,
        }
    }

    /// In words, and whose word it is.
    pub fn attributed(&self, catalog: &Catalog) -> String {
        format!("{}: {}", self.declared_by, self.described(catalog))
    }

    fn columns_shown(&self) -> String {
        let columns = self.type_column.iter().chain(&self.columns);
        shown(&columns.map(String::as_str).collect::<Vec<_>>())
    }

    /// The declaration in words: `ascora_jobs.customer_id -> ascora_customers(ascora_customer_id)`.
    fn described(&self, catalog: &Catalog) -> String {
        let display = |schema: &str, name: &str| match catalog.table_in(schema, name) {
            Some(table) => catalog.display(table),
            None => format!("{}.{}", Identifier::new(schema), Identifier::new(name)),
        };
        let child = format!("{}.{}", display(&self.schema, &self.table), self.columns_shown());
        let Some((schema, name, key)) = &self.parent else {
            return format!("{child} is no reference");
        };
        let when = match &self.type_value {
            Some(value) => format!(" where {} is '{value}'", self.type_column.clone().unwrap_or_default()),
            None => String::new(),
        };
        let crosses = match self.may_cross_tenants {
            true => ", also of another tenant",
            false => "",
        };
        format!(
            "{child} -> {}({}){when}{crosses}",
            display(schema, name),
            key.join(", ")
        )
    }
}

fn look_up<'a>(catalog: &Catalog, table: &'a Table, names: &[String]) -> Result<Vec<&'a Column>, String> {
    names
        .iter()
        .map(|name| {
            table.column_named(name).ok_or_else(|| {
                format!(
                    "column {} of {} does not exist any more",
                    Identifier::new(name),
                    catalog.display(table)
                )
            })
        })
        .collect()
}

/// Everything that was declared and counts now, in the order of its declaration: the author has the rights of the owner of the
/// referencing table, or of the extension's owner.
///
/// Errors: 42501 if the role was never given what it needs.
pub fn load(session: &Session) -> Result<Vec<Declaration>, Problem> {
    let readable = session
        .catalog
        .table_in("mend", "declared_references")
        .is_some_and(|state| state.may_use_schema && state.may_select);
    if !readable {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "permission denied to read mend.declared_references",
        )
        .hint("one call by the extension's owner gives a role all that it needs: SELECT grant_mend('role')"));
    }
    let sql = "SELECT table_schema, table_name, columns, type_column, type_value, parent_schema, parent_table, parent_columns,
                      may_cross_tenants, declared_by::pg_catalog.text
               FROM mend.declared_references WHERE in_force ORDER BY reference_id";
    let declared = Spi::connect(|client| {
        let mut declared = Vec::new();
        for row in client.select(sql, None, &[])? {
            let text = |column: usize| Ok::<_, spi::SpiError>(row.get::<String>(column)?.unwrap_or_default());
            let list = |column: usize| {
                let list = row.get::<Vec<Option<String>>>(column)?.unwrap_or_default();
                Ok::<_, spi::SpiError>(list.into_iter().flatten().collect::<Vec<String>>())
            };
            let parent = match row.get::<String>(7)? {
                Some(table) => Some((text(6)?, table, list(8)?)),
                None => None,
            };
            declared.push(Declaration {
                schema: text(1)?,
                table: text(2)?,
                columns: list(3)?,
                type_column: row.get(4)?,
                type_value: row.get(5)?,
                parent,
                may_cross_tenants: row.get(9)?.unwrap_or(false),
                declared_by: text(10)?,
            });
        }
        Ok::<_, spi::SpiError>(declared)
    })?;
    Ok(declared)
}

/// What `declare_reference` was asked.
#[derive(Debug, Clone)]
pub struct DeclareReferenceRequest {
    /// As typed.
    pub table: String,
    /// As typed: `customer_id`, `(tenant_id, ref)`, `(resource_type, resource_id)`.
    pub columns: String,
    /// As typed: `customers`, `customers(external_id)`; `None`: the columns are no reference.
    pub parent: Option<String>,
    /// Which text of the first column means this parent.
    pub type_value: Option<String>,
    /// The reference may lead to another tenant.
    pub may_cross_tenants: bool,
}

/// Keeps a reference in `mend.declared_references`, in the place of what was declared of the same columns (and type)
/// before; returns it in words.
///
/// Errors: 42P01, 42703 (names), 42601 (grammar), 42804 (types), 42830 (no key), 42501 where somebody else declared it.
pub fn declare(session: &Session, request: &DeclareReferenceRequest) -> Result<String, Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(&request.table)?;
    tenant_keys::may_declare(
        table,
        &format!("references of {}", catalog.display(table)),
        "for one call, name the columns yourself: backfill(..., sources => ARRAY[...])",
    )?;
    if request.parent.is_none() && request.type_value.is_some() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "a type of a polymorphic reference needs a parent",
        )
        .hint("forget_reference() takes a type back; a column that is no reference is declared without type_value"));
    }
    let path = parse(&request.columns, request.parent.as_deref())?;
    let mut columns: Vec<&Column> = Vec::new();
    for name in &path.columns {
        columns.push(catalog.resolve_column(table, name)?);
    }
    let type_column = match request.type_value {
        Some(_) if columns.len() < 2 => {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "type_value needs a column that holds the type",
            )
            .hint("name it first: declare_reference('attachments', '(resource_type, resource_id)', 'invoices(id)', type_value => 'invoice')"));
        }
        Some(_) => Some(columns.remove(0)),
        None => None,
    };
    let parent = path
        .hops
        .first()
        .map(|hop| referenced(catalog, table, &columns, hop))
        .transpose()?;
    let names = |columns: &[&Column]| columns.iter().map(|c| c.name.clone()).collect::<Vec<String>>();
    let declaration = Declaration {
        schema: table.schema.clone(),
        table: table.name.clone(),
        columns: names(&columns),
        type_column: type_column.map(|c| c.name.clone()),
        type_value: request.type_value.clone(),
        parent: parent
            .as_ref()
            .map(|(parent, key)| (parent.schema.clone(), parent.name.clone(), names(key))),
        may_cross_tenants: request.may_cross_tenants,
        declared_by: session.role.clone(),
    };
    for relation in parent.iter().map(|(parent, _)| *parent).chain([table]) {
        if catalog.runs_code_of_others(relation) {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!(
                    "{} is a view or a foreign table of another role",
                    catalog.display(relation)
                ),
            )
            .detail("whoever checks the reference would run that role's code")
            .hint("name the table below it"));
        }
    }
    state_tables::ours(|| {
        remove(session, &declaration)?;
        insert(session, &declaration)
    })?;
    Ok(declaration.described(catalog))
}

/// Forgets what was declared of these columns; returns how many declarations that were.
///
/// Errors: 42704 where there is none that is the caller's.
pub fn forget(session: &Session, table: &str, columns: &str, type_value: Option<&str>) -> Result<i64, Problem> {
    let typed = parse(columns, None)?;
    // The table may be gone.
    let found = session.catalog.resolve_table(table);
    let (schema, name, names): (Option<String>, String, Vec<String>) = match &found {
        Ok(table) => {
            let names = typed
                .columns
                .iter()
                .map(|name| match session.catalog.resolve_column(table, name) {
                    Ok(column) => column.name.clone(),
                    Err(_) => name.clone(),
                });
            (Some(table.schema.clone()), table.name.clone(), names.collect())
        }
        Err(_) => {
            let bare = |name: &str| match split_name(name) {
                Some(parts) if parts.len() == 1 => parts[0].text.clone(),
                _ => name.to_string(),
            };
            let mut parts: Vec<String> = split_name(table).into_iter().flatten().map(|part| part.text).collect();
            let name = parts.pop().unwrap_or_default();
            (
                parts.pop(),
                name,
                typed.columns.iter().map(|column| bare(column)).collect(),
            )
        }
    };
    let sql = "DELETE FROM mend.ledger_references d
               WHERE ($1 IS NULL OR d.table_schema = $1) AND d.table_name = $2
                 AND (pg_catalog.array_remove(ARRAY[d.type_column], NULL) || d.columns = $3 OR d.columns = $3)
                 AND ($4 IS NULL OR d.type_value = $4)";
    let sql = format!("{sql} AND {}", may_change("$5"));
    let arguments = [
        schema.into(),
        name.into(),
        names.into(),
        type_value.into(),
        session.role.as_str().into(),
    ];
    let gone = state_tables::ours(|| {
        Ok(Spi::connect_mut(|client| {
            Ok::<_, spi::SpiError>(client.update(&sql, None, &arguments)?.len())
        })?)
    })?;
    match gone {
        0 => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("nothing that you may change was declared of {columns} of {table}"),
        )
        .hint("SELECT * FROM mend.declared_references shows what was, and by whom")),
        gone => Ok(gone as i64),
    }
}

/// The table and key that a person typed as the parent of a column: `customers`, `customers(external_id)`.
///
/// Errors: 42P01, 42703 (names), 42601 (grammar), 42804 (types), 42830 (no key).
pub fn parent_typed<'a>(
    catalog: &'a Catalog,
    table: &Table,
    column: &Column,
    parent: &str,
) -> Result<(&'a Table, Vec<&'a Column>), Problem> {
    let path = parse(&typed(&column.name), Some(parent))?;
    referenced(catalog, table, &[column], &path.hops[0])
}

fn referenced<'a>(
    catalog: &'a Catalog,
    table: &Table,
    columns: &[&Column],
    hop: &PathHop,
) -> Result<(&'a Table, Vec<&'a Column>), Problem> {
    let parent = catalog.resolve_table(&hop.table)?;
    let key: Vec<&Column> = match &hop.key {
        Some(names) => names
            .iter()
            .map(|name| catalog.resolve_column(parent, name))
            .collect::<Result<_, _>>()?,
        None => primary_key(catalog, parent, columns.len())?,
    };
    fits(catalog, table, columns, parent, &key)?;
    Ok((parent, key))
}

/// The columns that a person typed: `customer_id`, `(tenant_id, "odd, name")`.
///
/// Errors: 42601 (grammar).
pub fn columns_typed(text: &str) -> Result<Vec<String>, Problem> {
    Ok(parse(text, None)?.columns)
}

fn parse(columns: &str, parent: Option<&str>) -> Result<Path, Problem> {
    // As a path, whose grammar people know; what is taken from the parent does not matter.
    let text = match parent {
        Some(parent) => format!("{columns} -> {parent}.value"),
        None => format!("{columns} -> no_table.value"),
    };
    let mut path: Path = text.parse().map_err(|_| unreadable(columns, parent))?;
    if parent.is_none() {
        path.hops.clear();
    }
    if path.hops.len() > 1 {
        return Err(unreadable(columns, parent));
    }
    Ok(path)
}

fn unreadable(columns: &str, parent: Option<&str>) -> Problem {
    let parent = parent.map(|p| format!(" -> {p}")).unwrap_or_default();
    Problem::new(
        PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
        format!("cannot read {columns}{parent}"),
    )
    .detail("columns read like 'customer_id' or '(tenant_id, ref)', a parent like 'customers' or 'customers(tenant_id, ref)'")
    .hint("for example declare_reference('jobs', 'customer_id', 'customers(external_id)')")
}

/// Can values of the two types be compared without an operator that the parent's key does not have?
fn compare_as_keys(catalog: &Catalog, a: &Column, b: &Column) -> bool {
    let (Some((a, _)), Some((b, _))) = (catalog.base_type(a.type_oid, -1), catalog.base_type(b.type_oid, -1)) else {
        return false;
    };
    let number =
        |t: &crate::catalog::Type| t.integer_range().is_some() || t.schema == "pg_catalog" && t.name == "numeric";
    a.oid == b.oid && a.equality.is_some() || a.is_string() && b.is_string() || number(a) && number(b)
}

fn primary_key<'a>(catalog: &Catalog, parent: &'a Table, width: usize) -> Result<Vec<&'a Column>, Problem> {
    let key = parent.primary_key().filter(|key| key.columns.len() == width);
    let columns = key.map(|key| key.columns.iter().filter_map(|c| parent.column(*c)).collect());
    columns.ok_or_else(|| {
        let shown = catalog.display(parent);
        Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
            format!(
                "{shown} has no primary key of {width} column{}",
                if width == 1 { "" } else { "s" }
            ),
        )
        .hint(format!("name the key: '{shown}(column)'"))
    })
}

fn fits(catalog: &Catalog, table: &Table, columns: &[&Column], parent: &Table, key: &[&Column]) -> Result<(), Problem> {
    if columns.len() != key.len() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
            format!("{} columns cannot mean a key of {}", columns.len(), key.len()),
        )
        .hint("write both sides with the same number of columns; where the first one holds the type of the row, pass type_value"));
    }
    for (a, b) in columns.iter().zip(key) {
        if !compare_as_keys(catalog, a, b) {
            let type_of = |c: &Column| {
                catalog
                    .type_of(c.type_oid)
                    .map(|t| t.display.clone())
                    .unwrap_or_default()
            };
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "{}.{} ({}) cannot be compared with {}.{} ({})",
                    catalog.display(table),
                    a.quoted,
                    type_of(a),
                    catalog.display(parent),
                    b.quoted,
                    type_of(b)
                ),
            )
            .hint("give one side the type of the other (a generated column will do), then declare that column"));
        }
    }
    Ok(())
}

/// The condition that a role may change a declaration `d`: it is its own, it does not count any more, or the role has the rights of the
/// extension's owner.
///
/// * `role`: an expression, the name of the role.
fn may_change(role: &str) -> String {
    format!(
        "(d.declared_by = {role}::pg_catalog.name
          OR NOT EXISTS (SELECT FROM mend.declared_references f WHERE f.reference_id = d.reference_id AND f.in_force)
          OR EXISTS (SELECT FROM pg_extension e
                     WHERE e.extname = 'pg_mend' AND pg_has_role({role}::pg_catalog.name, e.extowner, 'USAGE')))"
    )
}

/// The same columns have one meaning, and the same type one parent.
fn remove(session: &Session, declaration: &Declaration) -> Result<(), Problem> {
    let sql = format!(
        "DELETE FROM mend.ledger_references d
         WHERE d.table_schema = $1 AND d.table_name = $2 AND d.columns = $3
           AND (d.type_column IS DISTINCT FROM $4 OR d.type_value IS NOT DISTINCT FROM $5)
           AND {}",
        may_change("$6")
    );
    let arguments = [
        declaration.schema.clone().into(),
        declaration.table.clone().into(),
        declaration.columns.clone().into(),
        declaration.type_column.clone().into(),
        declaration.type_value.clone().into(),
        session.role.as_str().into(),
    ];
    Ok(Spi::connect_mut(|client| {
        client.update(&sql, None, &arguments).map(|_| ())
    })?)
}

fn insert(session: &Session, declaration: &Declaration) -> Result<(), Problem> {
    let sql = "INSERT INTO mend.ledger_references
                 (table_schema, table_name, columns, type_column, type_value, parent_schema, parent_table, parent_columns,
                  may_cross_tenants, declared_by)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::pg_catalog.name)
               ON CONFLICT DO NOTHING";
    let (schema, table, key) = match declaration.parent.clone() {
        Some((schema, table, key)) => (Some(schema), Some(table), Some(key)),
        None => (None, None, None),
    };
    let arguments = [
        declaration.schema.clone().into(),
        declaration.table.clone().into(),
        declaration.columns.clone().into(),
        declaration.type_column.clone().into(),
        declaration.type_value.clone().into(),
        schema.into(),
        table.into(),
        key.into(),
        declaration.may_cross_tenants.into(),
        session.role.as_str().into(),
    ];
    let written = Spi::connect_mut(|client| Ok::<_, spi::SpiError>(client.update(sql, None, &arguments)?.len()))?;
    match written {
        // What is left in its place is another role's.
        0 => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!(
                "another role has declared {} already",
                declaration.described(&session.catalog)
            ),
        )
        .hint("SELECT * FROM mend.declared_references shows who; that role, or the extension's owner, can change it")),
        _ => Ok(()),
    }
}
