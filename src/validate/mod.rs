//! Every reference checked against the rows themselves: orphans, parents of other tenants, unknown tenants.
//!
//! ```text
//! reference   which references there are: foreign keys, those that are only meant, those that the user declared
//! resolver       whose the rows of a table are
//! pass        one statement per table that judges all its references; pure
//! ```
//!
//! A constraint is never taken as proof: a foreign key that is valid in the catalog is read like any other.

mod checked;
pub mod declared;
mod fix;
pub mod joins;
mod key_reference;
mod memory;
pub mod pass;
pub mod reference;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiError;
use serde_json::json;

use crate::catalog::Table;
use crate::infer::InferError;
use crate::infer::tenancy::keys::TenantKeys;
use crate::infer::tenancy::root;
use crate::pg::{Instant, Jsonb, read_rows};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::{Session, tenant_keys};
pub use checked::{Checked, Verdict};
pub use memory::{Memory, may_be_read, reading};

use crate::infer::tenancy::resolver::TenantResolver;
use pass::{Conditions, Numbers, Pass};
use reference::{Found, KeyReference, Unchecked};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct ValidateRequest {
    /// The table that holds the tenants, as typed; empty: there is none; `None`: the setting, else inferred.
    pub root: Option<String>,
    /// One table, or all.
    pub table: Option<String>,
    /// Also references, keys and paths that no foreign key declares.
    pub include_inferred: bool,
    /// How many keys of each kind of violation are shown.
    pub samples: i32,
}

/// The tenants to compare with: those of the root that the call or the setting names, else the inferred one; `None` where
/// the database has none, or the call says so by an empty name.
///
/// Errors: 42P08 if several tables could hold the tenants; those of `run::tenant_keys` for a root that was named.
pub fn tenants<'a>(session: &'a Session, named: Option<&str>) -> Result<Option<TenantKeys<'a>>, Problem> {
    match named {
        Some(name) if name.trim().is_empty() => return Ok(None),
        Some(_) => return tenant_keys(session, named).map(Some),
        None if session.tenant_root()?.is_some() => return tenant_keys(session, None).map(Some),
        None => {}
    }
    match root::find(&session.catalog) {
        Ok(root) => Ok(TenantKeys::find(&session.catalog, root).ok()),
        Err(InferError::NoSingleRoot { choices }) if choices.is_empty() => Ok(None),
        Err(error) => {
            let problem = Problem::from(error);
            let hint = problem.hint.clone().unwrap_or_default();
            Err(problem.hint(format!(
                "{hint}; or root => '' to check references only, without tenants"
            )))
        }
    }
}

/// One table with its references, ready to be read.
struct TablePass<'a> {
    pass: Pass<'a>,
    references: Vec<(KeyReference<'a>, Conditions, Numbers)>,
    /// Per polymorphic reference: columns, the rows whose type is not declared.
    unknown_types: Vec<(String, String, pass::Number)>,
}

