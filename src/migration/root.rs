//! The table of the tenants and that of their members, made from a rule where they are missing, compared where they are there.

use std::panic::AssertUnwindSafe;

use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use serde_json::{Map, Value};

use super::compared;
use super::status::{State, status};
use crate::catalog::{Column, Table};
use crate::identifier::Literal;
use crate::pg::{self, Jsonb, Settings, Watch, subtransaction};
use crate::plan::Mode;
use crate::problem::Problem;
use crate::run::record::qualified;
use crate::run::{Session, may_write, settings};
use crate::script;
use crate::script::ast::Action;
use crate::validate;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct TenantRootRequest {
    /// The table of the tenants.
    pub table: String,
    /// `users` or `users(user_id)`: who owns tenants and is a member.
    pub users: Option<String>,
    /// The table of the members.
    pub members: Option<String>,
    /// `id uuid DEFAULT gen_random_uuid()`.
    pub key: String,
    /// Column → definition.
    pub columns: Map<String, Value>,
    /// What the column that references the owner is called.
    pub owner: String,
    /// What members can be.
    pub roles: Vec<String>,
    /// Column → value.
    pub first_tenant: Option<Map<String, Value>>,
    /// The key of a user.
    pub first_owner: Option<String>,
    /// Say only.
    pub mode: Mode,
    /// For `lock_timeout`.
    pub lock_timeout: String,
}

/// One thing that is there, is made, or was checked.
pub struct Line {
    /// What it is about.
    pub object: String,
    /// `present`, `create`, `created`, `insert`, `inserted`, `checked`, `none`.
    pub action: &'static str,
    /// What makes it, or what comes next.
    pub statement: Option<String>,
    /// In words.
    pub detail: Option<String>,
}

/// Schema and name as typed: quoted parts as they are, others letter by letter.
fn split(name: &str) -> Result<(Option<String>, String), Problem> {
    let parts: Vec<String> = match name.contains('"') {
        true => {
            let sql = "SELECT pg_catalog.parse_ident($1)";
            let parts = Spi::connect(|client| {
                client
                    .select(sql, None, &[name.into()])?
                    .first()
                    .get_one::<Vec<Option<String>>>()
            })?;
            parts.into_iter().flatten().flatten().collect()
        }
        false => name.split('.').map(|part| part.trim().to_string()).collect(),
    };
    match parts.as_slice() {
        [name] if !name.is_empty() => Ok((None, name.clone())),
        [schema, name] if !schema.is_empty() && !name.is_empty() => Ok((Some(schema.clone()), name.clone())),
        _ => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_NAME,
            format!("{name} is no name of a table"),
        )
        .hint("for example 'organizations' or 'app.organizations'")),
    }
}

fn as_sql((schema, name): &(Option<String>, String)) -> String {
    match schema {
        Some(schema) => format!("{}.{}", quote_identifier(schema), quote_identifier(name)),
        None => quote_identifier(name),
    }
}

/// The users, and the key by which they are referenced.
fn users<'a>(session: &'a Session, named: &str) -> Result<(&'a Table, &'a Column), Problem> {
    let catalog = &session.catalog;
    let (table, column) = match named.split_once('(') {
        Some((table, column)) => (table.trim(), Some(column.trim_end_matches(')').trim())),
        None => (named.trim(), None),
    };
    let table = catalog.resolve_table(table)?;
    let column = match column {
        Some(column) => Some(catalog.resolve_column(table, column)?),
        None => table
            .primary_key()
            .filter(|key| key.columns.len() == 1)
            .and_then(|key| table.column(key.columns[0])),
    };
    match column {
        Some(column) if table.is_unique(&[column.number]) => Ok((table, column)),
        _ => Err(Problem::new(
            PgSqlErrorCode::ERRCODE_INVALID_FOREIGN_KEY,
            format!(
                "{} has no key of one column that can be referenced",
                catalog.display(table)
            ),
        )
        .hint("name a unique column: users => 'users(user_id)'")),
    }
}

