//! What belongs to tables, and functions: as written?

use super::text::without_places;
use super::{Difference, ExpressionContext, collations, differ, expressions, means, same, type_of};
use crate::migration::actual::{self, ActualSchema};
use crate::pg::analysis::{self, Use};
use crate::pg::ast::Expression;
use crate::script::ast::{
    ConstraintDefinition, FunctionDefinition, IndexDefinition, PolicyDefinition, Rule, TriggerDefinition,
};

pub(super) fn constraints(
    written: &ConstraintDefinition,
    relation: &actual::Relation,
    is: &actual::Constraint,
    setting: &ExpressionContext,
    path: &[String],
    actual: &ActualSchema,
) -> Difference {
    let kind = match written.rule {
        Rule::Primary => 'p',
        Rule::Unique { .. } => 'u',
        Rule::Check(_) => 'c',
        Rule::Foreign(_) => 'f',
        Rule::Exclude(_) => 'x',
    };
    if is.kind != kind {
        return Some(format!("it is {}", is.definition));
    }
    let plain = || Some(format!("it is {}", is.definition));
    let keys = !matches!(written.rule, Rule::Check(_) | Rule::Exclude(_)) && written.using_index.is_none();
    if keys && is.columns != written.columns
        || (is.deferrable, is.deferred) != (written.deferrable, written.deferred)
        || is.enforced != written.enforced
        || keys && is.period != written.period
    {
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
        Rule::Exclude(written) => {
            let index = actual.relations.iter().find(|r| r.oid == is.index);
            let Some(index) = index.and_then(|r| r.index.as_ref()) else {
                return plain();
            };
            let operators = written.operators.len() == is.operators.len()
                && written
                    .operators
                    .iter()
                    .zip(&is.operators)
                    .all(|(written, (schema, name))| means(written, (schema, name), path));
            match operators {
                true => indexes(&written.index, index, true, setting, path),
                false => plain(),
            }
        }
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

pub(super) fn indexes(
    written: &IndexDefinition,
    is: &actual::Index,
    whole: bool,
    setting: &ExpressionContext,
    path: &[String],
) -> Difference {
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
            || collations(part.collation.as_ref(), key.collation.as_ref(), path).is_some()
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

pub(super) fn functions(
    written: &FunctionDefinition,
    is: &actual::Function,
    setting: &ExpressionContext,
    path: &[String],
) -> Difference {
    if let Some(returns) = &written.returns {
        match type_of(returns, path) {
            Ok(Some((oid, _))) if oid == is.returns => {}
            Ok(_) => return Some(format!("it does not return {}", returns.text)),
            Err(problem) => return Some(problem.message),
        }
    }
    let body = match (&written.body, written.statements) {
        (Some(body), _) => (*body != is.body || is.statements.is_some()).then(|| "its body is another".to_string()),
        (None, Some(statements)) => bodies(statements, is, setting),
        (None, None) => None,
    };
    body.or_else(|| match &written.language {
        Some(language) => same("the language", &is.language, language),
        // BEGIN ATOMIC goes without.
        None => same("the language", &is.language.as_str(), &"sql"),
    })
    .or_else(|| parameters(written, is, setting, path))
    .or_else(|| same("the volatility", &is.volatility, &written.volatility))
    .or_else(|| same("STRICT", &is.strict, &written.strict))
    .or_else(|| same("SECURITY DEFINER", &is.security_definer, &written.security_definer))
    .or_else(|| same("LEAKPROOF", &is.leakproof, &written.leakproof))
    .or_else(|| same("PARALLEL", &is.parallel, &written.parallel))
    .or_else(|| same("SETOF", &is.set, &written.set))
    .or_else(|| sets(written, is))
}

/// BEGIN ATOMIC and RETURN.
fn bodies(written: Expression, is: &actual::Function, setting: &ExpressionContext) -> Difference {
    let another = || Some("its body is another".to_string());
    let Some(there) = &is.statements else { return another() };
    if setting.code_of_others {
        return None;
    }
    match analysis::stored_statements(written, is.oid, &setting.setting) {
        Ok(written) if without_places(Some(&written)) == without_places(Some(there)) => None,
        Ok(_) => another(),
        Err(problem) if setting.excuse(&problem) => None,
        Err(problem) => Some(format!("its body: {}", problem.message)),
    }
}

fn parameters(
    written: &FunctionDefinition,
    is: &actual::Function,
    setting: &ExpressionContext,
    path: &[String],
) -> Difference {
    if written.parameters.len() != is.parameters.len() {
        return differ(
            "the number of parameters",
            is.parameters.len(),
            written.parameters.len(),
        );
    }
    for (at, (written, (name, mode, oid, default))) in written.parameters.iter().zip(&is.parameters).enumerate() {
        let what = match name.is_empty() {
            true => format!("parameter {}", at + 1),
            false => format!("parameter {name}"),
        };
        let name = same("its name", name, &written.name.clone().unwrap_or_default());
        let difference = name.or_else(|| same("its mode", mode, &written.mode)).or_else(|| {
            match type_of(&written.type_name, path) {
                Ok(Some((written, _))) if written == *oid => None,
                Ok(None) if setting.renamed => None,
                Ok(_) => Some(format!("its type is not {}", written.type_name.text)),
                Err(problem) => Some(problem.message),
            }
        });
        let difference = difference.or_else(|| {
            let form = Use::Parameter { type_oid: *oid };
            expressions("its default", default.as_deref(), written.default, form, 0, setting)
        });
        if let Some(difference) = difference {
            return Some(format!("{what}: {difference}"));
        }
    }
    None
}

/// SET behind a function.
fn sets(written: &FunctionDefinition, is: &actual::Function) -> Difference {
    let names = |all: &mut Vec<String>| {
        all.iter_mut().for_each(|name| *name = name.to_lowercase());
        all.sort();
    };
    let mut there: Vec<String> = is.sets.iter().map(|(name, _)| name.clone()).collect();
    let mut wanted: Vec<String> = written.sets.iter().map(|(name, _)| name.clone()).collect();
    names(&mut there);
    names(&mut wanted);
    if there != wanted {
        return same("what it sets", &there, &wanted);
    }
    for (name, value) in &written.sets {
        // FROM CURRENT: what it was then is not known.
        let Some(value) = value else { continue };
        let there = is.sets.iter().find(|(set, _)| set.eq_ignore_ascii_case(name));
        match analysis::setting(*value) {
            Ok(value) => {
                if let (Some((_, there)), Some(value)) = (there, value)
                    && *there != value
                {
                    return differ(&format!("what it sets {name} to"), there, value);
                }
            }
            Err(problem) => return Some(problem.message),
        }
    }
    None
}

pub(super) fn triggers(
    written: &TriggerDefinition,
    relation: &actual::Relation,
    is: &actual::Trigger,
    setting: &ExpressionContext,
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
        || is.constraint != written.constraint
        || is.transitions != written.transitions
    {
        return plain();
    }
    let condition = match written.condition {
        None => None,
        Some(_) if setting.code_of_others => return None,
        Some(condition) => match analysis::stored_when(condition, relation.oid, &setting.setting) {
            Err(problem) if setting.excuse(&problem) => return None,
            Ok(text) => Some(text),
            Err(problem) => return Some(format!("WHEN: {}", problem.message)),
        },
    };
    if without_places(is.condition.as_deref()) != without_places(condition.as_deref()) {
        return plain();
    }
    None
}

pub(super) fn policies(
    written: &PolicyDefinition,
    relation: &actual::Relation,
    is: &actual::Policy,
    setting: &ExpressionContext,
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
