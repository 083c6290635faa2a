//! `create_parent`: one parent per missing key and tenant, never one that two tenants would share.

use std::collections::BTreeMap;

use pgrx::prelude::*;
use serde_json::{Map, Value};

use super::missing::Others;
use super::parent_values::{may_be_set, missing_required_columns, tenant_column, value_fits};
use super::prepared::{PreparedRepair, RepairStrategy};
use super::request::Violation;
use crate::catalog::{Column, Insertion, Table};
use crate::identifier::Literal;
use crate::plan::expression::{all_set, indent};
use crate::plan::fit::misfit;
use crate::plan::kept::Change;
use crate::plan::kept::{json_object, keeping_each, same_as_kept};
use crate::plan::new_row::refusals_of_new_row;
use crate::plan::reason::{self, Reason};
use crate::plan::{Mode, Overlays, Statement};
use crate::problem::Problem;
use crate::rule::check::Problems;
use crate::run::obstacles::relation_can_be_filled;
use crate::run::{readable, record};

/// What new parents are made of.
pub(super) struct Creation<'a> {
    insertion: Insertion,
    /// The parent's tenant column, where the key does not hold it; its value is the tenant of the rows.
    tenant: Option<&'a Column>,
    /// Columns that the caller gave values, and whether the text holds a placeholder.
    given: Vec<(&'a Column, bool)>,
    set: Map<String, Value>,
    /// The types in which their values are stored, by column number.
    types: BTreeMap<i16, String>,
    parent: &'a Table,
    /// Who else references it by the same key.
    others: Others<'a>,
}