fn text_of(value: &Value, what: &str) -> Result<String, Problem> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
        _ => Err(Problem::invalid_parameter(
            format!("columns: {what} has no definition"),
            r#"for example columns => '{"name": "text NOT NULL", "slug": "text NOT NULL UNIQUE"}'"#,
        )),
    }
}

/// The statements that make everything; none is run here.
fn statements(session: &Session, request: &TenantRootRequest) -> Result<Vec<String>, Problem> {
    let name = split(&request.table)?;
    let table = as_sql(&name);
    let mut columns = vec![format!("{} PRIMARY KEY", request.key)];
    for (column, definition) in &request.columns {
        columns.push(format!("{} {}", quote_identifier(column), text_of(definition, column)?));
    }
    let referenced = request
        .users
        .as_deref()
        .map(|users_named| users(session, users_named))
        .transpose()?;
    let reference = |(users, key): (&Table, &Column)| -> Result<(String, String), Problem> {
        let sql = "SELECT pg_catalog.format_type($1, $2)";
        let arguments = [pg_sys::Oid::from(key.type_oid).into(), key.type_modifier.into()];
        let type_name = Spi::connect(|client| client.select(sql, None, &arguments)?.first().get_one::<String>())?;
        let to = format!("{} ({})", qualified(users), key.quoted);
        Ok((type_name.unwrap_or_default(), to))
    };
    if let Some(users) = referenced {
        let (type_name, to) = reference(users)?;
        columns.push(format!(
            "{} {type_name} NOT NULL REFERENCES {to}",
            quote_identifier(&request.owner)
        ));
    }
    let mut all = vec![format!("CREATE TABLE {table} (\n  {}\n)", columns.join(",\n  "))];
    let wanted = columns.len();
    let parsed = script::read(&all[0]).map_err(|problem| Problem {
        hint: Some("key and columns are definitions as in CREATE TABLE: 'id uuid DEFAULT gen_random_uuid()'".into()),
        ..problem
    })?;
    let own_key = match parsed.as_slice() {
        [step] => match step.actions.as_slice() {
            [
                Action::CreateTable {
                    columns,
                    constraints,
                    from,
                    bound: None,
                    partition_key: None,
                    ..
                },
            ] if columns.len() == wanted && constraints.is_empty() && from.is_empty() => {
                (columns[0].name.clone(), columns[0].type_name.text.clone())
            }
            _ => return Err(not_columns()),
        },
        _ => return Err(not_columns()),
    };
    let known = |name: &String| *name == own_key.0 || request.columns.contains_key(name);
    if referenced.is_some() && known(&request.owner) {
        return Err(Problem::invalid_parameter(
            format!("owner: {} is a column already", request.owner),
            "owner => 'owner_id' is the default",
        ));
    }
    if let Some(unknown) = request
        .first_tenant
        .iter()
        .flat_map(|tenant| tenant.keys())
        .find(|name| !known(name))
    {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("first_tenant: {unknown} is not one of the columns"),
        )
        .hint("name it in columns, or leave it out"));
    }
    if let Some(members) = &request.members {
        let Some(users) = referenced else {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "members are users: users must be named",
            )
            .hint("users => 'users' or users => 'users(user_id)'"));
        };
        let members = as_sql(&split(members)?);
        let (user_type, to) = reference(users)?;
        let own = format!("{}_id", singular(&name.1));
        let user = match users.1.name.as_str() {
            "id" => format!("{}_id", singular(&users.0.name)),
            name => name.to_string(),
        };
        if own == user || members == table {
            return Err(Problem::invalid_parameter(
                format!(
                    "members: {} would have {own} twice, or be the tenants themselves",
                    request.members.as_deref().unwrap_or_default()
                ),
                "name the tables so that organizations and users are told apart",
            ));
        }
        let (own, user) = (quote_identifier(own), quote_identifier(user));
        let roles: Vec<String> = request
            .roles
            .iter()
            .map(|role| Literal::new(role).to_string())
            .collect();
        let first = request
            .roles
            .last()
            .map(|role| Literal::new(role).to_string())
            .unwrap_or_default();
        let role = match roles.is_empty() {
            true => String::new(),
            false => format!(
                "  role text NOT NULL DEFAULT {first} CHECK (role IN ({})),\n",
                roles.join(", ")
            ),
        };
        all.push(format!(
            "CREATE TABLE {members} (\n  {own} {} NOT NULL REFERENCES {table} ({}) ON DELETE CASCADE,\n  {user} {user_type} NOT NULL REFERENCES {to} ON DELETE CASCADE,\n{role}  PRIMARY KEY ({own}, {user})\n)",
            own_key.1,
            quote_identifier(&own_key.0),
        ));
        all.push(format!("CREATE INDEX ON {members} ({user})"));
    }
    Ok(all)
}

