//! Is what is there what was written? Expressions are compared as the catalog would show them (`crate::pg::analysis`).

use super::actual::{self, Actual};
use super::world::Said;
use crate::identifier::Identifier;
use crate::pg::Settings;
use crate::pg::analysis::{self, Use};
use crate::pg::tree::{Expression, TypeName};
use crate::problem::Problem;
use crate::script::ast::{
    ConstraintDefinition, FunctionDefinition, IndexDefinition, PolicyDefinition, Rule, TriggerDefinition,
};

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
    /// An extension, by its oid.
    Extension(u32),
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

/// White space outside of quotes as one blank; parentheses around the whole taken off.
pub fn normalized(text: &str) -> String {
    let mut result = String::new();
    let mut quote: Option<char> = None;
    for c in text.chars() {
        match quote {
            Some(q) => {
                if c == q {
                    quote = None;
                }
                result.push(c);
            }
            None if c.is_whitespace() => {
                if !result.ends_with([' ', '(']) {
                    result.push(' ');
                }
            }
            None => {
                if c == ')' && result.ends_with(' ') {
                    result.pop();
                }
                if c == '\'' || c == '"' {
                    quote = Some(c);
                }
                result.push(c);
            }
        }
    }
    let mut text = result.trim().trim_end_matches(';').trim_end();
    while let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        // `(a) AND (b)` has no parentheses around the whole.
        let (mut depth, mut quoted, mut whole) = (0i32, None, true);
        for c in inner.chars() {
            match (quoted, c) {
                (Some(q), c) if c == q => quoted = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quoted = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => depth -= 1,
                _ => {}
            }
            whole &= depth >= 0;
        }
        if !whole {
            break;
        }
        text = inner.trim();
    }
    text.to_string()
}

