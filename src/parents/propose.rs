//! What the identity of a parent could be, where the call does not say: a unique key of which every column has a namesake in the
//! row, or is the tenant. A proposal only.

use pgrx::prelude::PgSqlErrorCode;
use serde_json::{Map, Value};

use super::ParentsRequest;
use super::identity::parent_of;
use crate::catalog::{Catalog, Column, Table};
use crate::identifier::Literal;
use crate::infer::tenancy::resolver::{RowTenant, TenantResolver};
use crate::names;
use crate::problem::Problem;
use crate::rule::OnConflict;
use crate::run::Session;

/// The column of `table` that is called like one of the parent and can be compared with it, `column` itself aside.
pub(super) fn namesake<'a>(catalog: &Catalog, table: &'a Table, column: &Column, of: &Column) -> Option<&'a Column> {
    let same = |c: &&Column| c.number != column.number && catalog.comparable(c.type_oid, of.type_oid);
    let mut exactly = table.columns.iter().filter(same).filter(|c| c.name == of.name);
    exactly.next().or_else(|| {
        let mut alike = table
            .columns
            .iter()
            .filter(same)
            .filter(|c| names::words(&c.name) == names::words(&of.name));
        alike.next()
    })
}

/// The request with `match` and `set` spelled out, and the call that says so.
///
/// Errors: 42P01, 42703 (names); 42704 where nothing can be proposed.
pub fn proposed(
    session: &Session,
    resolver: &TenantResolver,
    request: &ParentsRequest,
) -> Result<(ParentsRequest, String), Problem> {
    let catalog = &session.catalog;
    let table = catalog.resolve_table(&request.table)?;
    let column = catalog.resolve_column(table, &request.column)?;
    let (parent, key, _) = parent_of(session, table, column, request.parent.as_deref())?;
    let namesake = |of: &Column| namesake(catalog, table, column, of);
    let own = |of: &Table| match resolver.of(of).as_ref() {
        RowTenant::Columns(columns) if columns.len() == 1 => Some(columns[0]),
        _ => None,
    };
    let (tenant, row_tenant) = (own(parent), own(table).and_then(|c| table.column(c)));
    let value = |number: i16| -> Option<&Column> {
        match Some(number) == tenant && row_tenant.is_some() {
            true => row_tenant,
            false => parent.column(number).and_then(namesake),
        }
    };
    let identity = parent.keys.iter().find(|k| {
        let says_more = k.columns.iter().any(|c| Some(*c) != tenant && *c != key.number);
        !k.primary && k.immediate && says_more && k.columns.iter().all(|c| value(*c).is_some())
    });
    let expression = |column: &Column| Value::String(column.quoted.clone());
    // What a parent could be found by, where the row says it in other words.
    let nearest = parent
        .keys
        .iter()
        .find(|k| !k.primary && k.immediate && !k.columns.contains(&key.number));
    let by: &[i16] = identity.or(nearest).map_or(&[], |k| &k.columns);
    let insertion = catalog.insertion(parent)?;
    let mut set = Map::new();
    for of in &parent.columns {
        let plain = of.number != key.number
            && Some(of.number) != tenant
            && !by.contains(&of.number)
            && !insertion.with_default.contains(&of.number)
            && !of.generated;
        if let Some(from) = namesake(of).filter(|_| plain) {
            set.insert(of.name.clone(), expression(from));
        }
    }
    let Some(identity) = identity else {
        let shown = catalog.display(parent);
        let mut example = Map::new();
        for of in by
            .iter()
            .filter_map(|c| parent.column(*c))
            .filter(|of| Some(of.number) != tenant || row_tenant.is_none())
        {
            let from = value(of.number).map_or(Value::String("an expression over the row".into()), expression);
            example.insert(of.name.clone(), from);
        }
        if example.is_empty() {
            example.insert(
                format!("a column of {}", parent.name),
                "an expression over the row".into(),
            );
        }
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("cannot tell which columns identify a row of {shown}"),
        )
        .detail(format!(
            "{shown} has no unique key whose columns all exist, with the same names, in {}",
            catalog.display(table)
        ))
        .hint(format!(
            "say it: SELECT * FROM backfill_parents({}, {}, match => {}, set => {})",
            Literal::new(&request.table),
            Literal::new(&request.column),
            Literal::new(&Value::Object(example).to_string()),
            Literal::new(&Value::Object(set).to_string()),
        )));
    };
    let mut matched = Map::new();
    for number in &identity.columns {
        if let (Some(of), Some(from)) = (parent.column(*number), value(*number)) {
            matched.insert(of.name.clone(), expression(from));
        }
    }
    let proposal = ParentsRequest {
        matched: Some(matched.clone()),
        set: Some(request.set.clone().unwrap_or(set)),
        ..request.clone()
    };
    let set = Value::Object(proposal.set.clone().unwrap_or_default()).to_string();
    let mut rest = String::new();
    let texts = [
        ("tenant", request.tenant.clone()),
        ("only_where", request.only_where.clone()),
        (
            "\"normalize\"",
            request.normalize.clone().map(|n| Value::Object(n).to_string()),
        ),
        (
            "on_conflict",
            match request.on_conflict {
                OnConflict::First => Some("first".to_string()),
                OnConflict::Error => Some("error".to_string()),
                _ => None,
            },
        ),
        ("parent", request.parent.clone()),
        ("root", request.root.clone()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            rest.push_str(&format!(", {name} => {}", Literal::new(&text)));
        }
    }
    if let Some(most) = request.max_rows {
        rest.push_str(&format!(", max_rows => {most}"));
    }
    let call = format!(
        "SELECT * FROM backfill_parents({}, {}, match => {}, set => {}{rest}, dry_run => false)",
        Literal::new(&request.table),
        Literal::new(&request.column),
        Literal::new(&Value::Object(matched).to_string()),
        Literal::new(&set)
    );
    Ok((proposal, call))
}
