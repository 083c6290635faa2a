//! Rows without a parent, one group per identity, as SQL: what each would be given, or why it cannot be created. Pure.

use super::column_expressions::{ColumnExpression, longest};
use super::identity::Identity;
use crate::catalog::{Catalog, ForeignKey, Table};
use crate::infer::tenancy::guard::Guard;
use crate::plan::expression::{equal, indent};
use crate::plan::kept::{json_object, keeping};
use crate::plan::new_row::refusals_of_new_row;
use crate::plan::reason::{self, Reason};
use crate::plan::{Blueprint, Extra, Moment, Overlays, Query, Statement, Versions};
use crate::rule::OnConflict;

/// The rows of the target that find no parent, as `t`, with `mend_order`: the first of them is the first.
pub fn orphaned_rows(blueprint: &Blueprint) -> String {
    let table = blueprint.table;
    let mut columns: Vec<String> = table
        .columns
        .iter()
        .map(|c| format!("classified.column_{} AS {}", c.number, c.sql()))
        .collect();
    let order: Vec<String> = match table.primary_key() {
        Some(key) => key.columns.iter().map(|c| format!("classified.column_{c}")).collect(),
        None => vec!["classified.row_ctid".into()],
    };
    columns.push(match order.as_slice() {
        // Sorting all rows is only needed where there is no single value to go by.
        [one] => format!("{one} AS \"pg_mend order\""),
        several => format!(
            "pg_catalog.row_number() OVER (ORDER BY {}) AS \"pg_mend order\"",
            several.join(", ")
        ),
    });
    columns.push("classified.row_ctid AS ctid".into());
    format!(
        "SELECT {}\nFROM (\n{}\n) AS classified\nWHERE classified.outcome = 'source_missing'",
        columns.join(", "),
        indent(&blueprint.classification(Moment::Before, Extra::Columns), 2)
    )
}

/// What the rows of [`orphaned_rows`] are looked up by: `match_1 ...`.
fn identity_sql(identity: &Identity) -> Vec<String> {
    named(&identity.matched, "match")
}

fn named(list: &[ColumnExpression], what: &str) -> Vec<String> {
    list.iter()
        .enumerate()
        .map(|(i, given)| format!("{} AS {what}_{}", given.sql, i + 1))
        .collect()
}

fn numbers(count: usize, what: &str) -> Vec<String> {
    (1..=count).map(|i| format!("{what}_{i}")).collect()
}