impl<'a> Creation<'a> {
    /// Adds everything that is in the way: all required columns at once.
    pub(super) fn prepare(work: &PreparedRepair<'a>, problems: &mut Problems) -> Result<Self, Problem> {
        let (session, parent) = (work.session, work.reference.parent);
        let catalog = &session.catalog;
        let shown = catalog.display(parent);
        if work.request.violation != Violation::Orphan {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    "a reference to another tenant's row is not repaired by creating a parent",
                )
                .hint("'quarantine' and 'nullify' take violation => 'cross_tenant'"),
            );
        }
        relation_can_be_filled(session, parent, problems);
        let insertion = match parent.is_table() {
            true => catalog.insertion(parent)?,
            false => Insertion::default(),
        };
        for rule in &insertion.rules {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("rule {rule} rewrites every INSERT into {shown}"),
                )
                .hint("disable it for the repair: ALTER TABLE ... DISABLE RULE ..."),
            );
        }
        let tenant = tenant_column(work, problems);
        let set = match &work.request.set {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(set)) => set.clone(),
            Some(_) => {
                problems.push(
                    Problem::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "set is no JSON object")
                        .hint(r#"for example set => '{"name": "Recovered"}'"#),
                );
                Map::new()
            }
        };
        let mut given = Vec::new();
        let mut clean = Map::new();
        let mut types = BTreeMap::new();
        for (name, value) in &set {
            let Some(column) = problems.keep(catalog.resolve_column(parent, name)) else {
                continue;
            };
            if may_be_set(work, &insertion, tenant, column, problems)
                && value_fits(work, parent, column, value, problems)
            {
                let placeholder = value
                    .as_str()
                    .is_some_and(|text| text.contains("{key}") || text.contains("{tenant}"));
                given.push((column, placeholder));
                // What a placeholder becomes may be too long: that is a reason of its own.
                let is_string = catalog
                    .base_type(column.type_oid, -1)
                    .is_some_and(|(base, _)| base.is_string());
                let stored = match placeholder && is_string {
                    true => "pg_catalog.text".into(),
                    false => catalog.stored_type(column)?,
                };
                types.insert(column.number, stored);
                clean.insert(column.name.clone(), value.clone());
            }
        }
        let key = &work.reference.key;
        let missing: Vec<&Column> = parent
            .columns
            .iter()
            .filter(|c| c.not_null || insertion.domain_not_null.contains(&c.number))
            .filter(|c| !key.contains(&c.number) && tenant.is_none_or(|tenant| tenant.number != c.number))
            .filter(|c| !insertion.with_default.contains(&c.number))
            .filter(|c| {
                !set.keys()
                    .any(|name| catalog.resolve_column(parent, name).is_ok_and(|g| g.number == c.number))
            })
            .collect();
        if !missing.is_empty() {
            problems.push(missing_required_columns(session, &shown, &missing));
        }
        for column in key.iter().filter_map(|c| parent.column(*c)).filter(|c| c.generated) {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS,
                    format!("{} of {shown} is a generated column", column.quoted),
                )
                .hint("a parent with a given key cannot be created there: use 'nullify' or 'quarantine'"),
            );
        }
        if !parent.may_insert && work.request.mode.is_real() {
            problems.push(
                Problem::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!("permission denied to insert into {shown}"),
                )
                .hint(work.session.grant("INSERT", &shown)),
            );
        }
        // Other keys of the parent and the rows of its own parents are looked at as well.
        let all: Vec<i16> = parent.columns.iter().map(|c| c.number).collect();
        readable(session, parent, &all, false, problems);
        work.read_with(parent, &insertion.code, &[], problems);
        Ok(Creation {
            insertion,
            tenant,
            given,
            set: clean,
            types,
            parent,
            others: Others::find(work)?,
        })
    }

    /// Columns of the new row whose values are known before it is written.
    fn known(&self, work: &PreparedRepair) -> Vec<(i16, String)> {
        let mut known: Vec<(i16, String)> = work
            .reference
            .key
            .iter()
            .enumerate()
            .map(|(i, c)| (*c, format!("missing.key_{}", i + 1)))
            .collect();
        known.extend(self.tenant.map(|c| (c.number, "missing.tenant".to_string())));
        known.extend(self.given.iter().map(|(c, _)| (c.number, format!("given.{}", c.sql()))));
        known
    }

    /// The missing keys, judged: `missing`, `given` and `outcome`.
    fn judged(&self, work: &PreparedRepair) -> Statement {
        let missing = self.others.missing(work, self.tenant.is_some());
        let mut parameters = missing.parameters().to_vec();
        let set = Value::Object(self.set.clone()).to_string();
        parameters.push(set);
        let mut object = format!("${}::pg_catalog.jsonb", parameters.len());
        let key_text: Vec<String> = (1..=work.reference.key.len())
            .zip(&work.reference.columns)
            .map(|(i, c)| {
                let type_oid = work.reference.table.column(*c).map(|c| c.type_oid).unwrap_or_default();
                work.session.catalog.text_sql(&format!("missing.key_{i}"), type_oid)
            })
            .collect();
        let key_text = format!("pg_catalog.concat_ws(', ', {})", key_text.join(", "));
        let tenant_text = match (self.tenant, &work.conditions.tenants) {
            (Some(_), Some(tenants)) => work.session.catalog.text_sql("missing.tenant", tenants.own.type_oid),
            _ => "''".into(),
        };
        for (column, _) in self.given.iter().filter(|(_, placeholder)| *placeholder) {
            let name = Literal::new(&column.name);
            object = format!(
                "{object} || pg_catalog.jsonb_build_object({name}, pg_catalog.replace(pg_catalog.replace(${}::pg_catalog.jsonb ->> {name}, '{{key}}', {key_text}), '{{tenant}}', {}))",
                parameters.len(),
                // What is no text has no value where there is no tenant.
                match self
                    .types
                    .get(&column.number)
                    .is_some_and(|stored| stored == "pg_catalog.text")
                {
                    true => format!("COALESCE({tenant_text}, '')"),
                    false => tenant_text.clone(),
                }
            );
        }
        let given: Vec<String> = self
            .given
            .iter()
            .map(|(c, _)| {
                // Of a domain the base: its own CHECKs are asked by themselves.
                format!(
                    "(SELECT r.{name} FROM pg_catalog.jsonb_to_record({object}) AS r ({name} {})) AS {name}",
                    self.types
                        .get(&c.number)
                        .map(String::as_str)
                        .unwrap_or("pg_catalog.text"),
                    name = c.sql(),
                )
            })
            .collect();
        let given = match given.is_empty() {
            true => "1".to_string(),
            false => given.join(", "),
        };
        let mut cases = vec![("missing.tenants > 1".to_string(), Reason::TwoTenants)];
        if self.tenant.is_some() && work.conditions.tenants.is_some() {
            cases.push(("missing.tenants = 0".into(), Reason::TenantUnknown));
        }
        cases.extend(self.refusals(work));
        let columns: Vec<String> = self
            .known(work)
            .iter()
            // Not by the names of the parent's columns: one may be called like ours.
            .map(|(c, value)| format!("{value} AS column_{c}"))
            .collect();
        Statement::new(format!(
            "SELECT {}, missing.rows AS mend_rows,\n  ({})::pg_catalog.text AS mend_outcome\nFROM (\n{}\n) AS missing\nCROSS JOIN LATERAL (SELECT {given}) AS given",
            columns.join(", "),
            reason::case(&cases, &Reason::Repaired),
            indent(&missing.sql(), 2),
        ))
        .with_parameters(parameters)
    }

    /// Counts the missing keys, by what becomes of them.
    ///
    /// * `number`: what is summed up.
    fn counting(&self, work: &PreparedRepair, number: &str) -> Statement {
        let judged = self.judged(work);
        Statement::new(format!(
            "SELECT mend_outcome, {number}\nFROM (\n{}\n) AS judged",
            indent(&judged.sql(), 2)
        ))
        .ending("GROUP BY mend_outcome")
        .with_parameters(judged.parameters().to_vec())
    }

    /// Conditions under which the parent refuses the new row, as far as its values are known before.
    fn refusals(&self, work: &PreparedRepair) -> Vec<(String, Reason)> {
        let catalog = &work.session.catalog;
        let known = self.known(work);
        let value = |c: i16| known.iter().find(|(n, _)| *n == c).map(|(_, value)| value.clone());
        let named = |(refused, name): (String, String)| (refused, Reason::refused_by(&name));
        let mut refusals = Vec::new();
        for key in &work.reference.key {
            let column = self.parent.column(*key);
            let base = column.and_then(|c| catalog.base_type(c.type_oid, c.type_modifier));
            if let (Some((base, modifier)), Some(value)) = (base, value(*key)) {
                refusals.extend(misfit(base, modifier, &value).map(named));
            }
        }
        for (column, _) in self.given.iter().filter(|(_, placeholder)| *placeholder) {
            let base = catalog.base_type(column.type_oid, column.type_modifier);
            let limit = base.and_then(|(base, modifier)| misfit(base, modifier, &format!("given.{}", column.sql())));
            refusals.extend(limit.map(named));
        }
        refusals.extend(refusals_of_new_row(
            catalog,
            self.parent,
            &Overlays::default(),
            &self.insertion,
            &value,
            &work.reference.key,
        ));
        refusals
    }

    /// What could still refuse a row, because its values are not known before it is written.
    fn unpredicted(&self, work: &PreparedRepair) -> Vec<String> {
        let known = self.known(work);
        let is_known = |c: i16| known.iter().any(|(n, _)| *n == c);
        let names = self.insertion.unpredicted(self.parent, &is_known);
        names.into_iter().map(String::from).collect()
    }

    fn insert(&self, work: &PreparedRepair) -> Statement {
        let judged = self.judged(work);
        let known = self.known(work);
        let names = known.iter().filter_map(|(c, _)| self.parent.column(*c));
        let names: Vec<String> = names.map(|c| c.sql().to_string()).collect();
        let values: Vec<String> = known.iter().map(|(c, _)| format!("column_{c}")).collect();
        Statement::new(format!(
            "INSERT INTO {} ({})\nOVERRIDING SYSTEM VALUE\nSELECT {}\nFROM (\n{}\n) AS judged",
            self.parent.sql(),
            names.join(", "),
            values.join(", "),
            indent(&judged.sql(), 2)
        ))
        .filter("mend_outcome = 'repaired'")
        .with_parameters(judged.parameters().to_vec())
    }

    /// A sequence that would give out a key that is taken now.
    fn sequences_behind(&self, work: &PreparedRepair) -> Result<Vec<String>, Problem> {
        let mut behind = Vec::new();
        for (column, sequence) in &self.insertion.sequences {
            let Some(column) = self
                .parent
                .column(*column)
                .filter(|_| work.reference.key.contains(column))
                // Of other types the cast to a number may be somebody's own.
                .filter(|c| {
                    let base = work.session.catalog.base_type(c.type_oid, -1);
                    base.is_some_and(|(base, _)| base.integer_range().is_some())
                })
            else {
                continue;
            };
            let last = format!(
                "SELECT COALESCE((SELECT pg_catalog.max({}) FROM {})::pg_catalog.int8, 0) > \
                 COALESCE(pg_catalog.pg_sequence_last_value({}::pg_catalog.regclass), 0)",
                column.sql(),
                self.parent.sql(),
                Literal::new(sequence)
            );
            let is_behind =
                Spi::connect(|client| client.select(&last, None, &[])?.first().get_one::<bool>())?.unwrap_or(false);
            if is_behind {
                behind.push(format!(
                    "sequence {sequence} is behind the keys now: SELECT setval({}, (SELECT max({}) FROM {}))",
                    Literal::new(sequence),
                    column.quoted,
                    work.session.catalog.display(self.parent)
                ));
            }
        }
        Ok(behind)
    }
}

