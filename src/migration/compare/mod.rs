//! Is what is there what was written? Expressions are compared as the catalog would show them (`crate::pg::analysis`).

mod objects;
mod text;
mod types;

use super::actual::{self, ActualSchema};
use super::expected::Property;
use crate::identifier::Identifier;
use crate::pg::Settings;
use crate::pg::analysis::{self, Use};
use crate::pg::ast::{Expression, TypeName};
use crate::problem::Problem;
use crate::script::ast::Name;
use objects::{constraints, functions, indexes, policies, triggers};
use text::normalized;
use types::{attributes, bounds, domains, partition_keys, sequences};

/// Something that is there.
#[derive(Debug, Clone, Copy)]
pub enum Entity<'a> {
    /// A table, view, sequence or index.
    Relation(&'a actual::Relation),
    /// A column of it.
    Column(&'a actual::Relation, &'a actual::Column),
    /// A constraint of it.
    Constraint(&'a actual::Relation, &'a actual::Constraint),
    /// A trigger of it.
    Trigger(&'a actual::Relation, &'a actual::Trigger),
    /// A policy of it.
    Policy(&'a actual::Relation, &'a actual::Policy),
    /// A type.
    Type(&'a actual::Type),
    /// A function.
    Function(&'a actual::Function),
    /// A schema.
    Schema(&'a actual::Schema),
    /// An extension, by its name and oid.
    Extension(&'a str, u32),
    /// A label, a privilege: it is there or not.
    Plain,
}

/// `None`: it is so. Else what is different, in words.
pub type Difference = Option<String>;

/// A search_path as a setting.
pub fn path_setting(path: &[String]) -> String {
    match path.is_empty() {
        true => "\"\"".into(),
        false => path
            .iter()
            .map(|name| Identifier::new(name).to_string())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The type behind a name under a search_path.
///
/// Errors: as `analysis::type_of`.
pub fn type_of(name: &TypeName, path: &[String]) -> Result<Option<(u32, i32)>, Problem> {
    let _path = Settings::push(&[("search_path", &path_setting(path))]);
    analysis::type_of(name)
}

fn differ(what: &str, is: impl std::fmt::Display, written: impl std::fmt::Display) -> Difference {
    Some(format!("{what} is {is}, written is {written}"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, written: &T) -> Difference {
    (is != written).then(|| format!("{what} is {is:?}, written is {written:?}"))
}

/// Is this (schema and name) what the name means?
fn means(written: &Name, (schema, name): (&String, &String), path: &[String]) -> bool {
    written.name == *name
        && match &written.schema {
            Some(written) => written == schema,
            None => path.contains(schema) || schema == "pg_catalog",
        }
}

/// COLLATE, or none, and what is there.
fn collations(written: Option<&Name>, is: Option<&actual::Collation>, path: &[String]) -> Difference {
    match (written, is) {
        (None, Some((_, name, true))) => differ("the collation", format!("{name:?}"), "the default"),
        (Some(written), Some((schema, name, _))) if !means(written, (schema, name), path) => {
            differ("the collation", format!("{name:?}"), format!("{:?}", written.name))
        }
        _ => None,
    }
}

/// How names inside of expressions are looked up.
struct ExpressionContext {
    /// The search_path.
    setting: String,
    /// Something is called otherwise since.
    renamed: bool,
    /// Analyzing what is written could run the CHECK of somebody's domain: texts become values. It is not compared then.
    code_of_others: bool,
}

impl ExpressionContext {
    /// It is not found because it is called otherwise by now, or may not be looked at.
    fn excuse(&self, problem: &Problem) -> bool {
        use pgrx::PgSqlErrorCode::{
            ERRCODE_AMBIGUOUS_FUNCTION, ERRCODE_INSUFFICIENT_PRIVILEGE, ERRCODE_INVALID_SCHEMA_NAME,
            ERRCODE_UNDEFINED_COLUMN, ERRCODE_UNDEFINED_FUNCTION, ERRCODE_UNDEFINED_OBJECT, ERRCODE_UNDEFINED_TABLE,
        };
        match problem.code {
            // What the caller may not look at is not compared, nor what a later overload has made ambiguous.
            ERRCODE_INSUFFICIENT_PRIVILEGE | ERRCODE_AMBIGUOUS_FUNCTION => true,
            ERRCODE_UNDEFINED_COLUMN
            | ERRCODE_UNDEFINED_TABLE
            | ERRCODE_UNDEFINED_OBJECT
            | ERRCODE_INVALID_SCHEMA_NAME
            | ERRCODE_UNDEFINED_FUNCTION => self.renamed,
            _ => false,
        }
    }
}

/// An expression that is there, and one that is written.
fn expressions(
    what: &str,
    is: Option<&str>,
    written: Option<Expression>,
    form: Use,
    table: u32,
    names: &ExpressionContext,
) -> Difference {
    let written = match written {
        None => String::new(),
        Some(_) if names.code_of_others => return None,
        Some(expression) => match analysis::stored(expression, form, table, &names.setting) {
            Ok(text) => text,
            Err(problem) if names.excuse(&problem) => return None,
            Err(problem) => return Some(format!("{what}: {}", problem.message)),
        },
    };
    let is = is.unwrap_or_default();
    let (is, mut written) = (normalized(is), normalized(&written));
    // DEFAULT NULL is none.
    if matches!(form, Use::Default { .. }) && (written == "NULL" || written.starts_with("NULL::")) {
        written.clear();
    }
    let shown = |text: &str| {
        if text.is_empty() {
            "none".to_string()
        } else {
            text.to_string()
        }
    };
    match is == written {
        true => None,
        false => differ(what, shown(&is), shown(&written)),
    }
}

/// Does this hold of what is there?
///
/// * `path`: the search_path of the step that says it.
/// * `renamed`: a later step renames something, so that names inside of expressions may not be found any more; they are not compared then.
pub fn holds(property: &Property, entity: Entity, path: &[String], renamed: bool, actual: &ActualSchema) -> Difference {
    let setting = path_setting(path);
    let setting = &ExpressionContext {
        setting,
        renamed,
        code_of_others: actual.code_of_others,
    };
    match (property, entity) {
        (Property::Type(name, collation), Entity::Column(_, column)) => match type_of(name, path) {
            Ok(Some((oid, modifier))) if (oid, modifier) == (column.type_oid, column.modifier) => {
                collations(collation.as_ref(), column.collation.as_ref(), path)
            }
            Ok(Some(_)) => differ("the type", &column.type_name, &name.text),
            Ok(None) if renamed => None,
            Ok(None) => differ(
                "the type",
                &column.type_name,
                format!("{}, which does not exist", name.text),
            ),
            Err(problem) => Some(problem.message),
        },
        (Property::NotNull(yes), Entity::Column(_, column)) => match (column.not_null, *yes) {
            (is, yes) if is == yes => None,
            // Its parents say so.
            (true, false) if column.inherited => None,
            (true, _) => Some("it is NOT NULL, written is nullable".into()),
            (false, _) => Some("it is nullable, written is NOT NULL".into()),
        },
        (Property::Default(written), Entity::Column(_, column)) => {
            if !column.identity.is_empty() {
                return Some("it is an identity column".into());
            }
            if written.is_none() && column.inherited {
                return None;
            }
            let form = Use::Default {
                column: &column.name,
                type_oid: column.type_oid,
                modifier: column.modifier,
                generated: false,
            };
            let is = column.default.as_deref().filter(|_| column.generated.is_empty());
            expressions("the default", is, *written, form, 0, setting)
        }
        (Property::Serial, Entity::Column(_, column)) => {
            let nextval = column.default.as_deref().is_some_and(|d| d.starts_with("nextval("));
            (!(column.serial && nextval)).then(|| "no sequence of its own gives its default".into())
        }
        (Property::Generated(written), Entity::Column(relation, column)) => {
            let form = Use::Default {
                column: &column.name,
                type_oid: column.type_oid,
                modifier: column.modifier,
                generated: true,
            };
            let is = column.default.as_deref().filter(|_| !column.generated.is_empty());
            expressions(
                "what it is computed from",
                is,
                Some(*written),
                form,
                relation.oid,
                setting,
            )
        }
        (Property::Virtual(yes), Entity::Column(_, column)) => match (column.generated.as_str(), yes) {
            ("v", false) => Some("it is VIRTUAL, written is STORED".into()),
            ("s", true) => Some("it is STORED, written is VIRTUAL".into()),
            _ => None,
        },
        (Property::Identity(written), Entity::Column(_, column)) => same(
            "its identity",
            &column.identity,
            &written.map(String::from).unwrap_or_default(),
        ),
        (Property::Constraint(written, _), Entity::Constraint(relation, constraint)) => {
            constraints(written, relation, constraint, setting, path, actual)
        }
        (Property::Valid, Entity::Constraint(_, constraint)) => {
            (!constraint.validated).then(|| "it is NOT VALID".to_string())
        }
        (Property::Index(written), Entity::Relation(relation)) => match &relation.index {
            // Of a partitioned table (ON ONLY) it is complete when each partition has its own.
            Some(index) if relation.kind == 'I' => indexes(written, index, false, setting, path),
            Some(index) => indexes(written, index, true, setting, path),
            None => Some("it is no index".into()),
        },
        (Property::Function(written), Entity::Function(function)) => functions(written, function, setting, path),
        (Property::Trigger(written), Entity::Trigger(relation, trigger)) => {
            triggers(written, relation, trigger, setting, path)
        }
        (Property::Policy(written), Entity::Policy(relation, policy)) => policies(written, relation, policy, setting),
        (Property::View(query, columns), Entity::Relation(relation)) => match &relation.query {
            None => Some("it is no view".into()),
            // Later renames, and columns that come to a table of which it shows all, change how it would be written.
            Some(_) if renamed || setting.code_of_others => None,
            Some(is) => match analysis::stored_query(*query, columns, relation.oid, &setting.setting) {
                Err(problem) if setting.excuse(&problem) => None,
                Ok(Some(written)) if normalized(is) != normalized(&written) => {
                    differ("its query", normalized(is), normalized(&written))
                }
                Ok(_) => None,
                Err(problem) => Some(problem.message),
            },
        },
        (Property::Labels(written), Entity::Type(found)) => {
            // Labels that later steps add or rename are objects of their own: only the order of the others is left.
            let there: Vec<&String> = found.labels.iter().filter(|label| written.contains(label)).collect();
            let order: Vec<&String> = written.iter().filter(|label| found.labels.contains(label)).collect();
            match (found.kind, there == order) {
                ('e', true) => None,
                ('e', false) => differ("the order", format!("{:?}", found.labels), format!("{written:?}")),
                _ => Some("it is no enum".into()),
            }
        }
        (Property::Domain(written), Entity::Type(found)) => domains(written, found, setting, path),
        (Property::Attributes(written), Entity::Type(found)) => attributes(written, found, setting, path),
        (Property::PartitionKey(written), Entity::Relation(relation)) => {
            partition_keys(written.as_ref(), relation, setting)
        }
        (Property::Partition(written), Entity::Relation(relation)) => match (written, &relation.partition_of) {
            (None, None) => None,
            (None, Some((schema, name, ..))) => Some(format!("it is a partition of {schema}.{name}")),
            (Some(_), None) => Some("it is no partition".into()),
            (Some((whole, bound)), Some((schema, name, oid, is))) => {
                if !means(&whole.name, (schema, name), path) {
                    return differ(
                        "what it is a partition of",
                        format!("{schema}.{name}"),
                        &whole.name.name,
                    );
                }
                bounds(*bound, is, *oid, setting)
            }
        },
        (Property::Inherits(written), Entity::Relation(relation)) => {
            let mut left: Vec<&(String, String)> = relation.inherits.iter().collect();
            for parent in written {
                match left
                    .iter()
                    .position(|(schema, name)| means(&parent.name, (schema, name), path))
                {
                    Some(at) => drop(left.remove(at)),
                    None => return Some(format!("it does not inherit from {}", parent.name.name)),
                }
            }
            left.first()
                .map(|(schema, name)| format!("it inherits from {schema}.{name}"))
        }
        (Property::Firing(written), Entity::Trigger(_, trigger)) => match (trigger.firing, *written) {
            (is, written) if is == written => None,
            ('D', _) => Some("it is disabled".into()),
            (_, 'D') => Some("it is not disabled".into()),
            (is, written) => differ("when it fires", is, written),
        },
        (Property::Owner(written), entity) => {
            let is = match entity {
                Entity::Relation(relation) => &relation.owner,
                Entity::Type(found) => &found.owner,
                Entity::Function(function) => &function.owner,
                Entity::Schema(schema) => &schema.owner,
                _ => return None,
            };
            same("the owner", is, written)
        }
        (Property::Sequence(option, written), Entity::Relation(relation)) => match &relation.sequence {
            Some(is) => sequences(*option, written, is, setting, path),
            None => Some("it is no sequence".into()),
        },
        (Property::RowSecurity(on), Entity::Relation(relation)) => {
            same("row-level security", &relation.row_security, on)
        }
        (Property::Force(on), Entity::Relation(relation)) => same("forced row-level security", &relation.force, on),
        (Property::Comment(written), entity) => {
            let is = match entity {
                Entity::Relation(relation) => &relation.comment,
                Entity::Column(_, column) => &column.comment,
                Entity::Type(found) => &found.comment,
                Entity::Function(function) => &function.comment,
                Entity::Schema(schema) => &schema.comment,
                _ => return None,
            };
            (is != written).then(|| match is {
                Some(is) => format!("the comment is {is:?}"),
                None => "there is no comment".into(),
            })
        }
        _ => Some("it is something else".into()),
    }
}