/// One row per identity that no parent has: `match_1 ...`, `set_1 ...`, `mend_rows`, `mend_outcome` (`create`, `conflict`,
/// `constraint_failed: name`) and `mend_key`, a key that no parent has, to stand in for the one that a new parent will get.
pub fn groups(catalog: &Catalog, identity: &Identity, blueprint: &Blueprint, on_conflict: OnConflict) -> String {
    let keys = numbers(identity.matched.len(), "match");
    let mut values = identity_sql(identity);
    values.extend(named(&identity.set, "set"));
    for (i, given) in identity.set.iter().enumerate() {
        if let Some((misfit, _)) = &given.misfit {
            values.push(format!("{misfit} AS misfit_{}", i + 1));
        }
    }
    if let Some(unknown) = &identity.unknown_tenant {
        values.push(format!("{unknown} AS unknown_tenant"));
    }
    let mut select = keys.clone();
    let mut conflicts = vec!["false".to_string()];
    for i in 1..=identity.set.len() {
        // All that rows say, where they agree; else what the first one says, NULLs included.
        let some = match on_conflict == OnConflict::First {
            true => String::new(),
            false => format!(" FILTER (WHERE set_{i} IS NOT NULL)"),
        };
        select.push(format!(
            "(pg_catalog.array_agg(set_{i} ORDER BY mend_order){some})[1] AS set_{i}"
        ));
        conflicts.push(format!("pg_catalog.count(DISTINCT set_{i}) > 1"));
    }
    for (i, given) in identity.set.iter().enumerate() {
        if given.misfit.is_some() {
            let n = i + 1;
            select.push(match on_conflict == OnConflict::First {
                true => format!("(pg_catalog.array_agg(misfit_{n} ORDER BY mend_order))[1] AS misfit_{n}"),
                false => format!("pg_catalog.bool_or(misfit_{n}) AS misfit_{n}"),
            });
        }
    }
    if identity.each.is_some() {
        values.push("t.ctid AS mend_ctid".into());
        select.push("(pg_catalog.array_agg(mend_ctid))[1] AS mend_ctid".into());
    }
    if identity.unknown_tenant.is_some() {
        select.push("(pg_catalog.array_agg(unknown_tenant))[1] AS unknown_tenant".into());
    }
    select.push("pg_catalog.count(*) AS mend_rows".into());
    select.push(format!("({}) AS conflict", conflicts.join(" OR ")));
    let mut cases: Vec<(String, Reason)> = Vec::new();
    if identity.unknown_tenant.is_some() {
        for reason in [Reason::NoSource, Reason::Ambiguous] {
            cases.push((format!("given.unknown_tenant = {}", reason.sql()), reason));
        }
    }
    if on_conflict != OnConflict::First {
        cases.push(("given.conflict".into(), Reason::Conflict));
    }
    let refused = |condition: String, name: &str| (condition, Reason::refused_by(name));
    for (i, given) in identity.set.iter().enumerate() {
        if let Some((_, type_name)) = &given.misfit {
            cases.push(refused(format!("given.misfit_{}", i + 1), type_name));
        }
    }
    // What stands in for a key that its default gives is not judged.
    let judged = |column: i16| identity.each.is_none() || column != identity.key.number;
    for given in identity
        .matched
        .iter()
        .chain(&identity.set)
        .filter(|g| judged(g.column.number))
    {
        let Some(value) = identity.value(given.column.number) else {
            continue;
        };
        if let Some((condition, name)) = limit(catalog, given, &value) {
            cases.push(refused(condition, &name));
        }
        let not_null = given.column.not_null || identity.insertion.domain_not_null.contains(&given.column.number);
        if not_null {
            cases.push(refused(
                format!("{value} IS NULL"),
                &format!("NOT NULL of {}", given.column.name),
            ));
        }
    }
    let value = |column: i16| identity.value(column).filter(|_| judged(column));
    cases.extend(refusals_of_new_row(
        catalog,
        identity.parent,
        &blueprint.overlays,
        &identity.insertion,
        &value,
        &identity.index.columns,
    ));
    let outcome = reason::case(&cases, &Reason::Create);
    format!(
        "SELECT given.*, {outcome}::pg_catalog.text AS mend_outcome,\n  {} AS mend_key\nFROM (\n  SELECT {}\n  FROM (\n    SELECT t.\"pg_mend order\" AS mend_order, {}\n    FROM (\n{}\n    ) AS t\n  ) AS wanted\n  GROUP BY {}\n) AS given",
        placeholder_key_sql(catalog, identity, &blueprint.overlays),
        select.join(",\n    "),
        values.join(",\n      "),
        indent(&orphaned_rows(blueprint), 6),
        keys.join(", ")
    )
}

/// A varchar(n) that is too long is refused by an INSERT, and cut by a cast.
fn limit(catalog: &Catalog, given: &ColumnExpression, value: &str) -> Option<(String, String)> {
    let longest = longest(catalog, given.column)?;
    let (base, _) = catalog.base_type(given.column.type_oid, -1)?;
    Some((
        format!("pg_catalog.char_length({value}::pg_catalog.text) > {longest}"),
        format!("{}({longest})", base.display),
    ))
}

/// The key of a parent that is not there yet: what it is given, else one that no parent has.
fn placeholder_key_sql(catalog: &Catalog, identity: &Identity, overlays: &Overlays) -> String {
    if let Some(value) = identity.value(identity.key.number) {
        return value;
    }
    let Some((base, _)) = catalog.base_type(identity.key.type_oid, -1) else {
        return "NULL".into();
    };
    let keys: Vec<String> = numbers(identity.matched.len(), "given.match");
    let text: Vec<String> = keys
        .iter()
        .zip(&identity.matched)
        .map(|(key, given)| catalog.text_sql(key, given.type_oid))
        .collect();
    let hash = format!(
        "pg_catalog.md5(pg_catalog.jsonb_build_array('mend', {})::pg_catalog.text)",
        text.join(", ")
    );
    match (base.category, base.name.as_str()) {
        ('N', _) => format!(
            "((SELECT COALESCE(pg_catalog.max(p.{}), 0) FROM {} AS p) + pg_catalog.row_number() OVER (ORDER BY {}))::{}",
            identity.key.sql(),
            overlays.relation_sql(identity.parent),
            keys.join(", "),
            base.sql()
        ),
        (_, "uuid") => format!("{hash}::pg_catalog.uuid"),
        _ => format!("{hash}::{}", base.sql()),
    }
}

