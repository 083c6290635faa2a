//! One pass over a table that judges all its references: pure, typed values in, SQL out.
//!
//! ```text
//! SELECT count(*), count(parent_1.id), count(*) FILTER (WHERE t.tenant_id <> parent_1.tenant_id), ...
//! FROM child AS t
//! LEFT JOIN parent AS parent_1 ON parent_1.id = t.parent_id
//! ...
//! ```
//!
//! Every join is by a key that is unique, so that a row stays one row; a parent whose key is not unique is aggregated per key
//! first. Two references to one parent are two joins; a parent that is also on the way to a tenant is joined once.

use std::rc::Rc;

use crate::catalog::{Catalog, Table};
use crate::plan::expression::{all_set, any, differs, equal, equals_any, indent};
use crate::plan::join::same_key;

use super::joins::{Joins, Side, type_of};
use super::reference::KeyReference;
use crate::infer::tenancy::resolver::{RowTenant, TenantResolver};

/// The statement over one table, built reference by reference.
pub struct Pass<'a> {
    catalog: &'a Catalog,
    resolver: &'a TenantResolver<'a>,
    table: &'a Table,
    joins: Joins<'a>,
    aggregates: Vec<String>,
    /// Values of $1, $2 ..., all text.
    pub parameters: Vec<String>,
}

/// What is asked of a row about one reference, as SQL over the aliases of the pass.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// The reference is set: there is a row to look for.
    pub set: String,
    /// An expression that is NULL where no parent was found.
    pub found: String,
    /// Set, and no parent.
    pub orphan: String,
    /// The tenants of both sides, where they can be compared.
    pub tenants: Option<Tenants>,
    /// The set rows are counted by this.
    counts_set: String,
    /// Of rows without a parent, those whose parent another tenant has are no orphans.
    within_tenant: bool,
}

/// The two tenants of a reference.
#[derive(Debug, Clone)]
pub struct Tenants {
    /// The parent is another tenant's.
    pub cross: String,
    /// The row's own tenant is not known.
    pub null_tenant: String,
    /// The parent was found, and its tenant is not known.
    pub parent_null: String,
    /// The row's tenant.
    pub own: Side,
    /// The parent is the tenant itself, by the row's own key: the two cannot differ.
    is_key: bool,
    /// The parent's tenant where that is one column: its count tells where it is NULL.
    counts_parent: Option<(String, bool)>,
}

/// Where a number of the report is found in the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Nothing was compared.
    None,
    /// It cannot be anything else.
    Zero,
    /// This column of the result.
    Column(usize),
    /// The difference of two columns.
    Difference(usize, usize),
}

/// The numbers of one reference.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Rows whose reference is set.
    pub checked: Number,
    /// Those that find no parent.
    pub orphans: Number,
    /// Those whose parent is another tenant's.
    pub cross: Number,
    /// Those whose own tenant is NULL.
    pub null_tenant: Number,
    /// Those whose parent's tenant is NULL.
    pub parent_null: Number,
}

impl Number {
    /// The number in a row of the result.
    pub fn of(self, row: &[i64]) -> Option<i64> {
        match self {
            Number::None => None,
            Number::Zero => Some(0),
            Number::Column(i) => row.get(i).copied(),
            Number::Difference(a, b) => Some(row.get(a)? - row.get(b)?),
        }
    }
}

impl<'a> Pass<'a> {
    /// A pass over `table`, which is `t` in every condition.
    pub fn over(catalog: &'a Catalog, resolver: &'a TenantResolver<'a>, table: &'a Table) -> Self {
        let mut joins = Joins::new(catalog, "parent");
        // Tables without a primary key show their rows by ctid.
        let key = table.primary_key().map(|key| key.columns.clone()).unwrap_or_default();
        joins.reads(table, &key);
        Pass {
            catalog,
            resolver,
            table,
            joins,
            aggregates: vec!["pg_catalog.count(*)".into()],
            parameters: vec![],
        }
    }