/// Checks references; one row each, and one that sums up.
///
/// Errors: 42P01, 42P08 and 42703 for the names; 42501 with every table that may not be read, or of which policies would
/// hide rows.
pub fn validate(session: &Session, request: &ValidateRequest) -> Result<Vec<Checked>, Problem> {
    let catalog = &session.catalog;
    let only = request
        .table
        .as_ref()
        .map(|name| catalog.resolve_table(name))
        .transpose()?;
    let keys = tenants(session, request.root.as_deref())?;
    let resolver = TenantResolver::new(keys, request.include_inferred);
    let declared = declared::load(session)?;
    let found = reference::collect(catalog, only, request.include_inferred, &declared);

    let mut problems = Problems::default();
    let mut steps: Vec<TablePass> = Vec::new();
    let mut unchecked: Vec<(usize, Checked)> = Vec::new();
    for found in found {
        match found {
            Found::Reference(reference) => {
                if steps
                    .last()
                    .is_none_or(|step| step.references[0].0.table.oid != reference.table.oid)
                {
                    steps.push(TablePass {
                        pass: Pass::over(catalog, &resolver, reference.table),
                        references: vec![],
                        unknown_types: vec![],
                    });
                }
                if let Some(step) = steps.last_mut() {
                    let conditions = step.pass.conditions(&reference);
                    let numbers = step.pass.count(&conditions);
                    step.references.push((reference, conditions, numbers));
                }
            }
            Found::Unchecked(reference) => unchecked.push((steps.len(), not_checked(reference))),
        }
    }
    for step in &mut steps {
        step.count_unknown_types();
        may_be_read(session, &step.pass, &mut problems);
    }
    problems.into_result()?;
    session.hold(steps.iter().flat_map(|step| step.pass.reads()).map(|(table, _)| *table))?;

    let _settings = reading();
    let memory = Memory::read()?;
    let mut result: Vec<Checked> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        pgrx::check_for_interrupts!();
        result.extend(
            unchecked
                .iter()
                .filter(|(place, _)| *place == at)
                .map(|(_, row)| row.clone()),
        );
        result.extend(step.check(session, &resolver, request.samples, &memory)?);
    }
    result.extend(
        unchecked
            .into_iter()
            .filter(|(place, _)| *place == steps.len())
            .map(|(_, row)| row),
    );
    let root = resolver.root().map(|root| catalog.display(root));
    let total = total(&result, root.as_deref());
    result.push(total);
    Ok(result)
}

/// Checks one reference, whoever asked for it.
///
/// Errors: 42501 with every table that may not be read, or of which policies would hide rows.
pub fn check_one(session: &Session, resolver: &TenantResolver, reference: &KeyReference) -> Result<Checked, Problem> {
    let mut pass = Pass::over(&session.catalog, resolver, reference.table);
    let conditions = pass.conditions(reference);
    let numbers = pass.count(&conditions);
    let step = TablePass {
        pass,
        references: vec![(reference.clone(), conditions, numbers)],
        unknown_types: vec![],
    };
    let mut problems = Problems::default();
    may_be_read(session, &step.pass, &mut problems);
    problems.into_result()?;
    session.hold(step.pass.reads().iter().map(|(table, _)| *table))?;
    let _settings = reading();
    let mut checked = step.check(session, resolver, 0, &Memory::read()?)?;
    Ok(checked.remove(0))
}

/// Values of parameters, all text.
pub fn arguments(parameters: &[String]) -> Vec<DatumWithOid<'_>> {
    parameters.iter().map(|value| value.as_str().into()).collect()
}

impl<'a> TablePass<'a> {
    /// Rows of a polymorphic reference whose type was not declared point nowhere.
    fn count_unknown_types(&mut self) {
        let mut seen: Vec<(i16, Vec<i16>)> = Vec::new();
        for at in 0..self.references.len() {
            let reference = &self.references[at].0;
            let Some((column, _)) = &reference.discriminator else {
                continue;
            };
            let by = (*column, reference.columns.clone());
            if seen.contains(&by) {
                continue;
            }
            let same = self
                .references
                .iter()
                .filter(|(r, _, _)| r.columns == by.1 && r.discriminator.as_ref().is_some_and(|(c, _)| *c == by.0));
            let known: Vec<String> = same
                .map(|(_, conditions, _)| format!("({}) IS TRUE", conditions.set))
                .collect();
            let set: Vec<String> = reference
                .table
                .columns
                .iter()
                .filter(|c| reference.columns.contains(&c.number))
                .map(|c| format!("t.{} IS NOT NULL", c.sql()))
                .collect();
            let condition = format!("{} AND NOT ({})", set.join(" AND "), known.join(" OR "));
            let columns = reference.columns_typed();
            let number = self.pass.counted(&condition);
            self.unknown_types.push((columns, condition, number));
            seen.push(by);
        }
    }