fn not_columns() -> Problem {
    Problem::new(
        PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
        "key and each of columns must define one column",
    )
    .hint(r#"key => 'id uuid DEFAULT gen_random_uuid()', columns => '{"name": "text NOT NULL"}'"#)
}

/// `organization` of `organizations`.
fn singular(name: &str) -> String {
    match name {
        name if name.ends_with("ies") => format!("{}y", &name[..name.len() - 3]),
        name if name.ends_with('s') && !name.ends_with("ss") => name[..name.len() - 1].to_string(),
        name => name.to_string(),
    }
}

/// Makes what is missing, or says what that would be.
///
/// Errors: 42P07 where something else is there, with the differences; 42830, 42P01, 42703 (users), 42601, 22023, 22004 (a first tenant
/// without an owner), 23503 (an owner who is no user), 25006, 55P03. Nothing is made then.
pub fn ensure(request: &TenantRootRequest) -> Result<Vec<Line>, Problem> {
    if request.mode.is_real() {
        may_write()?;
    }
    if request.first_tenant.is_some() && request.first_owner.is_none() {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            "a first tenant needs an owner whom you name",
        )
        .detail("nobody is chosen here: the first user with the role admin need not be the one")
        .hint("first_owner => 'the key of a user'"));
    }
    if request.first_owner.is_some() && (request.first_tenant.is_none() || request.users.is_none()) {
        return Err(Problem::invalid_parameter(
            "first_owner without first_tenant or users",
            r#"first_tenant => '{"name": "..."}', first_owner => '...', users => 'users'"#,
        ));
    }
    let mut lines = Vec::new();
    let mut missing = Vec::new();
    {
        let session = Session::begin()?;
        let all = statements(&session, request)?;
        let text = all
            .iter()
            .map(|statement| format!("{statement};\n"))
            .collect::<String>();
        let compared = compared(&session, &text)?;
        let status = status(&compared.steps, &compared.expected, &compared.actual, &[], true)?;
        let mut differ = Vec::new();
        for (line, statement) in status.lines.iter().zip(&all) {
            let object = line.object.clone().unwrap_or_default();
            match line.state {
                State::Present | State::WouldFail | State::Unknown => lines.push(Line {
                    object,
                    action: "present",
                    statement: None,
                    detail: line.rows.map(|rows| format!("{rows} rows")),
                }),
                State::Missing => {
                    missing.push(statement.clone());
                    lines.push(Line {
                        object,
                        action: if request.mode.is_real() { "created" } else { "create" },
                        statement: Some(statement.clone()),
                        detail: None,
                    });
                }
                State::Blocked => {
                    return Err(Problem::new(
                        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                        format!(
                            "{object} cannot be made: it {}",
                            line.detail.clone().unwrap_or_default()
                        ),
                    )
                    .detail("nothing was made")
                    .hint("make that first, or name something else"));
                }
                _ => differ.push(format!("{object}: {}", line.detail.clone().unwrap_or_default())),
            }
        }
        if !differ.is_empty() {
            return Err(Problem::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
                format!(
                    "{} exists with a different definition",
                    differ[0].split(':').next().unwrap_or_default()
                ),
            )
            .detail(differ.join("; "))
            .hint("ask for what is there (columns, key, users), or change it by hand; nothing was made"));
        }
    }
    if request.mode.is_real() && !missing.is_empty() {
        subtransaction(AssertUnwindSafe(|| {
            let session = Session::begin()?;
            let mut settings = session.caller.as_pairs();
            settings.push(("lock_timeout", &request.lock_timeout));
            let _settings = Settings::push(&settings);
            for statement in &missing {
                Spi::connect_mut(|client| client.update(statement, None, &[]).map(|_| ()))?;
            }
            Ok(())
        }))?;
    }
    if let (Some(tenant), Some(owner)) = (&request.first_tenant, &request.first_owner) {
        lines.push(first(request, tenant, owner)?);
    }
    let session = Session::begin()?;
    lines.extend(references(&session, request));
    Ok(lines)
}