    /// The conditions of one reference; joins what they need.
    pub fn conditions(&mut self, reference: &KeyReference<'a>) -> Conditions {
        let own: Vec<String> = self.own_columns_sql(&reference.columns);
        self.joins.reads(self.table, &reference.columns);
        let when = reference.discriminator.as_ref().map(|(discriminating, value)| {
            self.joins.reads(self.table, &[*discriminating]);
            self.parameters.push(value.clone());
            let column = &self.own_columns_sql(&[*discriminating])[0];
            let type_oid = type_of(self.table, *discriminating);
            format!(
                "({}) = ${}",
                self.catalog.text_sql(column, type_oid),
                self.parameters.len()
            )
        });
        let compared = self.comparable_tenants(reference);
        // Without tenants to compare, the row of another one is as good as none.
        let within_tenant = reference.within_tenant && compared;
        // The tenant of a row may be unknown; that is told beside it.
        let all = all_set(&own[usize::from(within_tenant)..]);
        let set = match (&when, reference.match_full) {
            (Some(when), _) => format!("{when} AND {all}"),
            (None, true) => any(&own.iter().map(|c| format!("{c} IS NOT NULL")).collect::<Vec<_>>()),
            (None, false) => all,
        };
        let parent_whose = compared.then(|| self.resolver.of(reference.parent));
        let (found, parent) = match reference.unique {
            true => self.one_parent(reference, when.as_deref(), parent_whose),
            false => self.parents_per_key(reference, when.as_deref(), parent_whose),
        };
        let elsewhere = within_tenant.then(|| self.of_any_tenant(reference));
        let orphan = match &elsewhere {
            Some(elsewhere) => format!(
                "{set} AND {} IS NOT NULL AND {elsewhere} IS NOT DISTINCT FROM NULL",
                own[0]
            ),
            None => format!("{set} AND {found} IS NOT DISTINCT FROM NULL"),
        };
        let child_whose = self.resolver.of(self.table);
        let tenants = match (parent, compared) {
            (Some(parent), true) => self
                .joins
                .side(self.table, "t", &child_whose)
                .map(|own| self.tenants(reference, &set, &found, own, parent)),
            _ => None,
        };
        let tenants = match (tenants, &elsewhere) {
            (Some(tenants), Some(elsewhere)) => Some(Tenants {
                cross: format!(
                    "{set} AND {} IS NOT NULL AND {found} IS NOT DISTINCT FROM NULL AND {elsewhere} IS DISTINCT FROM NULL",
                    own[0]
                ),
                // The parent's tenant is the one that was looked for.
                parent_null: "false".into(),
                counts_parent: None,
                ..tenants
            }),
            (tenants, _) => tenants,
        };
        // A count of a column counts where it is set; FILTER evaluates a condition for every row.
        let single = self
            .table
            .column(reference.columns[0])
            .filter(|_| reference.columns.len() == 1 && when.is_none());
        let counts_set = match single {
            Some(column) if column.not_null && self.table.is_table() => "pg_catalog.count(*)".into(),
            Some(_) => format!("pg_catalog.count({})", own[0]),
            None => format!("pg_catalog.count(*) FILTER (WHERE {set})"),
        };
        Conditions {
            set,
            found,
            orphan,
            tenants,
            counts_set,
            within_tenant,
        }
    }

    /// The parent rows of whatever tenant by the key without the tenant, once per key; an expression that is NULL where there is none.
    fn of_any_tenant(&mut self, reference: &KeyReference<'a>) -> String {
        let alone = KeyReference {
            columns: reference.columns[1..].to_vec(),
            key: reference.key[1..].to_vec(),
            unique: false,
            within_tenant: false,
            ..reference.clone()
        };
        self.parents_per_key(&alone, None, None).0
    }

    /// Counts one reference in the pass.
    pub fn count(&mut self, conditions: &Conditions) -> Numbers {
        let checked = self.aggregate(conditions.counts_set.clone());
        let found = self.aggregate(format!("pg_catalog.count({})", conditions.found));
        let mut numbers = Numbers {
            checked: Number::Column(checked),
            orphans: match conditions.within_tenant {
                true => self.counted(&conditions.orphan),
                false => Number::Difference(checked, found),
            },
            cross: Number::None,
            null_tenant: Number::None,
            parent_null: Number::None,
        };
        let Some(tenants) = &conditions.tenants else {
            return numbers;
        };
        numbers.cross = match tenants.is_key && tenants.own.any.len() == 1 {
            true => Number::Zero,
            false => self.counted(&tenants.cross),
        };
        numbers.null_tenant = match (tenants.own.any.as_slice(), tenants.own.never_null && tenants.own.direct) {
            (_, true) => Number::Zero,
            // All rows but those that have it; both numbers are there already.
            ([own], _) if tenants.is_key => {
                let known = self.aggregate(format!("pg_catalog.count({own})"));
                Number::Difference(0, known)
            }
            _ => self.counted(&tenants.null_tenant),
        };
        numbers.parent_null = match &tenants.counts_parent {
            Some((_, true)) => Number::Zero,
            Some((column, false)) => {
                let known = self.aggregate(format!("pg_catalog.count({column})"));
                Number::Difference(found, known)
            }
            None => self.counted(&tenants.parent_null),
        };
        numbers
    }

    /// Counts rows by a condition; where in the result.
    pub fn counted(&mut self, condition: &str) -> Number {
        Number::Column(self.aggregate(format!("pg_catalog.count(*) FILTER (WHERE {condition})")))
    }

    fn aggregate(&mut self, expression: String) -> usize {
        match self.aggregates.iter().position(|known| *known == expression) {
            Some(at) => at,
            None => {
                self.aggregates.push(expression);
                self.aggregates.len() - 1
            }
        }
    }