impl RepairStrategy for Creation<'_> {
    fn judged(&self, work: &PreparedRepair) -> Statement {
        let counting = self.counting(work, "pg_catalog.sum(mend_rows)::pg_catalog.int8");
        if !work.reference.match_full || work.reference.columns.len() == 1 {
            return counting;
        }
        let own: Vec<String> = work
            .reference
            .columns
            .iter()
            .filter_map(|c| work.reference.table.column(*c))
            .map(|c| format!("t.{}", c.sql()))
            .collect();
        // It names the parameters of the pass, which come first.
        let partly = Statement::new(format!(
            "SELECT {}, pg_catalog.count(*)\n{}",
            Reason::PartlyNull.sql(),
            work.pass.from()
        ))
        .filter(format!("({})", work.violating))
        .filter(format!("NOT ({})", all_set(&own)))
        .ending("HAVING pg_catalog.count(*) > 0");
        Statement::union_all(vec![counting, partly])
    }

    fn parents(&self, work: &PreparedRepair) -> Result<i64, Problem> {
        let counts = work.tally(&self.counting(work, "pg_catalog.count(*)"))?;
        Ok(counts.rows(&Reason::Repaired))
    }

    fn change<'p>(&'p self, _: &'p PreparedRepair<'p>) -> (&'p Table, Change) {
        (self.parent, Change::Created)
    }

    fn write(&self, work: &PreparedRepair) -> Statement {
        // Triggers and defaults find what they find in any other statement of the caller.
        let insert = self
            .insert(work)
            .under_callers_settings(&work.session.caller.with_exact_texts());
        let catalog = &work.session.catalog;
        let key = work.reference.key.iter().filter_map(|c| self.parent.column(*c));
        let key = json_object(key.map(|c| (c, catalog.json_sql(&c.sql().to_string(), c.type_oid))));
        keeping_each(insert.ending(format!("RETURNING {key} AS row_key")), &["row_key"])
    }

    /// No row has a parent of another tenant now that had none before.
    fn contradicted(&self, work: &PreparedRepair, run: i64) -> Option<Statement> {
        let tenants = work.conditions.tenants.as_ref()?;
        let on: Vec<String> = work
            .reference
            .key
            .iter()
            .zip(&work.reference.columns)
            .filter_map(|(key, column)| Some((self.parent.column(*key)?, work.reference.table.column(*column)?)))
            .map(|(key, column)| {
                let own = format!("t.{}", column.sql());
                same_as_kept(&work.session.catalog, &own, column, key, "made.row_key")
            })
            .collect();
        let crossing = Statement::new(format!("SELECT pg_catalog.count(*)\n{}", work.pass.from()))
            .filter(format!("({})", tenants.cross))
            .filter(format!(
                "EXISTS (SELECT FROM mend.created_rows AS made WHERE made.run_id = {run} AND {})",
                on.join(" AND ")
            ))
            .with_parameters(work.pass.parameters.clone());
        Some(crossing)
    }

    fn statement(&self, work: &PreparedRepair) -> String {
        self.insert(work).for_review()
    }

    fn note(&self, work: &PreparedRepair, mode: Mode) -> Result<Option<String>, Problem> {
        let mut notes = Vec::new();
        let unpredicted = self.unpredicted(work);
        if !unpredicted.is_empty() {
            notes.push(format!(
                "cannot be checked in a dry run, and would fail the whole run: {}",
                unpredicted.join(", ")
            ));
        }
        if self.tenant.is_some() && !self.others.unread.is_empty() {
            notes.push(format!(
                "not checked, may reference the same keys from rows of other tenants: {}",
                self.others.unread.join(", ")
            ));
        }
        if !self.insertion.triggers.is_empty() {
            notes.push(format!("triggers fire: {}", self.insertion.triggers.join(", ")));
        }
        if mode.is_real() {
            notes.extend(self.sequences_behind(work)?);
        }
        Ok((!notes.is_empty()).then(|| notes.join("; ")))
    }

    fn fingerprint(&self, work: &PreparedRepair) -> String {
        let reads = work.pass.reads().iter().map(|(table, _)| *table).collect();
        record::fingerprinted(&work.session.catalog, reads, &Default::default())
    }
}