/// Can a key stand in for one that is not there yet?
pub fn has_placeholder_key(catalog: &Catalog, identity: &Identity) -> bool {
    let base = catalog.base_type(identity.key.type_oid, -1).map(|(base, _)| base);
    identity.value(identity.key.number).is_some()
        || base.is_some_and(|base| base.category == 'N' || base.name == "uuid" || base.is_string())
}

/// The parents as they would be: those that are there (after earlier steps of a dry run: `overlays`), and one for each group that can
/// be created. `groups`: how the query of the groups is called.
pub fn parents_after(identity: &Identity, overlays: &Overlays, groups: &str) -> String {
    let parent: &Table = identity.parent;
    let existing: Vec<String> = parent.columns.iter().map(|c| format!("p.{}", c.sql())).collect();
    let new: Vec<String> = parent
        .columns
        .iter()
        .map(|c| match (c.number == identity.key.number, identity.value(c.number)) {
            (true, _) => "given.mend_key".to_string(),
            (_, Some(value)) => value,
            // Whatever its default will be.
            (_, None) => "NULL".into(),
        })
        .collect();
    format!(
        "SELECT {} FROM {} AS p\nUNION ALL\nSELECT {} FROM {groups} AS given WHERE given.mend_outcome = 'create'",
        existing.join(", "),
        overlays.relation_sql(parent),
        new.join(", ")
    )
}

fn same_identity(catalog: &Catalog, identity: &Identity) -> Vec<String> {
    let numbered = identity.matched.iter().enumerate();
    numbered
        .map(|(i, given)| {
            let n = i + 1;
            equal(
                catalog,
                &format!("given.match_{n}"),
                given.type_oid,
                &format!("wanted.match_{n}"),
            )
        })
        .collect()
}

/// Rows that find no parent even then: outcome of their group, number of rows.
pub fn left_over(catalog: &Catalog, identity: &Identity, blueprint: &Blueprint, groups: &str) -> Statement {
    let on = same_identity(catalog, identity);
    Statement::new(format!(
        "SELECT COALESCE(given.mend_outcome, 'source_missing'), pg_catalog.count(*)\nFROM (\n  SELECT {}\n  FROM (\n{}\n  ) AS t\n) AS wanted\nLEFT JOIN {groups} AS given ON {}",
        identity_sql(identity).join(", "),
        indent(&orphaned_rows(blueprint), 4),
        on.join(" AND ")
    ))
    .ending("GROUP BY 1")
}

/// Parents that rows would be linked to: all of them, and those that are new.
pub fn linked_parents(blueprint: &Blueprint, groups: &str) -> Statement {
    Statement::new(format!(
        "SELECT pg_catalog.count(DISTINCT classified.value), pg_catalog.count(DISTINCT given.mend_key)\nFROM (\n{}\n) AS classified\n\
         LEFT JOIN {groups} AS given ON given.mend_outcome = 'create' AND given.mend_key = classified.value",
        indent(&blueprint.classification(Moment::Before, Extra::None), 2)
    ))
    .filter("classified.outcome = 'filled'")
}

/// Is nothing left to ask of a row whose parent can be created: does every one of its group fit? Then the rows need not be looked at once
/// more to know which parents are wanted. (Proved behind it all the same: no parent stays without a row.)
pub fn every_row_fits(identity: &Identity, blueprint: &Blueprint) -> bool {
    let (catalog, table, details) = (blueprint.catalog, blueprint.table, &blueprint.details);
    let nothing_refuses = details.checks.is_empty()
        && details.domain_checks.is_empty()
        && details.unique_indexes.is_empty()
        && blueprint.touched.is_empty()
        && identity.key.type_oid == blueprint.column.type_oid;
    let leads_to_it = |key: &&ForeignKey| {
        key.columns == [blueprint.column.number]
            && key.parent == identity.parent.oid
            && key.parent_columns == [identity.key.number]
    };
    let mut keys = catalog
        .foreign_keys_of(table.oid)
        .filter(|key| key.columns.contains(&blueprint.column.number));
    let guarded = match &blueprint.guard {
        Guard::Off | Guard::TenantItself | Guard::Unguarded(_) => true,
        // The parent is looked up by the very tenant of the row.
        Guard::By(guard) if guard.row.hops.is_empty() && guard.value.hops.is_empty() => {
            let given = identity
                .matched
                .iter()
                .find(|given| given.column.number == guard.value.column);
            let own = table.column(guard.row.column);
            given.zip(own).is_some_and(|(given, own)| {
                let base = catalog.base_type(own.type_oid, -1).map(|(base, _)| base);
                base.is_some_and(|base| {
                    base.oid == given.type_oid && given.sql == format!("t.{}::{}", own.sql(), base.sql())
                })
            })
        }
        Guard::By(_) => false,
    };
    nothing_refuses && keys.all(|key| leads_to_it(&key)) && guarded
}