    fn check(
        &self,
        session: &Session,
        resolver: &TenantResolver,
        samples: i32,
        memory: &Memory,
    ) -> Result<Vec<Checked>, Problem> {
        let _memory = memory.for_joins(self.pass.width());
        let row = self.read()?;
        let mut result = Vec::new();
        for (reference, conditions, numbers) in &self.references {
            let mut checked = judged(session, resolver, reference, numbers, &row);
            checked.sample = self.sample(reference.table, conditions, &checked, samples)?;
            result.push(checked);
        }
        for (columns, condition, number) in &self.unknown_types {
            let rows = number.of(&row).unwrap_or(0);
            if rows > 0 {
                let table = self.references[0].0.table;
                result.push(Checked {
                    sample: match samples {
                        0 => None,
                        samples => Some(Jsonb(format!(
                            "{{\"orphans\": {}}}",
                            self.keys(table, condition, samples)?
                        ))),
                    },
                    ..fix::unknown_types(session.catalog.display(table), columns.clone(), rows)
                });
            }
        }
        Ok(result)
    }

    fn read(&self) -> Result<Vec<i64>, Problem> {
        let (sql, width) = (self.pass.statement(), self.pass.numbers());
        let arguments = arguments(&self.pass.parameters);
        let row = Spi::connect(|client| {
            let row = client.select(&sql, None, &arguments)?.first();
            (1..=width)
                .map(|i| row.get::<i64>(i))
                .collect::<Result<Vec<_>, SpiError>>()
        })?;
        // A count must never pass for 0 because it could not be read.
        row.into_iter().collect::<Option<Vec<i64>>>().ok_or_else(|| {
            Problem::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "pg_mend counted NULL, which is no number",
            )
            .hint("this is a bug in pg_mend: please report it with the call that you made")
        })
    }

    fn sample(
        &self,
        table: &Table,
        conditions: &Conditions,
        checked: &Checked,
        samples: i32,
    ) -> Result<Option<Jsonb>, Problem> {
        let mut shown = Vec::new();
        let tenants = conditions.tenants.as_ref();
        for (kind, rows) in checked.kinds() {
            let condition = match kind {
                "orphans" => Some(&conditions.orphan),
                "cross_tenant" => tenants.map(|t| &t.cross),
                "null_tenant" => tenants.map(|t| &t.null_tenant),
                _ => tenants.map(|t| &t.parent_null),
            };
            if let (Some(condition), true, true) = (condition, rows.is_some_and(|rows| rows > 0), samples > 0) {
                shown.push(format!("\"{kind}\": {}", self.keys(table, condition, samples)?));
            }
        }
        Ok((!shown.is_empty()).then(|| Jsonb(format!("{{{}}}", shown.join(", ")))))
    }

    /// Keys of the first rows for which a condition holds; none where the caller may not see which rows they are.
    fn keys(&self, table: &Table, condition: &str, samples: i32) -> Result<String, Problem> {
        if table.primary_key().is_none() && !(table.may_select && table.is_table()) {
            return Ok("[]".into());
        }
        let sql = self.pass.rows(condition, samples);
        let _now = Instant::of_statement();
        let rows = read_rows(&sql, &self.pass.parameters)?;
        let keys: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next()?).collect();
        Ok(format!("[{}]", keys.join(", ")))
    }
}

fn judged(
    session: &Session,
    resolver: &TenantResolver,
    reference: &KeyReference,
    numbers: &Numbers,
    row: &[i64],
) -> Checked {
    let catalog = &session.catalog;
    let rows_checked = numbers.checked.of(row).unwrap_or(0);
    let mut checked = Checked {
        table: catalog.display(reference.table),
        columns: reference.columns_shown(),
        parent: Some(catalog.display(reference.parent)),
        key: Some(reference.key_shown()),
        constraint: reference.constraint.map(str::to_string),
        state: Some(reference.state),
        rows_checked,
        orphans: numbers.orphans.of(row),
        cross_tenant: numbers.cross.of(row),
        null_tenant: numbers.null_tenant.of(row),
        parent_null_tenant: numbers.parent_null.of(row),
        verdict: Verdict::Ok,
        sample: None,
        fix: None,
        declaration: rests_on(catalog, resolver, reference),
    };
    checked.verdict = if checked
        .kinds()
        .iter()
        .any(|(_, rows)| rows.is_some_and(|rows| rows > 0))
    {
        Verdict::Violations
    } else if rows_checked == 0 {
        Verdict::NotChecked
    } else {
        Verdict::Ok
    };
    checked.fix = fix::next(catalog, resolver, reference, &checked, row[0]);
    checked
}