/// The first tenant, where there is none.
fn first(request: &TenantRootRequest, tenant: &Map<String, Value>, owner: &str) -> Result<Line, Problem> {
    let session = Session::begin()?;
    let catalog = &session.catalog;
    let named = request.users.as_deref().unwrap_or_default();
    let (users, key) = users(&session, named)?;
    session.hold([users.oid])?;
    let known = format!(
        "SELECT EXISTS (SELECT FROM {} AS u WHERE ({}) OPERATOR(pg_catalog.=) $1)",
        qualified(users),
        catalog.text_sql(&format!("u.{}", key.sql()), key.type_oid)
    );
    let _settings = settings(false);
    let _policies = Settings::push(&[("row_security", "on")]);
    let is_user = Spi::connect(|client| client.select(&known, None, &[owner.into()])?.first().get_one::<bool>())?;
    if is_user != Some(true) {
        return Err(Problem::new(
            PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION,
            format!(
                "{owner} is no user: {}.{} has no such row",
                catalog.display(users),
                key.quoted
            ),
        )
        .detail("nothing was made")
        .hint(format!("SELECT {} FROM {}", key.quoted, catalog.display(users))));
    }
    let Ok(table) = catalog.resolve_table(&request.table) else {
        // A dry run: it is not there yet.
        return Ok(Line {
            object: request.table.clone(),
            action: "insert",
            statement: None,
            detail: Some(format!("a first tenant, owned by {owner}")),
        });
    };
    let name = qualified(table);
    session.hold([table.oid])?;
    if request.mode.is_real() {
        // Two at once do not both find it empty.
        let _timeout = Settings::push(&[("lock_timeout", &request.lock_timeout)]);
        let lock = format!("LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE");
        Spi::connect_mut(|client| client.update(&lock, None, &[]).map(|_| ()))?;
        pg::current_transaction_id();
    }
    let count = format!("SELECT pg_catalog.count(*) FROM {name}");
    let there = Spi::connect(|client| client.select(&count, None, &[])?.first().get_one::<i64>())?.unwrap_or(0);
    if there > 0 {
        return Ok(Line {
            object: catalog.display(table),
            action: "present",
            statement: None,
            detail: Some(format!("{there} tenants are there: no first one is made")),
        });
    }
    if !request.mode.is_real() {
        return Ok(Line {
            object: catalog.display(table),
            action: "insert",
            statement: None,
            detail: Some(format!("a first tenant, owned by {owner}")),
        });
    }
    let mut row = tenant.clone();
    row.insert(request.owner.clone(), Value::String(owner.to_string()));
    let mut columns = Vec::new();
    for name in row.keys() {
        let column = catalog.resolve_column(table, name)?;
        columns.push((name.clone(), column.quoted.clone()));
    }
    let list: Vec<&str> = columns.iter().map(|(_, quoted)| quoted.as_str()).collect();
    let values: Vec<String> = list.iter().map(|column| format!("(given.tenant).{column}")).collect();
    let own = table.primary_key().and_then(|key| table.column(key.columns[0]));
    let Some(own) = own else {
        return Err(Problem::invalid_parameter(
            format!("{name} has no primary key"),
            "give it one",
        ));
    };
    let mut by_column = Map::new();
    for (name, _) in &columns {
        let column = catalog.resolve_column(table, name)?;
        by_column.insert(column.name.clone(), row[name].clone());
    }
    let mut sql = format!(
        "INSERT INTO {name} ({})\nSELECT {} FROM (SELECT pg_catalog.jsonb_populate_record(NULL::{name}, $1) AS tenant OFFSET 0) AS given\nRETURNING {}",
        list.join(", "),
        values.join(", "),
        catalog.text_sql(&own.sql().to_string(), own.type_oid)
    );
    let _pause = Watch::pause();
    let inserted = Spi::connect_mut(|client| {
        client
            .update(&sql, None, &[Jsonb::from(&Value::Object(by_column)).into()])?
            .first()
            .get_one::<String>()
    })?;
    let inserted = inserted.unwrap_or_default();
    if let Some(members) = &request.members {
        let members = catalog.resolve_table(members)?;
        let foreign = |parent: &Table| {
            let mut all = catalog.foreign_keys_of(members.oid);
            let key = all.find(|k| k.parent == parent.oid && k.columns.len() == 1)?;
            members.column(key.columns[0])
        };
        if let (Some(tenant), Some(user)) = (foreign(table), foreign(users)) {
            let role = request.roles.first();
            let (role_column, role_value) = match role {
                Some(role) => (", role".to_string(), format!(", {}", Literal::new(role))),
                None => Default::default(),
            };
            sql = format!(
                "INSERT INTO {}.{} ({}, {}{role_column})\nSELECT t.{own}, u.{key}{role_value} FROM {name} AS t, {}.{} AS u\n\
                 WHERE ({own_text}) OPERATOR(pg_catalog.=) $1 AND ({key_text}) OPERATOR(pg_catalog.=) $2",
                members.quoted_schema,
                members.quoted_name,
                tenant.quoted,
                user.quoted,
                users.quoted_schema,
                users.quoted_name,
                own = own.quoted,
                key = key.quoted,
                own_text = catalog.text_sql(&format!("t.{}", own.sql()), own.type_oid),
                key_text = catalog.text_sql(&format!("u.{}", key.sql()), key.type_oid),
            );
            let arguments = [inserted.as_str().into(), owner.into()];
            Spi::connect_mut(|client| client.update(&sql, None, &arguments).map(|_| ()))?;
        }
    }
    Ok(Line {
        object: catalog.display(table),
        action: "inserted",
        statement: None,
        detail: Some(format!("{} {inserted}, owned by {owner}", own.quoted)),
    })
}

