//! What belongs to tables, and functions: as written?

use super::text::without_places;
use super::{Difference, Names, expressions, same, type_of};
use crate::migration::actual::{self, Actual};
use crate::pg::analysis::{self, Use};
use crate::script::ast::{
    ConstraintDefinition, FunctionDefinition, IndexDefinition, PolicyDefinition, Rule, TriggerDefinition,
};

pub(super) fn constraints(
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

pub(super) fn indexes(written: &IndexDefinition, is: &actual::Index, whole: bool, setting: &Names) -> Difference {
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

pub(super) fn functions(written: &FunctionDefinition, is: &actual::Function, path: &[String]) -> Difference {
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

pub(super) fn triggers(
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

pub(super) fn policies(
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