/// The declarations that the row rests on: of the reference itself, and of the tenant keys of both sides.
fn rests_on(catalog: &crate::catalog::Catalog, resolver: &TenantResolver, reference: &KeyReference) -> Option<String> {
    let keys = [reference.table, reference.parent].map(|table| {
        let key = resolver
            .keys()?
            .of(table)
            .iter()
            .find(|key| key.declared_by.is_some())?;
        let column = table.column(key.column)?;
        Some(format!(
            "{}: {}.{} is the tenant key",
            key.declared_by.clone().unwrap_or_default(),
            catalog.display(table),
            column.quoted
        ))
    });
    let mut all: Vec<String> = reference
        .declaration
        .iter()
        .cloned()
        .chain(keys.into_iter().flatten())
        .collect();
    all.dedup();
    (!all.is_empty()).then(|| all.join("; "))
}

fn not_checked(reference: Unchecked) -> Checked {
    Checked {
        fix: Some(reference.why),
        table: reference.table,
        columns: reference.columns,
        parent: reference.parent,
        key: None,
        constraint: reference.constraint,
        state: reference.state,
        declaration: reference.declaration,
        rows_checked: 0,
        orphans: None,
        cross_tenant: None,
        null_tenant: None,
        parent_null_tenant: None,
        verdict: Verdict::NotChecked,
        sample: None,
    }
}

/// How many references and rows were checked, and what that comes to.
fn total(rows: &[Checked], root: Option<&str>) -> Checked {
    let sum = |number: fn(&Checked) -> Option<i64>| -> Option<i64> {
        let some: Vec<i64> = rows.iter().filter_map(number).collect();
        (!some.is_empty()).then(|| some.iter().sum())
    };
    let of = |verdict: Verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    // Rows without a state are those whose type nobody declared: no references of their own.
    let references = rows.iter().filter(|row| row.state.is_some()).count();
    let unreadable = rows
        .iter()
        .filter(|row| row.verdict == Verdict::NotChecked && row.orphans.is_none() && row.state.is_some())
        .count();
    let (ok, bad) = (of(Verdict::Ok), of(Verdict::Violations));
    let not_checked = rows
        .iter()
        .filter(|row| row.verdict == Verdict::NotChecked && row.state.is_some())
        .count();
    let verdict = match (bad, ok, unreadable) {
        (1.., _, _) => Verdict::Violations,
        (0, 1.., 0) => Verdict::Ok,
        _ => Verdict::NotChecked,
    };
    let fix = match (verdict, root) {
        (Verdict::NotChecked, _) if references == 0 => Some("nothing to check: no reference was found".to_string()),
        (Verdict::NotChecked, _) if unreadable > 0 => {
            Some(format!("{unreadable} references cannot be checked; the row of each gives the reason"))
        }
        (Verdict::NotChecked, _) => Some("nothing to check: no row has a reference".to_string()),
        (_, None) => Some("no tenants: whether a reference stays inside its tenant was not checked; root => '...' names the table that holds them".to_string()),
        _ => None,
    };
    Checked {
        table: "total".into(),
        columns: format!("{references} reference{}", if references == 1 { "" } else { "s" }),
        parent: None,
        key: None,
        constraint: None,
        state: None,
        rows_checked: rows.iter().map(|row| row.rows_checked).sum(),
        orphans: Some(sum(|row| row.orphans).unwrap_or(0)),
        cross_tenant: sum(|row| row.cross_tenant),
        null_tenant: sum(|row| row.null_tenant),
        parent_null_tenant: sum(|row| row.parent_null_tenant),
        verdict,
        sample: Some(Jsonb::from(&json!({
            "references": references, "ok": ok, "violations": bad, "not_checked": not_checked,
            "tenant_root": root
        }))),
        fix,
        declaration: None,
    }
}