/// What references the tenants, and whether it holds.
fn references(session: &Session, request: &TenantRootRequest) -> Vec<Line> {
    let Ok(root) = session.catalog.resolve_table(&request.table) else {
        return vec![];
    };
    let shown = session.catalog.display(root);
    let asked = validate::ValidateRequest {
        root: Some(request.table.clone()),
        table: None,
        include_inferred: true,
        samples: 0,
    };
    let checked = subtransaction(AssertUnwindSafe(|| {
        if request.mode.is_real() {
            // What was made in this call counts.
            pg::current_transaction_id();
        }
        validate::validate(session, &asked)
    }));
    let checked = match checked {
        Ok(checked) => checked,
        Err(problem) => {
            return vec![Line {
                object: shown,
                action: "checked",
                statement: problem.hint,
                detail: Some(format!("its references could not be checked: {}", problem.message)),
            }];
        }
    };
    let mut lines: Vec<Line> = Vec::new();
    for one in checked
        .into_iter()
        .filter(|one| one.parent.as_deref() == Some(shown.as_str()))
    {
        let constraint = match (&one.constraint, one.state) {
            (Some(name), Some(state)) => format!("{name} {}", state.as_str()),
            _ => "no foreign key".into(),
        };
        lines.push(Line {
            object: format!("{}.{}", one.table, one.columns),
            action: "checked",
            statement: one.fix.clone(),
            detail: Some(format!(
                "{constraint}; {} rows, {} of them point at no tenant",
                one.rows_checked,
                one.orphans.unwrap_or_default()
            )),
        });
    }
    lines
}