/// Creates the parents to which rows would be linked.
///
/// * `every_row_fits`: as the function of this name says, of all rows.
pub fn insert(identity: &Identity, blueprint: &Blueprint, groups: &str, every_row_fits: bool) -> Statement {
    let named: Vec<&ColumnExpression> = identity.matched.iter().chain(&identity.set).collect();
    let columns: Vec<String> = named.iter().map(|g| g.column.sql().to_string()).collect();
    let values: Vec<String> = named.iter().filter_map(|g| identity.value(g.column.number)).collect();
    let insert = Statement::new(format!(
        "INSERT INTO {} ({})\nSELECT {}\nFROM {groups} AS given",
        identity.parent.sql(),
        columns.join(", "),
        values.join(", "),
    ))
    .filter("given.mend_outcome = 'create'");
    match every_row_fits {
        true => insert,
        false => insert.filter(is_wanted(blueprint)),
    }
}

/// A row can be linked to the parent of the group `given`.
fn is_wanted(blueprint: &Blueprint) -> String {
    format!(
        "given.mend_key IN (\n    SELECT classified.value FROM (\n{}\n    ) AS classified WHERE classified.outcome = 'filled')",
        indent(&blueprint.classification(Moment::Before, Extra::None), 6)
    )
}

/// Creates parents, and keeps their keys.
///
/// * `creating`: WITH queries, of which one is `made`, with the key of a new parent as `made_key`.
/// * `numbers`: of the parents that are new, and whatever else was counted.
fn kept(catalog: &Catalog, identity: &Identity, creating: Vec<Query>, numbers: &[&str]) -> Statement {
    let value = catalog.json_sql("made_key", identity.key.type_oid);
    let row_key = format!("{}::pg_catalog.text", json_object([(identity.key, value)]));
    keeping(creating, numbers, &[("row_key", &row_key)], "made", None)
}

/// Creates parents in the order of their identity; one that somebody else created meanwhile is left as it is. Its number: how many.
///
/// * `insert`: see [`insert`], complete but for its ending.
pub fn create(catalog: &Catalog, identity: &Identity, overlays: &Overlays, insert: Statement) -> Statement {
    let keys: Vec<String> = numbers(identity.matched.len(), "given.match");
    let index: Vec<String> = identity
        .index
        .columns
        .iter()
        .filter_map(|c| identity.parent.column(*c))
        .map(|c| c.sql().to_string())
        .collect();
    let parameters = insert.parameters().to_vec();
    let insert = insert
        .ending(format!("ORDER BY {}", keys.join(", ")))
        .ending(format!("ON CONFLICT ({}) DO NOTHING", index.join(", ")))
        .ending(format!("RETURNING {} AS made_key", identity.key.sql()));
    let mut queries = overlays.queries_of(&insert.sql());
    queries.push(insert.as_query("made"));
    kept(catalog, identity, queries, &["(SELECT pg_catalog.count(*) FROM made)"]).with_parameters(parameters)
}