fn differ(what: &str, is: impl std::fmt::Display, written: impl std::fmt::Display) -> Difference {
    Some(format!("{what} is {is}, written is {written}"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, written: &T) -> Difference {
    (is != written).then(|| format!("{what} is {is:?}, written is {written:?}"))
}

/// How names inside of expressions are looked up.
struct Names {
    /// The search_path.
    setting: String,
    /// Something is called otherwise since.
    renamed: bool,
}

impl Names {
    /// It is not found because it is called otherwise by now, or may not be looked at.
    fn excuse(&self, problem: &Problem) -> bool {
        use pgrx::PgSqlErrorCode::{
            ERRCODE_INSUFFICIENT_PRIVILEGE, ERRCODE_UNDEFINED_COLUMN, ERRCODE_UNDEFINED_FUNCTION,
            ERRCODE_UNDEFINED_OBJECT, ERRCODE_UNDEFINED_TABLE,
        };
        match problem.code {
            // What the caller may not look at is not compared.
            ERRCODE_INSUFFICIENT_PRIVILEGE => true,
            ERRCODE_UNDEFINED_COLUMN
            | ERRCODE_UNDEFINED_TABLE
            | ERRCODE_UNDEFINED_OBJECT
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
    names: &Names,
) -> Difference {
    let written = match written {
        None => String::new(),
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
pub fn holds(said: &Said, entity: Entity, path: &[String], renamed: bool, actual: &Actual) -> Difference {
    let setting = path_setting(path);
    let setting = &Names { setting, renamed };
    match (said, entity) {
        (Said::Type(name), Entity::Column(_, column)) => match type_of(name, path) {
            Ok(Some((oid, modifier))) if (oid, modifier) == (column.type_oid, column.modifier) => None,
            Ok(Some(_)) => differ("the type", &column.type_name, &name.text),
            Ok(None) if renamed => None,
            Ok(None) => differ(
                "the type",
                &column.type_name,
                format!("{}, which does not exist", name.text),
            ),
            Err(problem) => Some(problem.message),
        },
        (Said::NotNull(yes), Entity::Column(_, column)) => match (column.not_null, *yes) {
            (is, yes) if is == yes => None,
            (true, _) => Some("it is NOT NULL, written is nullable".into()),
            (false, _) => Some("it is nullable, written is NOT NULL".into()),
        },
        (Said::Default(written), Entity::Column(_, column)) => {
            if !column.identity.is_empty() {
                return Some("it is an identity column".into());
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
        (Said::Serial, Entity::Column(_, column)) => {
            let nextval = column.default.as_deref().is_some_and(|d| d.starts_with("nextval("));
            (!(column.serial && nextval)).then(|| "no sequence of its own gives its default".into())
        }
        (Said::Generated(written), Entity::Column(relation, column)) => {
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
        (Said::Identity(written), Entity::Column(_, column)) => same(
            "its identity",
            &column.identity,
            &written.map(String::from).unwrap_or_default(),
        ),
        (Said::Constraint(written, _), Entity::Constraint(relation, constraint)) => {
            constraints(written, relation, constraint, setting, path, actual)
        }
        (Said::Valid, Entity::Constraint(_, constraint)) => {
            (!constraint.validated).then(|| "it is NOT VALID".to_string())
        }
        (Said::Index(written), Entity::Relation(relation)) => match &relation.index {
            // Of a partitioned table (ON ONLY) it is complete when each partition has its own.
            Some(index) if relation.kind == 'I' => indexes(written, index, false, setting),
            Some(index) => indexes(written, index, true, setting),
            None => Some("it is no index".into()),
        },
        (Said::Function(written), Entity::Function(function)) => functions(written, function, path),
        (Said::Trigger(written), Entity::Trigger(relation, trigger)) => {
            triggers(written, relation, trigger, setting, path)
        }
        (Said::Policy(written), Entity::Policy(relation, policy)) => policies(written, relation, policy, setting),
        (Said::View(query, columns), Entity::Relation(relation)) => match &relation.query {
            None => Some("it is no view".into()),
            // Later renames, and columns that come to a table of which it shows all, change how it would be written.
            Some(_) if renamed => None,
            Some(is) => match analysis::stored_query(*query, columns, relation.oid, &setting.setting) {
                Err(problem) if setting.excuse(&problem) => None,
                Ok(Some(written)) if normalized(is) != normalized(&written) => {
                    differ("its query", normalized(is), normalized(&written))
                }
                Ok(_) => None,
                Err(problem) => Some(problem.message),
            },
        },
        (Said::Labels(written), Entity::Type(found)) => {
            // Labels that later steps add or rename are objects of their own: only the order of the others is left.
            let there: Vec<&String> = found.labels.iter().filter(|label| written.contains(label)).collect();
            let order: Vec<&String> = written.iter().filter(|label| found.labels.contains(label)).collect();
            match (found.kind, there == order) {
                ('e', true) => None,
                ('e', false) => differ("the order", format!("{:?}", found.labels), format!("{written:?}")),
                _ => Some("it is no enum".into()),
            }
        }
        (Said::Base(written), Entity::Type(found)) => match type_of(written, path) {
            Ok(Some(base)) if base == found.base => None,
            Ok(_) => Some(format!("its base type is another than {}", written.text)),
            Err(problem) => Some(problem.message),
        },
        (Said::RowSecurity(on), Entity::Relation(relation)) => same("row-level security", &relation.row_security, on),
        (Said::Force(on), Entity::Relation(relation)) => same("forced row-level security", &relation.force, on),
        (Said::Comment(written), entity) => {
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

fn constraints(
    written: &ConstraintDefinition,
    relation: &actual::Relation,
    is: &actual::Constraint,
    setting: &Names,
    path: &[String],
    actual: &Actual,
) -> Difference {
    let kind = match written.rule {
        Rule::Primary => 'p',
        Rule::Unique { .. } => 'u',
        Rule::Check(_) => 'c',
        Rule::Foreign(_) => 'f',
        Rule::Exclude => 'x',
    };
    if is.kind != kind {
        return Some(format!("it is {}", is.definition));
    }
    let plain = || Some(format!("it is {}", is.definition));
    let keys = !matches!(written.rule, Rule::Check(_) | Rule::Exclude) && written.using_index.is_none();
    if keys && is.columns != written.columns || (is.deferrable, is.deferred) != (written.deferrable, written.deferred) {
        return plain();
    }
    match &written.rule {
        Rule::Check(expression) => expressions(
            "the condition",
            is.expression.as_deref(),
            Some(*expression),
            Use::Check,
            relation.oid,
            setting,
        ),
        Rule::Unique { .. } if written.using_index.is_some() => None,
        Rule::Unique { nulls_not_distinct } if is.nulls_not_distinct != *nulls_not_distinct => plain(),
        Rule::Foreign(key) => {
            let Some((schema, name)) = &is.parent else {
                return plain();
            };
            let right = match &key.parent.schema {
                Some(written) => written == schema && key.parent.name == *name,
                None => {
                    let first = path
                        .iter()
                        .find(|schema| actual.relation(schema, &key.parent.name).is_some());
                    key.parent.name == *name && first.is_none_or(|first| first == schema)
                }
            };
            let columns = key.parent_columns.is_empty() || key.parent_columns == is.parent_columns;
            let text = |c: char| c.to_string();
            let rest = (text(key.matching), text(key.on_update), text(key.on_delete))
                == (is.matching.clone(), is.on_update.clone(), is.on_delete.clone());
            // Without columns it is the primary key of the parent.
            let primary = actual
                .relation(schema, name)
                .and_then(|parent| parent.constraints.iter().find(|c| c.kind == 'p'))
                .is_none_or(|primary| !key.parent_columns.is_empty() || primary.columns == is.parent_columns);
            match right && columns && rest && primary {
                true => None,
                false => plain(),
            }
        }
        _ => None,
    }
}

fn indexes(written: &IndexDefinition, is: &actual::Index, whole: bool, setting: &Names) -> Difference {
    let plain = || Some(format!("it is {}", is.definition));
    if whole && !is.valid {
        return Some("it is invalid: left behind by a CREATE INDEX CONCURRENTLY that failed".into());
    }
    if (is.unique, is.nulls_not_distinct, &is.method) != (written.unique, written.nulls_not_distinct, &written.method)
        || is.including != written.including
        || is.keys.len() != written.parts.len()
    {
        return plain();
    }
    for (key, part) in is.keys.iter().zip(&written.parts) {
        let class = match &part.operator_class {
            Some(class) => *class == key.operator_class,
            None => key.default_class,
        };
        if (key.descending, key.nulls_first) != (part.descending, part.nulls_first)
            || !class
            || key.column != part.column
        {
            return plain();
        }
        if part.expression.is_some() {
            let key = key.expression.as_deref();
            let difference = expressions("an expression", key, part.expression, Use::Key, is.table, setting);
            if difference.is_some() {
                return difference;
            }
        }
    }
    expressions(
        "WHERE",
        is.predicate.as_deref(),
        written.predicate,
        Use::Predicate,
        is.table,
        setting,
    )
}

fn functions(written: &FunctionDefinition, is: &actual::Function, path: &[String]) -> Difference {
    if let Some(returns) = &written.returns {
        match type_of(returns, path) {
            Ok(Some((oid, _))) if oid == is.returns => {}
            Ok(_) => return Some(format!("it does not return {}", returns.text)),
            Err(problem) => return Some(problem.message),
        }
    }
    let mut sets = written.sets.clone();
    let mut is_set = is.sets.clone();
    sets.sort();
    is_set.sort();
    let body = match &written.body {
        Some(body) => (*body != is.body).then(|| "its body is another".to_string()),
        None => None,
    };
    body.or_else(|| match &written.language {
        Some(language) => same("the language", &is.language, language),
        None => None,
    })
    .or_else(|| same("the volatility", &is.volatility, &written.volatility))
    .or_else(|| same("STRICT", &is.strict, &written.strict))
    .or_else(|| same("SECURITY DEFINER", &is.security_definer, &written.security_definer))
    .or_else(|| same("SETOF", &is.set, &written.set))
    .or_else(|| same("what it sets", &is_set, &sets))
}

fn triggers(
    written: &TriggerDefinition,
    relation: &actual::Relation,
    is: &actual::Trigger,
    setting: &Names,
    path: &[String],
) -> Difference {
    let plain = || Some(format!("it is {}", is.definition));
    let mut columns = (is.columns.clone(), written.columns.clone());
    columns.0.sort();
    columns.1.sort();
    let function = is.function.1 == written.function.name
        && match &written.function.schema {
            Some(schema) => *schema == is.function.0,
            None => path.contains(&is.function.0) || is.function.0 == "pg_catalog",
        };
    if is.kind != written.kind
        || columns.0 != columns.1
        || !(function || setting.renamed)
        || is.arguments != written.arguments
    {
        return plain();
    }
    let condition = match written.condition {
        None => None,
        Some(condition) => match analysis::stored_when(condition, relation.oid, &setting.setting) {
            Err(problem) if setting.excuse(&problem) => return None,
            Ok(text) => Some(text),
            Err(problem) => return Some(format!("WHEN: {}", problem.message)),
        },
    };
    if without_places(is.condition.as_deref()) != without_places(condition.as_deref()) {
        return plain();
    }
    is.disabled.then(|| "it is disabled".to_string())
}

/// A parse tree as text, without where in the statement each part stood.
fn without_places(tree: Option<&str>) -> Option<String> {
    let tree = tree?;
    let mut words: Vec<&str> = Vec::new();
    let mut skip = false;
    for word in tree.split_whitespace() {
        if std::mem::take(&mut skip) {
            // `-1}` closes what it is in.
            let closing = word.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
            if !closing.is_empty() {
                words.push(closing);
            }
            continue;
        }
        match word {
            ":location" => skip = true,
            word => words.push(word),
        }
    }
    Some(words.join(" "))
}

fn policies(
    written: &PolicyDefinition,
    relation: &actual::Relation,
    is: &actual::Policy,
    setting: &Names,
) -> Difference {
    let roles = match written.roles.is_empty() {
        true => vec!["public".to_string()],
        false => written.roles.clone(),
    };
    same("the command", &is.command, &written.command)
        .or_else(|| same("PERMISSIVE", &is.permissive, &written.permissive))
        .or_else(|| {
            let special = roles.iter().any(|r| r == "current_user" || r == "session_user");
            if special {
                None
            } else {
                same("the roles", &is.roles, &roles)
            }
        })
        .or_else(|| {
            expressions(
                "USING",
                is.using.as_deref(),
                written.using,
                Use::Policy,
                relation.oid,
                setting,
            )
        })
        .or_else(|| {
            expressions(
                "WITH CHECK",
                is.check.as_deref(),
                written.check,
                Use::Policy,
                relation.oid,
                setting,
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_without_white_space_and_outer_parentheses() {
        assert_eq!(normalized(" ((a   >\n 1)) "), "a > 1");
        assert_eq!(normalized("((a) AND (b))"), "(a) AND (b)");
        assert_eq!(normalized("('x  )(' = a)"), "'x  )(' = a");
        assert_eq!(
            without_places(Some("{OPEXPR :opno 96 :location 12} {VAR :varno 1 :location -1})")).as_deref(),
            Some("{OPEXPR :opno 96 } {VAR :varno 1 })")
        );
    }
}