    /// How many tables are joined.
    pub fn width(&self) -> usize {
        self.joins.list.len()
    }

    /// How many numbers the statement returns.
    pub fn numbers(&self) -> usize {
        self.aggregates.len()
    }

    /// One row of numbers; the first is the number of rows of the table.
    pub fn statement(&self) -> String {
        format!("SELECT {}\n{}", self.aggregates.join(",\n  "), self.from())
    }

    /// FROM and joins.
    pub fn from(&self) -> String {
        let mut lines = vec![format!("FROM {} AS t", self.table.relation_sql())];
        lines.extend(self.joins.list.iter().map(|join| join.sql.clone()));
        lines.join("\n")
    }

    /// The first rows (by primary key) for which a condition holds: their keys.
    pub fn rows(&self, condition: &str, limit: i32) -> String {
        let order = match self.table.primary_key() {
            Some(key) => self.own_columns_sql(&key.columns).join(", "),
            None if self.table.kind == 'p' => "t.tableoid, t.ctid".into(),
            None if self.table.is_table() => "t.ctid".into(),
            None => "1".into(),
        };
        format!(
            "SELECT {}\n{}\nWHERE {condition}\nORDER BY {order}\nLIMIT {limit}",
            self.table.row_key_sql(self.catalog, "t"),
            self.from()
        )
    }

    /// Every table and column that the statement reads.
    pub fn reads(&self) -> &[(u32, Vec<i16>)] {
        &self.joins.reads
    }

    /// Columns of the table itself by which a row's own tenant is found.
    pub fn own_tenant_columns(&self) -> Vec<i16> {
        match self.resolver.of(self.table).as_ref() {
            RowTenant::Shared => vec![],
            RowTenant::Columns(columns) => columns.clone(),
            RowTenant::Paths(paths) => paths.iter().flat_map(|path| path.columns()).collect(),
        }
    }

    fn own_columns_sql(&self, columns: &[i16]) -> Vec<String> {
        columns
            .iter()
            .filter_map(|c| self.table.column(*c))
            .map(|c| format!("t.{}", c.sql()))
            .collect()
    }

    /// Are there two tenants to compare? Not where the rows of a side are everybody's, between tenants themselves, or where
    /// the user said that it may cross.
    fn comparable_tenants(&self, reference: &KeyReference) -> bool {
        let root = self.resolver.root().map(|root| root.oid);
        let between_tenants = Some(self.table.oid) == root && Some(reference.parent.oid) == root;
        !reference.may_cross_tenants
            && !between_tenants
            && *self.resolver.of(self.table) != RowTenant::Shared
            && *self.resolver.of(reference.parent) != RowTenant::Shared
    }

    fn one_parent(
        &mut self,
        reference: &KeyReference<'a>,
        when: Option<&str>,
        row_tenant: Option<Rc<RowTenant>>,
    ) -> (String, Option<Side>) {
        let alias = self.joins.to(
            "t",
            self.table,
            &reference.columns,
            when,
            reference.parent,
            &reference.key,
        );
        let found = self.joins.column(&alias, reference.parent, reference.key[0]);
        let side = row_tenant.and_then(|row_tenant| self.joins.side(reference.parent, &alias, &row_tenant));
        (found, side)
    }