/// Where each row gets a parent of its own: keys are allocated first, so that which row gets which is exact; then parents are
/// created and rows linked, in one statement. Its numbers: parents that are new, rows that were linked.
///
/// * `default`: what the key gets by default.
/// * `candidates`: see [`candidates`], complete.
pub fn create_each(
    catalog: &Catalog,
    identity: &Identity,
    overlays: &Overlays,
    default: &str,
    candidates: Statement,
) -> Statement {
    let (key, column) = (identity.key.sql(), identity.column.sql());
    let mut columns = vec![key.to_string()];
    columns.extend(identity.set.iter().map(|g| g.column.sql().to_string()));
    let mut values = vec!["allocated.new_key".to_string()];
    values.extend(numbers(identity.set.len(), "allocated.set"));
    let mut queries = overlays.queries_of(&candidates.sql());
    let allocated = format!(
        "SELECT candidate.*, {default} AS new_key\nFROM (\n{}\n) AS candidate",
        indent(&candidates.sql(), 2)
    );
    queries.push(Query::new("allocated", allocated).materialized());
    let made = format!(
        "INSERT INTO {} ({})\nOVERRIDING SYSTEM VALUE\nSELECT {}\nFROM allocated\nRETURNING {key} AS made_key",
        identity.parent.sql(),
        columns.join(", "),
        values.join(", "),
    );
    queries.push(Query::new("made", made));
    let linked = Statement::new(format!(
        "UPDATE {} AS t SET {column} = allocated.new_key\nFROM allocated",
        identity.table.relation_sql(),
    ))
    .filter(format!("{} = allocated.stand_in", identity.matched[0].sql))
    .filter("t.ctid = allocated.mend_ctid")
    .filter(format!("t.{column} IS NULL"))
    .ending("RETURNING 1");
    queries.push(linked.as_query("linked"));
    let numbers = [
        "(SELECT pg_catalog.count(*) FROM made)",
        "(SELECT pg_catalog.count(*) FROM linked)",
    ];
    kept(catalog, identity, queries, &numbers).with_parameters(candidates.parameters().to_vec())
}

/// The rows that get a parent of their own: `stand_in`, `set_1 ...`.
///
/// * `versions`: only these.
pub fn candidates(identity: &Identity, blueprint: &Blueprint, groups: &str, versions: &Versions) -> Statement {
    let mut select = vec!["given.match_1 AS stand_in".to_string(), "given.mend_ctid".into()];
    select.extend(numbers(identity.set.len(), "set").iter().map(|s| format!("given.{s}")));
    let of_versions = versions.condition("t").map(|of| {
        format!(
            "EXISTS (SELECT FROM {} AS t WHERE {} = given.match_1 AND t.ctid = given.mend_ctid AND {of})",
            identity.table.relation_sql(),
            identity.matched[0].sql
        )
    });
    Statement::new(format!("SELECT {}\nFROM {groups} AS given", select.join(", ")))
        .filter("given.mend_outcome = 'create'")
        .filter(is_wanted(blueprint))
        .filters(of_versions)
}

/// Per tenant (`tenant`: an expression over `t`) and outcome: rows, the parents that they would be linked to, those of them that are
/// new.
pub fn by_tenant(
    catalog: &Catalog,
    identity: &Identity,
    blueprint: &Blueprint,
    groups: &str,
    tenant: &str,
) -> Statement {
    let mut columns: Vec<String> = blueprint
        .table
        .columns
        .iter()
        .map(|c| format!("classified.column_{} AS {}", c.number, c.sql()))
        .collect();
    columns.push("classified.row_ctid AS ctid".into());
    let on = same_identity(catalog, identity);
    let tenant_column = identity.tenant_column.and_then(|c| identity.parent.column(c));
    let tenant_type = tenant_column.map(|c| c.type_oid).unwrap_or_default();
    let tenant = catalog.text_sql(&format!("({tenant})"), tenant_type);
    Statement::new(format!(
        "SELECT wanted.mend_tenant,\n  CASE wanted.mend_outcome WHEN 'source_missing' THEN COALESCE(given.mend_outcome, 'source_missing') ELSE wanted.mend_outcome END,\n  \
         pg_catalog.count(*), pg_catalog.count(DISTINCT wanted.mend_value), pg_catalog.count(DISTINCT new.mend_key)\nFROM (\n  SELECT {tenant} AS mend_tenant, t.mend_outcome, t.mend_value, {}\n  FROM (\n    SELECT classified.outcome AS mend_outcome, classified.value AS mend_value, {}\n    FROM (\n{}\n    ) AS classified\n  ) AS t\n) AS wanted\n\
         LEFT JOIN {groups} AS given ON {}\nLEFT JOIN {groups} AS new ON new.mend_outcome = 'create' AND new.mend_key = wanted.mend_value",
        identity_sql(identity).join(", "),
        columns.join(", "),
        indent(&blueprint.classification(Moment::Before, Extra::Columns), 6),
        on.join(" AND ")
    ))
    .ending("GROUP BY 1, 2")
}