    /// A parent whose key is not unique, aggregated per key. Its tenant is an array: all that rows of that key have.
    fn parents_per_key(
        &mut self,
        reference: &KeyReference<'a>,
        when: Option<&str>,
        row_tenant: Option<Rc<RowTenant>>,
    ) -> (String, Option<Side>) {
        let mut inner = Joins::new(self.catalog, "above");
        let keys: Vec<String> = reference
            .key
            .iter()
            .map(|c| inner.column("p", reference.parent, *c))
            .collect();
        inner.reads(reference.parent, &reference.key);
        let side = row_tenant.and_then(|row_tenant| inner.side(reference.parent, "p", &row_tenant));
        let mut select: Vec<String> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| format!("{key} AS key_{}", i + 1))
            .collect();
        if let Some(side) = &side {
            let arrays: Vec<String> = side
                .any
                .iter()
                .map(|tenant| {
                    let value = match self.is_built_in(side.type_oid) {
                        true => tenant.clone(),
                        false => self.catalog.text_sql(tenant, side.type_oid),
                    };
                    format!("pg_catalog.array_agg(DISTINCT {value}) FILTER (WHERE {tenant} IS NOT NULL)")
                })
                .collect();
            select.push(format!("{} AS tenants", arrays.join(" || ")));
        }
        let mut from = vec![format!("FROM {} AS p", reference.parent.relation_sql())];
        from.extend(inner.list.iter().map(|join| join.sql.clone()));
        let alias = self.joins.next_alias();
        let own = self.own_columns_sql(&reference.columns);
        let mut on: Vec<String> = own
            .iter()
            .zip(&reference.key)
            .enumerate()
            .map(|(i, (own, key))| {
                let column = self.table.column(reference.columns[i]);
                match reference.parent.column(*key) {
                    Some(key) => same_key(self.catalog, &format!("{alias}.key_{}", i + 1), key, own, column),
                    None => "false".into(),
                }
            })
            .collect();
        on.extend(when.map(str::to_string));
        let sql = format!(
            "LEFT JOIN (\n  SELECT {}\n{}\n  GROUP BY {}\n) AS {alias} ON {}",
            select.join(", "),
            indent(&from.join("\n"), 2),
            keys.join(", "),
            on.join(" AND ")
        );
        self.joins.add_other(alias.clone(), sql, inner.reads);
        let side = side.map(|side| Side {
            any: vec![format!("{alias}.tenants")],
            ..side
        });
        (format!("{alias}.key_1"), side)
    }

    fn tenants(&self, reference: &KeyReference, set: &str, found: &str, own: Side, parent: Side) -> Tenants {
        // Of two types or collations, the parent's decides; a type of an extension is compared as text.
        let comparable = |own_tenant: &String| match own.collation == parent.collation {
            true => own_tenant.clone(),
            false => format!(
                "{own_tenant} COLLATE {}",
                parent.collation.as_deref().unwrap_or("pg_catalog.\"default\"")
            ),
        };
        let base = |oid| self.catalog.base_type(oid, -1).map(|(base, _)| base);
        let built_in = self.is_built_in(own.type_oid) && self.is_built_in(parent.type_oid);
        // Those of a key that several rows have are an array: of texts where their type is not Postgres's own.
        let as_text = match (base(own.type_oid), base(parent.type_oid)) {
            (Some(a), Some(b)) if !built_in => {
                !reference.unique || a.oid != b.oid || !a.is_trusted() || !b.is_trusted()
            }
            _ => false,
        };
        let own_value = |value: &String| match as_text {
            true => format!("({})", self.catalog.text_sql(value, own.type_oid)),
            false => comparable(value),
        };
        let parent_value = |value: &String| match as_text && reference.unique {
            true => format!("({})", self.catalog.text_sql(value, parent.type_oid)),
            false => value.clone(),
        };
        let compared = if as_text { 0 } else { own.type_oid };
        let own_null: Vec<String> = own.any.iter().map(|c| format!("{c} IS NULL")).collect();
        let own_null = own_null.join(" AND ");
        let parent_null: Vec<String> = parent.any.iter().map(|c| format!("{c} IS NULL")).collect();
        let parent_null = parent_null.join(" AND ");
        let same: Vec<String> = own
            .any
            .iter()
            .flat_map(|own_tenant| {
                let own_tenant = own_value(own_tenant);
                parent.any.iter().map(move |of_parent| {
                    let of_parent = parent_value(of_parent);
                    match reference.unique {
                        true => equal(self.catalog, &own_tenant, compared, &of_parent),
                        false => equals_any(self.catalog, &own_tenant, compared, &of_parent),
                    }
                })
            })
            .collect();
        let cross = match (own.any.as_slice(), parent.any.as_slice()) {
            ([own_tenant], [of_parent]) if reference.unique => {
                differs(self.catalog, &own_value(own_tenant), compared, &parent_value(of_parent))
            }
            _ => format!(
                "{found} IS DISTINCT FROM NULL AND NOT ({own_null}) AND NOT ({parent_null}) AND ({}) IS NOT TRUE",
                same.join(" OR ")
            ),
        };
        let is_key = self.is_key(reference);
        Tenants {
            cross,
            // Of the key itself, a row that does not have it is what is missing.
            null_tenant: match is_key {
                true => own_null,
                false => format!("{set} AND {own_null}"),
            },
            parent_null: format!("{found} IS DISTINCT FROM NULL AND {parent_null}"),
            is_key,
            counts_parent: (reference.unique && parent.any.len() == 1)
                .then(|| (parent.any[0].clone(), parent.never_null && parent.direct)),
            own,
        }
    }

    fn is_built_in(&self, type_oid: u32) -> bool {
        let base = self.catalog.base_type(type_oid, -1);
        base.is_none_or(|(base, _)| base.is_built_in())
    }

    /// The reference is the tenant key of the row.
    fn is_key(&self, reference: &KeyReference) -> bool {
        let (Some(keys), RowTenant::Columns(own)) =
            (self.resolver.keys(), self.resolver.of(self.table).as_ref().clone())
        else {
            return false;
        };
        reference.parent.oid == keys.root.oid
            && reference.key == [keys.key.number]
            && own.contains(&reference.columns[0])
            && self.table.oid != keys.root.oid
    }
}
